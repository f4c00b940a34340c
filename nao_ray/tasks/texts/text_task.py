"""The base of every task that is a text: read as tokens, in windows."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from nao_ray.errors import DataError
from nao_ray.metric import PERPLEXITY, Metric
from nao_ray.tasks.base import Facts, Shapes, Task, TaskConfig
from nao_ray.tasks.texts.base import Tokens, TokenShapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from nao_ray.training.objective import Objective, Scores
    from nao_ray.training.recipe import Recipe

Split = Literal["train", "valid", "test"]


class TextTaskConfig(TaskConfig):
    """What every text task can be told."""

    window: int = Field(default=35, ge=1)
    """Tokens that a network reads at once, and that gradients go back; a recipe's `segments` vary it in training."""
    perplexity: Literal["tokens", "rows"] = "tokens"
    """What the losses are divided by: the predicted tokens or, as in the published codes, all rows of a column, of
    which the first is not predicted: that is a little less."""


C = TypeVar("C", bound=TextTaskConfig)


class TextTask(Task[C]):
    """A task writes `vocabulary` and `_read`."""

    metric: ClassVar[Metric] = PERPLEXITY
    network: ClassVar[str] = "text"
    """Name of the published networks for it."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of tokens, which are 0..vocabulary-1."""

    @abstractmethod
    def _read(self, split: Split) -> Tokens:
        """``[n]``, n >= 2."""

    @property
    def shapes(self) -> Shapes:
        return TokenShapes(self.vocabulary, self.network)

    @property
    def _where(self) -> str:
        """Begins every message; a task that reads files adds their place."""
        return f"task {self.name}"

    def load(self) -> tuple[Tokens, Tokens]:
        """Training and validation text."""
        train, valid = self._checked("train"), self._checked("valid")
        if (train == train[0]).all():
            raise DataError(f"{self._where}: all {len(train):,} training tokens are one; there is nothing to predict")
        return train, valid

    def load_test(self) -> Tokens:
        """The test text."""
        return self._checked("test")

    def _checked(self, split: Split) -> Tokens:
        tokens = self._read(split)
        if len(tokens) < 2 or tokens.min() < 0 or tokens.max() >= self.vocabulary:
            raise DataError(
                f"{self._where}, {split} text: expected at least 2 tokens in 0..{self.vocabulary - 1}, got "
                f"{len(tokens)} in {tokens.min(initial=0)}..{tokens.max(initial=0)}"
            )
        return tokens

    def objective(self, device: torch.device, recipe: Recipe, *, all_data: bool = False) -> Objective:
        from nao_ray.training.recipe import TextRecipe, expect
        from nao_ray.training.tokens import TokenObjective

        told = expect(TextRecipe, recipe, f"task {self.name}")
        train, valid = self.load()
        if all_data:
            train, valid = np.concatenate((train, valid)), valid[:0]
        return TokenObjective.of(train, valid, self.config.window, device, told, by_rows=self._by_rows)

    @property
    def _by_rows(self) -> bool:
        return self.config.perplexity == "rows"

    def test_scores(
        self,
        network: nn.Module,
        constants: Mapping[str, Tensor],
        device: torch.device,
        recipe: Recipe,
    ) -> Scores:
        from nao_ray.training.devices import move
        from nao_ray.training.tokens import TEST_COLUMNS, read

        network, text = network.to(device).eval(), move(self.load_test(), device)
        return read(network, text, self.config.window, recipe, TEST_COLUMNS, by_rows=self._by_rows)

    def too_few(self, examples: int, recipe: Recipe, where: str, do: str = "train", workers: int = 1) -> str:
        columns, window = recipe.batch, self.config.window
        if examples // columns > window:
            return ""
        whose = f", of {workers} workers together" if workers > 1 else ""
        return (
            f"{self._where}: {examples:,} tokens {do}, which make no step of {columns} columns ({where}.batch{whose}) "
            f"and a window of {window}: it takes {columns * (window + 1):,}; give a smaller batch, or more text"
        )

    @property
    def full_training(self) -> str:
        return "short_text"

    def data_hash(self) -> str:
        return self._facts.digest

    def facts(self) -> Facts:
        return self._facts

    @cached_property
    def _facts(self) -> Facts:
        train, valid = self.load()
        sha = hashlib.sha256()
        for tokens in (train, valid):
            sha.update(str(len(tokens)).encode())
            sha.update(np.ascontiguousarray(tokens, dtype="<i8").data)
        summary = f"{self._where}: {len(train):,} tokens train, {len(valid):,} validate, of {self.vocabulary}"
        return Facts(sha.hexdigest(), summary, examples=len(train), validating=len(valid))
