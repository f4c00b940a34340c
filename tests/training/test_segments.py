"""Lengths of segments: their sum, their number, and how they are distributed."""

import pytest
import torch

from nao_ray import rng
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training import segments
from nao_ray.training.recipe import Recipe
from nao_ray.training.schedule import learning_rate
from nao_ray.training.streams import Continuing
from nao_ray.training.tokens import TokenObjective
from nao_ray.training.trainer import Trainer

KINDS = ("fixed", "normal", "truncated", "halved")


def drawn(total, window, kind, seed=0):
    return segments.lengths(total, window, kind, rng.torch_generator(seed, "order"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, 2, 4, 35])
@pytest.mark.parametrize("total", [1, 3, 34, 36, 60, 997, 14524])
def test_they_are_as_many_as_was_said_and_end_with_the_text(total, window, kind):
    for seed in range(2):
        found = drawn(total, window, kind, seed)
        assert len(found) == segments.count(total, window, kind) >= 1
        assert sum(found) == total
        assert min(found) >= 1


def test_they_are_distributed_as_in_the_references():
    """Columns of the Penn Treebank: about 35, one in twenty about 17.5, within 5 and 55."""
    found = torch.tensor([drawn(14524, 35, "normal", seed) for seed in range(5)]).float()
    assert (found.min() >= 5, found.max() <= 55) == (True, True)
    assert found.mean().item() == pytest.approx(0.95 * 35 + 0.05 * 17.5 - 0.5, abs=0.3)
    usual = found[(found > 26)]
    assert usual.std().item() == pytest.approx(4.6, abs=0.4)  # of a normal distribution without its lower end
    assert (found < 22).float().mean().item() == pytest.approx(0.05, abs=0.02)
    near = torch.tensor(drawn(14524, 35, "truncated")).float()
    assert near.max() <= 46
    halved = drawn(14524, 35, "halved")
    assert {*halved[:-1]} == {35, 17}
    assert halved[:-1].count(17) == pytest.approx(0.05 * len(halved), abs=1)
    assert drawn(100, 35, "fixed") == [35, 35, 30]
    assert drawn(14524, 35, "normal", 1) != drawn(14524, 35, "normal", 2)


@pytest.fixture(scope="module")
def text():
    task = MadeUpText(MadeUpTextConfig(letters=4, gap=2, window=14))
    recipe = Recipe(name="short_text", segments="normal", lr=2.0, lr_end=2.0, slowness_penalty=1.0)
    return task.objective(torch.device("cpu"), recipe)


def test_an_epoch_is_read_once_in_its_segments_and_goes_on_anywhere(text):
    assert isinstance(text, TokenObjective)
    batches = list(text.batches(rng.torch_generator(0, "order")))
    widths = [tokens.shape[1] for tokens, _ in batches]
    assert (len(batches), len(set(widths)) > 3) == (text.steps, True)
    tokens = torch.cat([tokens for tokens, _ in batches], 1)
    assert torch.equal(tokens, text.train.view(20, -1)[:, :-1])
    assert torch.equal(torch.cat([next_ones for _, next_ones in batches], 1), text.train.view(20, -1)[:, 1:])
    rest = list(text.batches(rng.torch_generator(0, "order"), skip=3))
    assert [tokens.shape[1] for tokens, _ in rest] == widths[3:]
    assert torch.equal(rest[0][0], batches[3][0])


class Guess(torch.nn.Module):
    """Logits that do not depend on the tokens, and a penalty in training."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(5))

    def forward(self, tokens, carry):
        logits = self.logits.expand(*tokens.shape, -1)
        return (logits, None, self.logits.sum() + 7) if self.training else (logits, None)


def test_the_rate_of_a_step_is_that_of_its_length_and_a_penalty_is_learnt(text):
    with Trainer(Guess(), text, epochs=2, streams=Continuing(0, text.device)) as trainer:
        widths = [tokens.shape[1] for tokens, _ in text.batches(rng.torch_generator(0, "order"))]
        for width in widths:
            loss = trainer.step()
            assert trainer.optimiser.param_groups[0]["lr"] == pytest.approx(2.0 * width / 14)
            assert loss > 7 - 0.3 * trainer.steps_done * 2 * 14
        assert trainer.network.logits.sum() < -1
    assert learning_rate(text.recipe, 1, 2) == 2.0


def test_perplexity_by_rows_is_the_published_count():
    by = {}
    for count in ("tokens", "rows"):
        task = MadeUpText(MadeUpTextConfig(letters=4, perplexity=count))
        objective = task.objective(torch.device("cpu"), Recipe(name="short_text"))
        by[count] = objective.evaluate(Guess()).loss
        assert task.test_scores(Guess(), {}, objective.device, objective.recipe).value < 5.001
    rows = len(objective.valid) // 10
    assert by["tokens"] == pytest.approx(torch.tensor(5.0).log().item())
    assert by["rows"] == pytest.approx(by["tokens"] * (rows - 1) / rows)


def test_validation_reads_ten_columns_and_the_test_one():
    seen = []

    class Watched(Guess):
        def forward(self, tokens, carry):
            seen.append(tuple(tokens.shape))
            return super().forward(tokens, carry)

    task = MadeUpText(MadeUpTextConfig(letters=4, words=40, window=7))
    objective = task.objective(torch.device("cpu"), Recipe(name="short_text", batch=4))
    objective.evaluate(Watched())
    assert seen == [(10, 4)]
    seen.clear()
    task.test_scores(Watched(), {}, objective.device, objective.recipe)
    assert seen == [(1, 7)] * 7
