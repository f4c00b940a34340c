"""Steps of alphas and weights that are recorded, by a recorder for the CPU, against the same steps not recorded."""

import pytest
import torch
from alternation import ORDERS, copied, cut_halves, same, trainer
from recorder import ReplayRecorder

from nao_ray.training import capture
from nao_ray.training import trainer as trainers
from nao_ray.training.capture import Capture

STEPS = 6
"""Two epochs, of which the last step has half a batch."""

FEW = ("none", "max_pool_3x3", "skip_connect", "dil_conv_3x3")


@pytest.fixture(scope="module")
def halves():
    return cut_halves(50)


@pytest.fixture(autouse=True)
def recorders(monkeypatch):
    made = []

    def make(*args, **kwargs):
        made.append(ReplayRecorder())
        return Capture(*args, **kwargs, recorder=made[-1])

    monkeypatch.setattr(capture, "WARM_UP", 1)
    monkeypatch.setattr(capture, "_spoilt", False)
    monkeypatch.setattr(trainers, "Capture", make)
    return made


def trained(halves, order):
    with trainer(halves, order, primitives=FEW, lr=0.1) as training:
        losses = [training.step().item() for _ in range(STEPS)]
        return losses, copied(training.state()), training.execution


@pytest.mark.parametrize("order", ORDERS)
def test_replayed_steps_are_those_that_are_launched(halves, order, recorders, monkeypatch):
    losses, state, execution = trained(halves, order)
    assert execution == "graph", "nothing in a step looks at the device, epsilon of the second order neither"
    assert (recorders[0].recorded, recorders[0].replays, recorders[0].closed) == (1, 3, 1)
    monkeypatch.setattr(capture, "WARM_UP", 10**9)
    expected, launched, _ = trained(halves, order)
    assert recorders[1].recorded == 0
    assert losses == expected
    assert same(state, launched) == []
    assert len(set(losses)) == STEPS


def test_what_a_recording_would_freeze_is_seen_here(halves, monkeypatch):
    """The random numbers of the alphas' batches, which are seeded anew for each step."""
    seeded = trainer(halves, "first", primitives=FEW)._alpha_drawing
    expected = trained(halves, "first")[0]
    monkeypatch.setattr("nao_ray.training.streams.ByStep.augmentation", lambda *_: seeded)
    assert trained(halves, "first")[0] != expected


def test_a_training_that_is_put_back_after_its_recording_goes_on_from_there(halves, recorders):
    with trainer(halves, "first", primitives=FEW, lr=0.1) as training:
        training.step()
        state = copied(training.state())
        losses = [training.step().item() for _ in range(4)]
        assert recorders[0].recorded == 1
        training.restore(state)
        assert [training.step().item() for _ in range(4)] == losses


def test_where_recording_fails_the_same_steps_are_launched_and_it_says_why(halves, monkeypatch):
    expected = trained(halves, "first")[:2]

    def fail(_self, _run):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(ReplayRecorder, "record", fail)
    losses, state, execution = trained(halves, "first")
    assert execution == "eager: RuntimeError: operation not permitted when stream is capturing"
    assert losses == expected[0]
    assert same(state, expected[1]) == []


def test_on_a_cpu_nothing_is_recorded(halves, monkeypatch):
    monkeypatch.setattr(trainers, "Capture", Capture)
    training = trainer(halves, "first", primitives=FEW)
    training.step()
    assert training.execution == "eager"
    adam = training._alpha_optimiser.state[training.alphas[0]]
    assert adam["step"].device == torch.device("cpu")
