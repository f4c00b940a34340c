"""Steps on alphas and weights in turn: what each moves, what it draws, and that it goes on from anywhere."""

import pytest
import torch
from alternation import ORDERS, copied, cut_halves, same, trainer

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.spaces.darts_cnn import PRIMITIVES
from nao_ray.training.checkpoint import pack_version, unpack_version

FEW = tuple(name for name in PRIMITIVES if "5x5" not in name)
"""An operation of each kind: those of a larger kernel are the same modules, and cost the most."""


@pytest.fixture(scope="module")
def halves():
    return cut_halves()


@pytest.fixture(scope="module")
def short():
    """Halves of three steps an epoch, the last one of a smaller batch."""
    return cut_halves(50)


def test_halves_are_apart_and_together_all(halves):
    first, second = (set(half.rows.tolist()) for half in halves)
    assert not first & second
    assert len(first | second) == len(halves[0].train)
    again = halves[0].cut(rng.torch_generator(0, "halves"))
    assert set(again[0].rows.tolist()) < first, "a half may be cut again"


@pytest.mark.parametrize("order", ORDERS)
def test_each_step_moves_its_own_alone(halves, order, monkeypatch):
    training, states = trainer(halves, order), []
    move = training._move_alphas

    def watched(*arguments):
        states.append(copied(training.state()))
        move(*arguments)
        states.append(copied(training.state()))

    monkeypatch.setattr(training, "_move_alphas", watched)
    for _ in range(2 if order == "second" else 1):
        training.step()
        states.append(copied(training.state()))
    for before, between, after in zip(*[iter(states)] * 3, strict=True):
        moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], between[name])}
        assert moved <= {"alphas", "adam"}
        assert "alphas" in moved
        others = {name for name in between if not torch.equal(between[name], after[name])}
        assert not any(name.startswith(("alphas.", "adam.")) for name in others)
        assert any(name.startswith("network.") for name in others)
    norms = [name for name in states[-1] if name.endswith("num_batches_tracked")]
    assert {states[-1][name].item() for name in norms} == {training.steps_done}, (
        "the passes of the alphas leave no trace"
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_unrolled_step_is_the_weights_own(halves, nesterov):
    """With alphas that stay it is where the weights come to, on the same augmented batch."""
    recipe = halves[0].recipe.model_copy(update={"clip_norm": None, "nesterov": nesterov})
    training = trainer(halves, objective=halves[0].under(recipe), lr=1e-30)
    training.step()  # from now on there is momentum
    seen, ahead = [], []
    training.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    unrolled = training._unrolled

    def watched(weights):
        found = unrolled(weights)
        step = found.step

        def stepped(*arguments):
            ahead[:] = step(*arguments)
            return ahead

        object.__setattr__(found, "step", stepped)
        return found

    training._unrolled = watched
    training.step()
    assert len(seen) == 5
    train = [seen[index] for index in (0, 2, 3, 4)]
    assert all(torch.equal(images, train[0]) for images in train)
    assert seen[1].shape == train[0].shape
    assert not torch.equal(seen[1], train[0])
    for mine, there in zip(ahead, training.network.parameters(), strict=True):
        torch.testing.assert_close(mine, there, rtol=1e-4, atol=1e-6)


def test_one_step_of_adam_is_the_textbooks(halves):
    training = trainer(halves, "first", lr=0.01)
    before = [alpha.clone() for alpha in training.alphas]
    training.step()
    for old, new in zip(before, training.alphas, strict=True):
        moved = (new - old).abs()
        assert (moved[moved > 0] <= 0.01 + 1e-6).all()
    normal, reduction = (new - old for old, new in zip(before, training.alphas, strict=True))
    assert reduction.abs().max() > 0.009, "Adam's first step is as long as its rate"
    # a net of one cell, which reduces, has no normal one: its alphas are moved by weight decay alone
    decay = 1e-3 * before[0]
    torch.testing.assert_close(normal, -0.01 * decay / (decay.abs() + 1e-8), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("order", "broken"), [("first", [1]), ("second", [0, 1, 4, 5]), ("exact", [1])])
def test_a_resumed_training_is_the_unbroken_one(halves, order, broken):
    """At any step, within an epoch of the weights and a pass of the alphas and at their ends, of four steps each."""
    unbroken, states = trainer(halves, order, primitives=FEW), []
    for _ in range(max(broken) + 1):
        states.append(copied(unbroken.state()))
        unbroken.step()
    states.append(copied(unbroken.state()))
    resumed = trainer(halves, order, primitives=FEW)
    for after in broken:
        resumed.restore(states[after])
        assert same(states[after], resumed.state()) == []
        resumed.step()
        assert same(states[after + 1], resumed.state()) == []


def test_a_version_holds_it_at_the_end_of_an_epoch(short):
    training = trainer(short, primitives=FEW)
    training.epoch()
    state, epochs = unpack_version(pack_version(training.state(), training.epochs_done))
    again = trainer(short, seed=3, primitives=FEW)
    again.restore({**state, "step": torch.tensor(epochs * short[0].steps)})
    assert torch.equal(training.step(), again.step())
    assert same(training.state(), again.state()) == []


def test_states_of_others_are_refused(halves):
    training = trainer(halves)
    state = training.state()
    without = {name: value for name, value in state.items() if not name.startswith("alphas.")}
    with pytest.raises(DataError, match=r"weights: 0 is missing"):
        training.restore(without)


def test_the_rate_is_the_epochs(short):
    training, rates = trainer(short, "first", primitives=FEW), []
    for _ in range(2 * short[0].steps):
        training.step()
        rates.append(training.optimiser.param_groups[0]["lr"])
    steps = short[0].steps
    assert rates == pytest.approx([0.025] * steps + [0.001 + 0.012 * (1 + 2**-0.5)] * steps)


def test_the_eigenvalue_is_the_same_again_and_leaves_everything(halves):
    training = trainer(halves, primitives=FEW)
    training.step()
    before = copied(training.state())

    def ask():
        return training.largest_eigenvalue(rng.torch_generator(1, "batch"), rng.torch_generator(1, "drawing"))

    first = ask()
    assert first == ask()
    assert abs(first) > 0
    assert same(before, training.state()) == []
