"""A training whose steps are recorded, by a recorder for the CPU, against the same steps not recorded."""

import gc
import sys
import weakref

import pytest
import torch
from recorder import ReplayRecorder
from torch import nn

from nao_ray import registry, rng
from nao_ray.skeletons.images.base import StackSize
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training import capture, devices, image_splits, trainer
from nao_ray.training.capture import WARM_UP, Capture
from nao_ray.training.fit import fit
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import ByStep, Continuing
from nao_ray.training.trainer import Trainer

RECIPE = Recipe(
    name="short", batch=22, lr=0.1, cutout=2, crop_padding=1, dropout=0.1, drop_path_keep=0.6, auxiliary_weight=0.4
)
EPOCHS = 3


@pytest.fixture
def objective():
    return Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), RECIPE)


@pytest.fixture(autouse=True)
def recorders(monkeypatch):
    made = []

    def make(*args, **kwargs):
        made.append(ReplayRecorder())
        return Capture(*args, **kwargs, recorder=made[-1] if kwargs["execution"] != "eager" else None)

    monkeypatch.setattr(capture, "_spoilt", False)
    monkeypatch.setattr(trainer, "Capture", make)
    return made


def child():
    space, task = registry.load("space", "nao_cnn_small")(), Synthetic(SyntheticConfig())
    skeleton = registry.load("skeleton", space.skeleton)()
    graph = space.lower(space.sample(rng.child(5, "recorded child")))
    with rng.torch_seeded(0, "weights"):
        return skeleton.build(graph, task.shapes, StackSize(cells_per_stage=1, channels=4), RECIPE)


def trained(objective, **options):
    with (
        rng.torch_seeded(0, "dropout"),
        Trainer(child(), objective, epochs=EPOCHS, streams=Continuing(0, objective.device), **options) as training,
    ):
        told = [(training.epoch(), training.evaluate()) for _ in range(EPOCHS)]
        return told, training.state(), training.execution


def test_recorded_steps_train_as_those_that_are_not_through_schedules_drop_path_odd_batches_and_evaluation(
    objective, recorders, monkeypatch
):
    told, state, execution = trained(objective)
    assert execution == "graph"
    assert recorders[0].recorded == 1  # the step; the evaluation would be at its fourth pass
    assert recorders[0].closed == 1
    assert recorders[0].replays == (objective.steps - 1) * EPOCHS - WARM_UP  # the last batch of an epoch is odd
    monkeypatch.setattr(capture, "WARM_UP", 10**9)
    expected, at_last, _ = trained(objective)
    assert recorders[1].recorded == 0
    assert told == expected
    assert state.keys() == at_last.keys()
    assert all(torch.equal(state[name], at_last[name]) for name in state)
    assert len({loss for loss, _ in told}) == EPOCHS


def test_what_a_recording_would_freeze_is_seen_here(objective, monkeypatch):
    expected, _, _ = trained(objective)
    monkeypatch.setattr("nao_ray.networks.stacks.Stack.capturable", lambda *_: None)
    frozen, _, _ = trained(objective)
    assert frozen != expected


def test_a_measurement_says_how_its_steps_were_run(objective):
    measured = fit(child(), objective, epochs=1, seed=0)
    assert measured.execution == "graph"


def test_it_says_graph_of_steps_not_of_evaluations(recorders, monkeypatch):
    monkeypatch.setattr(image_splits, "EVALUATION_BATCH", 4)
    one_step = RECIPE.model_copy(update={"batch": 512})
    objective = Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), one_step)
    assert objective.steps == 1
    measured = fit(child(), objective, epochs=2, seed=0)
    assert recorders[0].recorded == 1
    assert measured.execution == "eager: fewer than 4 steps"


class _Fails(ReplayRecorder):
    def record(self, run):
        run()
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("precision", "after"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float32", torch.float32)]
)
def test_precision_auto_is_float32_from_where_a_step_could_not_be_recorded(precision, after, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ReplayRecorder", _Fails)
    monkeypatch.setattr(devices, "has_bfloat16", lambda _device: True)
    recipe = RECIPE.model_copy(update={"precision": precision})
    objective = Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), recipe)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    seen = []
    network[1].register_forward_hook(lambda _module, _given, out: seen.append(out.dtype))
    before = torch.float32 if precision == "float32" else torch.bfloat16
    with Trainer(network, objective, epochs=EPOCHS, streams=Continuing(0, objective.device)) as training:
        for _ in range(WARM_UP + 2):
            training.step()
        assert training.execution.startswith("eager: RuntimeError")
        training.evaluate()
    assert seen[: WARM_UP + 1] == [before] * (WARM_UP + 1)  # one of them in the recording that failed
    assert seen[WARM_UP + 1 :] == [after] * len(seen[WARM_UP + 1 :])
    assert len(seen) > WARM_UP + 3


def test_shared_weights_and_groups_are_not_recorded(objective):
    with Trainer(child(), objective, epochs=1, streams=ByStep(0, objective.device)) as training:
        training.epoch()
        assert training.execution == "eager"
        assert isinstance(training.optimiser.param_groups[0]["lr"], float)
    with pytest.raises(RuntimeError, match="execution is graph, and steps of shared weights or of a group are laun"):
        Trainer(child(), objective, epochs=1, streams=ByStep(0, objective.device), execution="graph")


def test_eager_on_request(objective):
    assert trained(objective, execution="eager")[2] == "eager"


class _FailsMidway(ReplayRecorder):
    """Its recording ends within the backward pass, when the first gradient is there."""

    recording = False

    def record(self, run):
        type(self).recording = True
        try:
            return super().record(run)
        finally:
            type(self).recording = False


def test_the_step_after_a_recording_that_failed_midway_has_its_own_gradients_alone(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ReplayRecorder", _FailsMidway)
    plain = Recipe(name="short", batch=22, lr=0.1, crop_padding=0, flip=False)
    objective = Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), plain)

    def fail(_):
        if _FailsMidway.recording:
            raise RuntimeError("operation not permitted when stream is capturing")

    def weights(execution):
        network = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
        with rng.torch_seeded(0, "weights"):
            network(torch.zeros(2, 1, 8, 8))
        for parameter in network.parameters():
            parameter.register_post_accumulate_grad_hook(fail)
        streams = Continuing(0, objective.device)
        with Trainer(network, objective, epochs=EPOCHS, streams=streams, execution=execution) as training:
            for _ in range(WARM_UP + 1):
                training.step()
            return training.execution, list(network.parameters())

    (how, mine), (_, expected) = weights("auto"), weights("eager")
    assert how.startswith("eager: RuntimeError")
    assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_a_training_that_is_put_back_after_its_recording_goes_on_from_there(objective, recorders):
    with (
        rng.torch_seeded(0, "dropout"),
        Trainer(child(), objective, epochs=EPOCHS, streams=Continuing(0, objective.device)) as training,
    ):
        for _ in range(2):
            training.step()
        state = {name: value.clone() for name, value in training.state().items()}
        losses = [training.step().item() for _ in range(12)]
        assert recorders[0].recorded == 1
        training.restore(state)
        assert [training.step().item() for _ in range(12)] == losses


def test_nothing_is_left_of_a_training_that_is_closed(objective):
    """Without the garbage collector, which no child waits for."""
    gc.collect()
    gc.disable()
    try:
        training = Trainer(child(), objective, epochs=EPOCHS, streams=Continuing(0, objective.device))
        with training:
            training.step()
        left = weakref.ref(training.network)
        del training
        assert left() is None
    finally:
        gc.enable()
