"""A child's training on a device, its steps in a graph: ``pytest -m gpu tests/gpu``."""

import pytest
import torch

from nao_ray import registry, rng
from nao_ray.skeletons.images.base import StackSize
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training import capture
from nao_ray.training.fit import fit
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
TASK = SyntheticConfig(size=16, channels=3, per_class=300)


def recipe(precision):
    return Recipe(
        name="short", batch=64, lr=0.1, cutout=4, crop_padding=2, dropout=0.1, drop_path_keep=0.6,
        auxiliary_weight=0.4, precision=precision,
    )  # fmt: skip


def child(objective_recipe):
    space = registry.load("space", "nao_cnn_small")()
    skeleton = registry.load("skeleton", space.skeleton)()
    graph = space.lower(space.sample(rng.child(5, "recorded child")))
    with rng.torch_seeded(0, "weights"):
        return skeleton.build(
            graph, Synthetic(TASK).shapes, StackSize(cells_per_stage=1, channels=16), objective_recipe
        )


def trained(execution, precision, epochs=4):
    with (
        rng.torch_seeded(0, "dropout"),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        objective = Synthetic(TASK).objective(torch.device("cuda"), recipe(precision))
        streams = Continuing(0, objective.device)
        network = child(objective.recipe)
        with Trainer(network, objective, epochs=epochs, streams=streams, execution=execution) as training:
            told = [(training.epoch(), training.evaluate()) for _ in range(epochs)]
            return told, training.state(), training.execution


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_and_evaluations_in_graphs_are_those_that_are_launched(precision, monkeypatch):
    told, state, execution = trained("graph", precision)
    assert execution == "graph"
    monkeypatch.setattr(capture, "WARM_UP", 10**9)
    expected, at_last, _ = trained("graph", precision)
    for (loss, scores), (other, others) in zip(told, expected, strict=True):
        assert loss == pytest.approx(other, rel=1e-5)
        assert scores.loss == pytest.approx(others.loss, rel=1e-4)
    print(precision, told[-1], expected[-1], sum(not torch.equal(state[name], at_last[name]) for name in state))
    assert told[-1][0] < 0.8 * told[0][0]


def test_it_learns_there_and_on_the_cpu():
    on = {
        kind: fit(
            child(recipe("float32")), Synthetic(TASK).objective(torch.device(kind), recipe("float32")), epochs=4, seed=0
        )
        for kind in ("cuda", "cpu")
    }
    print({kind: (measured.valid_accuracy, measured.valid_loss) for kind, measured in on.items()})
    assert on["cuda"].execution == "graph"
    assert on["cuda"].peak_memory_bytes > 0
    chance = 1 / Synthetic(TASK).shapes.num_classes
    assert min(measured.valid_accuracy for measured in on.values()) > 2 * chance  # the images drawn are others
