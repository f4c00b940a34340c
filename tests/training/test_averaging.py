"""Averaged weights and going back to the best epoch, on a reader of letters that takes a few milliseconds."""

import math

import pytest
import torch
from torch import nn

from nao_ray import rng
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training.averaging import WeightAverage, settled
from nao_ray.training.checkpoint import pack, part, unpack
from nao_ray.training.fit import Start, fit
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

CPU = torch.device("cpu")
RECIPE = Recipe(
    name="short_text", batch=8, lr=1.0, lr_end=1.0, segments="normal", averaging="nonmonotone", averaging_patience=1,
    restarts=2,
)  # fmt: skip
TASK = MadeUpText(MadeUpTextConfig(letters=4, gap=1, window=14, words=100))


class Reader(nn.Module):
    """Logits of the next letter by this one, with dropout; `broken` calls in training give what is no number."""

    def __init__(self, broken=(), error=None):
        super().__init__()
        self.table, self.drop = nn.Embedding(5, 5), nn.Dropout(0.2)
        self.calls, self.broken, self.error = 0, broken, error

    def forward(self, tokens, carry):
        logits = self.drop(self.table(tokens))
        if self.training:
            self.calls += 1
            if self.calls in self.broken:
                if self.error is not None:
                    raise self.error
                logits = logits * math.nan
        return logits, (tokens[:, -1],)


def network(**arguments):
    with rng.torch_seeded(0, "weights"):
        return Reader(**arguments)


@pytest.fixture(scope="module")
def text():
    return TASK.objective(CPU, RECIPE)


def begins(losses, patience):
    """As the published codes write it: the epoch, counted from 0, whose loss begins the averaging."""
    recorded = []
    for epoch, loss in enumerate(losses):
        if len(recorded) > patience and loss > min(recorded[:-patience]):
            return epoch
        recorded.append(loss)
    return None


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [
        ([5, 4, 3, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6], 8),
        ([3, 4, 4, 4, 4, 4, 4], 6),
        ([3, 4, 4, 4, 4, 4], None),  # more than five have to be before
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], None),
        ([9, 8, 7, 6, 5, 4, 8.5, 3], None),
        ([9, 8, 7, 6, 5, 4, 9.5, 3], 6),
    ],
)
def test_averaging_begins_where_the_loss_has_not_fallen_for_five_epochs(losses, epoch):
    assert begins(losses, 5) == epoch
    average, found = WeightAverage({"w": nn.Parameter(torch.zeros(1))}, 5), None
    for number, loss in enumerate(losses):
        average.tell(loss)
        found = number if average.has_begun and found is None else found
    assert found == epoch


def trainer_of(text):
    return Trainer(network(), text, epochs=9, streams=Continuing(0, CPU))


LOSSES = (1.0, 2.0, 3.0, 4.0)  # with a patience of 1 the third begins it


def run(trainer, steps):
    """So many steps, told of made-up losses at the end of epochs; the weights after each."""
    seen = []
    for _ in range(steps):
        trainer.step()
        seen.append(trainer.network.table.weight.detach().clone())
        if trainer.steps_done % trainer.objective.steps == 0:
            trainer.tell(LOSSES[trainer.epochs_done - 1])
    return seen


def test_the_mean_of_the_weights_since_then_is_evaluated(text):
    with rng.torch_seeded(0, "dropout"), trainer_of(text) as trainer:
        plain = run(trainer, 3 * text.steps)[-1]
        assert trainer.evaluate() == text.evaluate(trainer.network), "no step has been averaged yet"
        seen = torch.stack(run(trainer, text.steps - 1))
        expected = network()
        expected.table.weight.data = seen.mean(0)
        torch.testing.assert_close(trainer.state()["average.mean.table.weight"], seen.mean(0))
        assert trainer.evaluate().loss == pytest.approx(text.evaluate(expected).loss, rel=1e-6)
        assert torch.equal(trainer.network.table.weight, seen[-1])
        assert not torch.equal(plain, seen[-1])
        assert settled(trainer.state())["network.table.weight"] is trainer.state()["average.mean.table.weight"]
        assert not part(settled(trainer.state()), "average")


@pytest.mark.parametrize("epochs", [1.5, 2, 3, 3.5])  # the switch is after three
def test_it_goes_on_to_the_bit_before_and_after_the_switch(text, epochs):
    after, whole = round(epochs * text.steps), 4 * text.steps - 2
    with rng.torch_seeded(0, "dropout"), trainer_of(text) as unbroken:
        run(unbroken, whole)
        expected = pack(unbroken.state())
        scores = unbroken.evaluate()
    with rng.torch_seeded(0, "dropout"), trainer_of(text) as first:
        run(first, after)
        state = pack(first.state())
    with rng.torch_seeded(1, "dropout"), trainer_of(text) as second:
        second.restore(unpack(state))
        run(second, whole - after)
        assert pack(second.state()) == expected
        assert second.evaluate() == scores


def test_a_training_goes_back_to_its_best_epoch_with_other_numbers_so_often(text, caplog):
    plain = fit(network(), text, epochs=4, seed=0)
    assert plain.curve[0] > plain.curve[1] > plain.curve[2]
    third = 2 * text.steps + 3
    told = []
    once = fit(network(broken=(third,)), text, epochs=4, seed=0, listener=told.append)
    assert [epoch.done for epoch in told] == [1, 2, 3, 4]
    assert once.curve[:2] == plain.curve[:2]
    assert (len(once.curve), once.curve[2] != plain.curve[2]) == (4, True)
    assert "the loss of epoch 3 is not finite: on from the end of epoch 2, the best (restart 1 of 2)" in caplog.text
    caplog.clear()
    often = fit(network(broken=range(third, 10**6)), text, epochs=4, seed=0)
    assert math.isnan(often.score)
    assert caplog.text.count("is not finite") == 2
    error = fit(network(broken=(1, third), error=FloatingPointError("underflow")), text, epochs=4, seed=0)
    assert len(error.curve) == 4
    never = text.under(RECIPE.model_copy(update={"restarts": 0}))
    assert math.isnan(fit(network(broken=(third,)), never, epochs=4, seed=0).score)


@pytest.mark.parametrize("stopped", [1, 6, 7])
def test_a_training_that_is_cut_off_goes_back_as_the_unbroken_one(text, stopped, caplog):
    """It breaks in epoch 8; with a high rate the best one is the sixth."""
    wild = text.under(RECIPE.model_copy(update={"lr": 30.0, "lr_end": 30.0, "clip_norm": None}))
    kept, per_epoch = {}, text.steps
    broken = 7 * per_epoch + 2
    whole = fit(
        network(broken=(broken,)), wild, epochs=9, seed=0,
        listener=lambda epoch: kept.setdefault(epoch.done, (pack(epoch.state()), epoch.history)),
    )  # fmt: skip
    state, history = kept[stopped]
    again = fit(
        network(broken=(broken - stopped * per_epoch,)), wild, epochs=9, seed=0,
        start=Start(stopped, unpack(state), history),
    )  # fmt: skip
    assert again.curve == whole.curve
    assert len(whole.curve) == 9
    assert min(range(6), key=whole.curve.__getitem__) == 5, "another one was gone back to"
    assert "on from the end of epoch 6, the best" in caplog.text


def test_without_averaging_a_state_has_none_of_it(text):
    recipe = RECIPE.model_copy(update={"averaging": "none", "restarts": 0})
    states = []
    fit(network(), text.under(recipe), epochs=1, seed=0, listener=lambda epoch: states.append(epoch.state()))
    assert {name.partition(".")[0] for name in states[0]} == {"network", "generator", "step"}


def test_the_mean_of_the_last_steps_is_taken_and_restored(text):
    """Of 3 epochs the last half, also where the training was cut within it; before, the weights themselves."""
    recipe = RECIPE.model_copy(update={"averaging": "tail", "averaging_share": 0.5, "restarts": 0})
    objective, seen, ends = text.under(recipe), [], []
    total = 3 * objective.steps
    begin = total - math.ceil(total / 2)
    for cut in (None, begin + 2):
        net = network()
        with rng.torch_seeded(0, "dropout"), Trainer(net, objective, epochs=3, streams=Continuing(0, CPU)) as trainer:
            for step in range(total):
                if step == cut:
                    state = unpack(pack(trainer.state()))
                    trainer.restore(state)
                trainer.step()
                seen += [net.table.weight.detach().clone()] if cut is None else []
            ends.append(settled(trainer.state())["network.table.weight"])
            assert torch.equal(net.table.weight, seen[-1])
    torch.testing.assert_close(ends[0], torch.stack(seen[begin:]).mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(*ends)


def test_a_trained_network_is_the_one_that_was_scored(text):
    told, trained, recipe = [], network(), RECIPE.model_copy(update={"averaging": "tail", "averaging_share": 0.5})
    objective = text.under(recipe)
    fit(trained, objective, epochs=3, seed=0, listener=lambda epoch: told.append((epoch.scores, pack(epoch.state()))))
    scores, state = told[-1][0], unpack(told[-1][1])
    assert not torch.equal(state["network.table.weight"], state["average.mean.table.weight"])
    assert torch.equal(trained.table.weight, state["average.mean.table.weight"])
    assert objective.evaluate(trained).value == scores.value
