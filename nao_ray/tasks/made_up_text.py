"""Tiny and deterministic: words whose last letter is their first one again, after a gap. For tests.

Whoever forgets the first letter over the gap has to guess the last one: only a network with a memory as long as a word
reads it well, and, in windows shorter than a word, only one that carries it from window to window.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from nao_ray import rng
from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.texts.base import Tokens
from nao_ray.tasks.texts.text_task import Split, TextTask, TextTaskConfig


class MadeUpTextConfig(TextTaskConfig):
    """How long, how hard."""

    window: int = Field(default=4, ge=1)
    letters: int = Field(default=8, ge=2, le=64)
    """That words begin with."""
    gap: int = Field(default=3, ge=1, le=64)
    """Blanks between the first letter and the last."""
    words: int = Field(default=400, ge=20)
    """Of the training text; the validation and the test text have a quarter each."""


class MadeUpText(TextTask[MadeUpTextConfig]):
    """Letters 0..letters-1 and the blank."""

    Config: ClassVar[type[TaskConfig]] = MadeUpTextConfig

    name: ClassVar[str] = "made_up_text"

    @property
    def vocabulary(self) -> int:
        return self.config.letters + 1

    @property
    def best_perplexity(self) -> float:
        """Of a reader who knows all: of each word one letter can only be guessed."""
        return math.exp(math.log(self.config.letters) / (self.config.gap + 2))

    def _read(self, split: Split) -> Tokens:
        words = self.config.words if split == "train" else self.config.words // 4
        first = rng.child(0, f"made-up text, {split}").integers(self.config.letters, size=words)
        text = np.full((words, self.config.gap + 2), self.config.letters)
        text[:, 0] = text[:, -1] = first
        return text.reshape(-1).astype(np.int64)
