"""Text as tokens: a network reads windows of it in columns, and carries its hidden state from each to the next.

Zaremba, Sutskever, Vinyals, 2014, arXiv 1409.2329: the text is cut into as many columns as a batch has rows, each is
read from its beginning to its end, and gradients do not go further back than a window. Windows of a training may be of
random lengths (`segments`); those of an evaluation are not.

Legend: `n` tokens, `B` columns, `T` tokens of a window, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.errors import DataError
from nao_ray.metric import PERPLEXITY, Metric
from nao_ray.tasks.texts.base import Tokens
from nao_ray.training import segments
from nao_ray.training.devices import autocast, move
from nao_ray.training.objective import (
    BATCH_STATISTICS,
    WHOLE,
    Batch,
    Carry,
    Network,
    NormStatistics,
    Objective,
    Scores,
    Shard,
)
from nao_ray.training.recipe import Optimiser, Recipe, TextRecipe, expect

VALIDATION_COLUMNS, TEST_COLUMNS = 10, 1


@dataclass(frozen=True)
class TokenObjective(Objective):
    """Cross-entropy of the next token, measured by perplexity.

    Its network maps tokens ``[B, T]`` and what is carried, None at first, to logits ``[B, T, V]`` and what is carried
    on, a tuple of tensors; in training mode it may add a penalty, a scalar, which counts where the recipe has one.

    Raises:
        DataError: the text is too short for a window in every column.
    """

    train: Tensor
    """``[n]``, int64."""
    valid: Tensor
    """``[n]``; empty where all of the text trains."""
    window: int
    recipe: TextRecipe
    share: float = 1.0
    shard: Shard = WHOLE
    by_rows: bool = False
    """Whether the loss is divided by all rows of a column instead of those that are predicted, see `read`."""
    metric: Metric = PERPLEXITY
    carries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.recipe.batch < self.shard.count or self._length <= self.window:
            raise DataError(
                f"{self._num_train} training tokens make no step of {self.recipe.batch} columns and a window of "
                f"{self.window} for {self.shard.count} workers; give a smaller batch"
            )

    @classmethod
    def of(
        cls,
        train: Tokens,
        valid: Tokens,
        window: int,
        device: torch.device,
        recipe: TextRecipe,
        *,
        by_rows: bool = False,
    ) -> TokenObjective:
        """Move both splits, once."""
        return cls(move(train, device), move(valid, device), window, recipe, by_rows=by_rows)

    def under(self, recipe: Recipe, *, share: float = 1.0, shard: Shard = WHOLE) -> Self:
        return replace(self, recipe=expect(TextRecipe, recipe, "a task of text"), share=share, shard=shard)

    @property
    def device(self) -> torch.device:
        return self.train.device

    @property
    def _num_train(self) -> int:
        return round(self.share * len(self.train))

    @property
    def _length(self) -> int:
        """Tokens of a column."""
        return self._num_train // self.recipe.batch

    @property
    def num_valid(self) -> int:
        return max(len(self.valid) - 1, 0)

    @property
    def examples_per_row(self) -> int:
        return self.window

    def weight(self, index: int) -> float:
        del index  # all have as many columns
        return self.shard.weight(self.recipe.batch)

    @property
    def steps(self) -> int:
        return segments.count(self._length - 1, self.window, self.recipe.segments)

    def rate_scale(self, batch: Batch) -> float:
        return 1.0 if self.recipe.segments == "fixed" else batch[0].shape[1] / self.window

    def cut(self, order: torch.Generator, share: float = 0.5) -> tuple[Self, Self]:
        del order
        middle = int(self._num_train * (1 - share))
        parts = self.train[:middle], self.train[middle : self._num_train]
        first, second = (replace(self, train=part, share=1.0) for part in parts)
        return first, second

    def on_validation(self) -> Self:
        return replace(self, train=self.valid, share=1.0)

    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Batch]:
        text = self.train[: self._num_train]
        if self.recipe.text_start == "random":
            text = text.roll(-int(torch.randint(len(text), (), generator=order)))
        columns = _columns(text, self.recipe.batch)[self.shard.rank :: self.shard.count]
        yield from _windows(columns, segments.lengths(self._length - 1, self.window, self.recipe.segments, order), skip)

    def loss(self, network: Network, batch: Batch, carry: Carry, generator: torch.Generator) -> tuple[Tensor, Carry]:
        """`batch`: tokens ``[B, T]`` and those that follow them."""
        tokens, following = batch
        with autocast(self.recipe, self.device):
            logits, carry, *penalty = network(tokens, carry)
            smoothing = self.recipe.label_smoothing
            loss = F.cross_entropy(logits.flatten(0, 1), following.flatten(), label_smoothing=smoothing)
            loss = loss + penalty[0] if penalty and self._has_penalties else loss
        return loss, None if carry is None else tuple(part.detach() for part in carry)

    @property
    def _has_penalties(self) -> bool:
        return bool(self.recipe.activation_penalty or self.recipe.slowness_penalty)

    def evaluate(self, network: nn.Module, forward: Network | None = None) -> Scores:
        network.eval()
        return self._read(network if forward is None else partial(_paired, forward), self.valid)

    def evaluate_training(self, network: Network, generator: torch.Generator) -> Scores:
        del generator
        return self._read(network, self.train[: self._num_train])

    def compare(
        self,
        network: nn.Module,
        choices: Sequence[Any],
        order: torch.Generator,
        *,
        batch: int,
        count: int,
        statistics: NormStatistics = BATCH_STATISTICS,
    ) -> list[Scores]:
        """The whole text is cut into `batch` columns, fewer where they would be shorter than a window.

        Each is read from its beginning, where nothing is carried, as far as makes `count` tokens in all: NAO and ENAS
        read one window. They take another one, or others of the text, for each choice.
        """
        network.eval()
        columns = max(1, min(batch, count // self.window, len(self.valid) // (self.window + 1)))
        text = _columns(self.valid, columns)[:, : 1 + max(1, round(count / columns))].flatten()
        return [
            self._read(lambda *inputs, choice=choice: network(*inputs, choice), text, columns) for choice in choices
        ]

    def _read(self, network: Network, text: Tensor, columns: int = VALIDATION_COLUMNS) -> Scores:
        return read(network, text, self.window, self.recipe, columns, by_rows=self.by_rows)


def read(
    network: Network, text: Tensor, window: int, recipe: Optimiser, columns: int, *, by_rows: bool = False
) -> Scores:
    """Of a network in evaluation mode; what is left over by its columns is not read.

    Args:
        network: to be called with tokens and what is carried.
        text: ``[n]``.
        window: tokens read at once.
        recipe: gives the precision.
        columns: that the text is read in, at most half of n.
        by_rows: divide the sum of a column's losses by its tokens, of which the first is not predicted: that is a
            little less than the mean, and what the published codes call perplexity is of it.
    """
    total, count = torch.zeros((), dtype=torch.float64, device=text.device), 0
    carry: Carry = None
    rows = _columns(text, min(columns, len(text) // 2))
    length = rows.shape[1] - 1
    cut = [window] * (length // window) + [length % window] * (length % window > 0)
    with torch.inference_mode(), autocast(recipe, text.device):
        for tokens, following in _windows(rows, cut):
            logits, carry = network(tokens, carry)
            total += F.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction="sum")
            count += following.numel()
    mean = total / (rows.numel() if by_rows else count)
    return Scores(mean.exp().item(), mean.item())


def _columns(text: Tensor, count: int) -> Tensor:
    """``[B, n // B]``."""
    return text[: len(text) // count * count].view(count, -1)


def _windows(columns: Tensor, lengths: Sequence[int], skip: int = 0) -> Iterator[Batch]:
    """Tokens ``[B, T]`` and those that follow them, for each T of `lengths` but the first `skip`."""
    start = sum(lengths[:skip])
    for length in lengths[skip:]:
        yield columns[:, start : start + length], columns[:, start + 1 : start + length + 1]
        start += length


def _paired(forward: Network, tokens: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
    """As a network is called, of a function whose inputs and outputs stand side by side."""
    logits, *carried = forward(tokens, *(carry or ()))
    return logits, tuple(carried) or None
