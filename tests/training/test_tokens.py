"""A tiny recurrent network on a made-up text: it learns, needs what it carries, and goes on to the bit."""

import math

import pytest
import torch
from torch import nn

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training.checkpoint import pack, unpack
from nao_ray.training.fit import fit
from nao_ray.training.objective import Shard
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import Continuing
from nao_ray.training.tokens import TokenObjective
from nao_ray.training.trainer import Trainer

RECIPE = Recipe(
    name="short_text", batch=20, lr=1.0, lr_end=0.0, momentum=0.9, nesterov=True, weight_decay=0.0, clip_norm=1.0,
    warmup_epochs=1.0, text_start="random",
)  # fmt: skip
TASK = MadeUpText(MadeUpTextConfig(letters=4, gap=2, window=3))  # a word is longer than a window
CPU = torch.device("cpu")


class Recurrent(nn.Module):
    """Tokens ``[B, T]`` and a state -> logits ``[B, T, V]`` and a state."""

    def __init__(self, vocabulary, width=24):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.cell, self.drop = nn.GRU(width, width, batch_first=True), nn.Dropout(0.1)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens, carry):
        states, last = self.cell(self.embedding(tokens), None if carry is None else carry[0])
        return self.head(self.drop(states)), (last,)


class Forgetful(Recurrent):
    """The same, which drops what it carries."""

    def forward(self, tokens, carry):
        return super().forward(tokens, None)


def network(kind=Recurrent):
    with rng.torch_seeded(0, "weights"):
        return kind(TASK.vocabulary)


@pytest.fixture(scope="module")
def text():
    return TASK.objective(CPU, RECIPE)


def test_perplexity_falls_far_below_that_of_a_guess_if_the_state_is_carried(text):
    carried = fit(network(), text, epochs=12, seed=0)
    forgotten = fit(network(Forgetful), text, epochs=12, seed=0)
    uniform = TASK.vocabulary
    assert carried.valid_perplexity < 0.4 * uniform
    assert carried.valid_perplexity == pytest.approx(TASK.best_perplexity, rel=0.1)
    assert forgotten.valid_perplexity > 1.15 * carried.valid_perplexity
    assert carried.score == -carried.valid_perplexity
    assert carried.valid_accuracy is None
    assert carried.valid_perplexity == pytest.approx(math.exp(carried.valid_loss))
    assert carried.curve[-1] == carried.valid_perplexity < carried.curve[0]


def _trainer(text, kind=Recurrent):
    return Trainer(network(kind), text, epochs=3, streams=Continuing(0, CPU))


@pytest.mark.parametrize("after", [1, 5, 27, 40])
def test_a_resumed_training_is_the_unbroken_one(text, after):
    """After that many steps of 27 an epoch: what is carried is part of the state."""
    assert text.steps == 27
    with rng.torch_seeded(0, "dropout"):
        whole = _trainer(text)
        losses = [whole.epoch() for _ in range(3)]
    with rng.torch_seeded(0, "dropout"):
        first = _trainer(text)
        for _ in range(after):
            first.step()
        state = pack(first.state())
    with rng.torch_seeded(1, "dropout"):  # whatever it was
        second = _trainer(text)
        second.restore(unpack(state))
        assert [second.epoch() for _ in range(3 - second.epochs_done)] == losses[after // 27 :]
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name
    assert ("carry.0" in unpack(state)) is bool(after % 27)


def test_an_epoch_reads_every_column_once_in_windows(text):
    batches = list(text.batches(rng.torch_generator(0, "order")))
    assert len(batches) == text.steps
    tokens = torch.cat([given for given, _ in batches], 1)
    following = torch.cat([next_ones for _, next_ones in batches], 1)
    assert tokens.shape == (20, len(text.train) // 20 - 1)
    assert torch.equal(tokens[:, 1:], following[:, :-1])
    assert {given.shape[1] for given, _ in batches[:-1]} == {3}
    skipped = list(text.batches(rng.torch_generator(0, "order"), skip=20))
    assert torch.equal(skipped[0][0], batches[20][0])
    halves = [text.under(RECIPE, shard=Shard(rank, 2)) for rank in range(2)]
    parts = [next(half.batches(rng.torch_generator(0, "order")))[0] for half in halves]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), batches[0][0])
    fewer = text.under(RECIPE, share=0.5)
    assert fewer.steps == 13


def test_choices_are_compared_on_the_same_text(text):
    class Shared(Recurrent):
        def forward(self, tokens, carry, choice):
            logits, carry = super().forward(tokens, carry)
            return logits * choice, carry

    shared = network(Shared)
    order = rng.torch_generator(0, "one-shot validation")
    none, half, whole = text.compare(shared, [0.0, 0.5, 1.0], order, batch=10, count=text.num_valid)
    assert none.value == pytest.approx(TASK.vocabulary)
    assert len({none.loss, half.loss, whole.loss}) == 3
    chosen = Trainer(shared, text, epochs=1, streams=Continuing(0, CPU), choose=lambda step: 1.0)
    assert math.isfinite(chosen.epoch())


def test_choices_are_compared_on_whole_windows(text):
    lengths = set()

    class Shared(Recurrent):
        def forward(self, tokens, carry, choice):
            lengths.add(tokens.shape[1])
            return super().forward(tokens, carry)

    order = rng.torch_generator(0, "one-shot validation")
    for count in (30, 500):  # of as many columns there is one window or less
        text.compare(network(Shared), [None], order, batch=500, count=count)
        assert max(lengths) == text.window == 3
        lengths.clear()


def test_choices_are_compared_on_the_same_places_all_over_the_text(text):
    read = []

    class Shared(Recurrent):
        def forward(self, tokens, carry, choice):
            read.append((choice, carry is None, tokens))
            return super().forward(tokens, carry)

    order = rng.torch_generator(0, "one-shot validation")
    text.compare(network(Shared), ["a", "b"], order, batch=4, count=4 * text.window)
    (a, first_a, tokens), (b, first_b, same) = read
    assert (a, b, first_a, first_b) == ("a", "b", True, True)
    assert torch.equal(tokens, same)
    length = len(text.valid) // 4
    assert torch.equal(tokens, text.valid[: 4 * length].view(4, length)[:, : text.window])


def test_a_step_of_a_group_is_that_of_one_worker_on_all_columns(text):
    odd = text.under(RECIPE.model_copy(update={"batch": 5}))

    class Hand:
        """Sees what a worker hands in."""

        def __init__(self):
            self.given = []

        def __call__(self, used):
            self.given.append({name: parameter.grad.clone() for name, parameter in used.items()})
            return used

        def mean(self, value):
            return value

        def sum(self, value):
            return value

    def gradients(shard):
        seen, net = Hand(), network()
        net.drop.p = 0.0
        part = odd.under(odd.recipe, shard=shard)
        Trainer(net, part, epochs=1, streams=Continuing(0, CPU), averager=seen).step()
        return seen.given[0]

    parts, whole = [gradients(Shard(rank, 3)) for rank in range(3)], gradients(Shard())  # of 2, 2 and 1 columns
    for name, gradient in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 3, gradient, rtol=0, atol=1e-6)


def test_the_test_text_is_another_and_all_of_the_text_can_train(text):
    scores = TASK.test_scores(network(), {}, CPU, RECIPE)
    assert scores.value == pytest.approx(math.exp(scores.loss))
    assert scores != text.evaluate(network())
    everything = TASK.objective(CPU, RECIPE, all_data=True)
    assert (len(everything.train), everything.num_valid) == (len(text.train) + len(text.valid), 0)
    assert fit(network(), everything, epochs=1, seed=0).valid_perplexity is None


def test_a_text_without_a_step_is_refused():
    with pytest.raises(DataError, match=r"2000 training tokens make no step of 1000 columns and a window of 4"):
        MadeUpText(MadeUpTextConfig()).objective(CPU, RECIPE.model_copy(update={"batch": 1000}))
    assert TokenObjective.metric.name == "perplexity"
