"""A text's training in graphs and the kernels of recurrent nodes, on a device: ``pytest -m gpu tests/gpu``."""

import pytest
import torch

from nao_ray import rng
from nao_ray.networks import fast, recurrent, recurrent_fast
from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training import capture
from nao_ray.training.recipe import TextRecipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
NODES = [(0, "relu"), (0, "tanh"), (2, "sigmoid"), (2, "sigmoid"), (4, "identity"), (0, "identity")]
CELL = Cell(1, tuple((Edge(source, op),) for source, op in NODES), tuple(range(1, len(NODES) + 1)))
LOST = {"dropout": 0.2, "dropout_hidden": 0.1, "dropout_words": 0.1, "activation_penalty": 2.0, "slowness_penalty": 1.0}
RECIPE = TextRecipe(
    name="short_text", batch=32, lr=1.0, clip_norm=0.25, segments="normal", precision="float32", **LOST
)  # fmt: skip


def trained(epochs=4):
    task = MadeUpText(MadeUpTextConfig(window=20, words=8000))
    with rng.torch_seeded(0, "weights"):
        config = RecurrentConfig(vocabulary=task.vocabulary, hidden=48, **LOST)
        network = RecurrentNetwork(ArchGraph("recurrent", (("recurrent", CELL),)), config)
    text = task.objective(torch.device("cuda"), RECIPE)
    with (
        rng.torch_seeded(0, "dropout"),
        Trainer(network, text, epochs=epochs, streams=Continuing(0, text.device), execution="graph") as training,
    ):
        return [(training.epoch(), training.evaluate().loss) for _ in range(epochs)], training.execution


def test_segments_from_graphs_train_as_launched_ones(monkeypatch):
    told, execution = trained()
    print(execution, told)
    replayed, steps = (int(word) for word in execution.split() if word.isdigit())
    assert replayed > 0.5 * steps
    monkeypatch.setattr(capture, "WARM_UP", 10**9)
    expected, _ = trained()
    for mine, theirs in zip(told, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)  # other kernels round otherwise, and a training multiplies it
    assert told[-1][0] < told[0][0]


@pytest.mark.parametrize("masked", [True, False])
def test_recurrent_nodes_are_the_plain_ones(masked):
    draw = torch.Generator().manual_seed(0)
    shapes = [(160, 160), *[(80, 160)] * len(NODES), (20, 16, 80), (16, 80)]
    wide = [(0.1 * torch.randn(shape, generator=draw)).double().requires_grad_() for shape in shapes]
    mask = (torch.rand(16, 80, generator=draw) < 0.7).double() / 0.7 if masked else None
    tensors = [tensor.detach().float().cuda().requires_grad_() for tensor in wide]
    with fast.in_graph():
        assert fast.kernels_for(tensors[0], "recurrent") is not None
        small = None if mask is None else mask.float().cuda()
        mine = recurrent_fast.segment(CELL, tensors[0], tensors[1:-2], *tensors[-2:], small)
        gradients = torch.autograd.grad(mine.sum(), tensors)
    theirs = recurrent.segment(CELL, wide[0], wide[1:-2], *wide[-2:], mask)
    expected = [theirs, *torch.autograd.grad(theirs.sum(), wide)]
    for one, other in zip([mine, *gradients], expected, strict=True):
        assert ((one.cpu().double() - other).norm() / other.norm()).item() < 1e-4
