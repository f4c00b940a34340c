"""The base of tasks whose text is words of people's: numbers of words follow from the training text."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field

from nao_ray.errors import DataError
from nao_ray.tasks.base import Facts, Shapes
from nao_ray.tasks.parts.identity import FileIdentity, facts_of
from nao_ray.tasks.parts.layouts import Role
from nao_ray.tasks.parts.legend import Legend
from nao_ray.tasks.texts.base import Tokens, TokenShapes
from nao_ray.tasks.texts.reading import END, Unit, units
from nao_ray.tasks.texts.text_task import Split, TextTask, TextTaskConfig
from nao_ray.tasks.texts.vocabulary import UNKNOWN, Vocabulary

_ROLES: dict[Split, Role] = {"train": "train", "valid": "validation", "test": "test"}
_CUTS: dict[Split, tuple[float, float]] = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
"""The part of a document, where there are no splits."""


class WordTaskConfig(TextTaskConfig):
    """What a word is."""

    words: Literal["train", "all"] = "train"
    """Whose words are the vocabulary: the training text's, or all three texts', as in the published codes, where no
    word of the test text is unknown."""
    min_count: int = Field(default=1, ge=1)
    """How often a word has to appear there; others are unknown."""
    most_words: int | None = Field(default=None, ge=3)
    """Words of the vocabulary at most, the commonest; None: all."""


C = TypeVar("C", bound=WordTaskConfig)


class WordLegend(Legend):
    """The vocabulary."""

    words: tuple[str, ...]
    """In the order of their numbers."""
    unit: Unit
    """What a word is."""


class WordTask(TextTask[C]):
    """A task writes `_documents`, `unit` and `usual_vocabulary`; where it reads files, `_files`."""

    usual_vocabulary: int
    """Words that there are, as far as one can tell without the text."""
    is_cut = False
    """Whether there are no splits, so that the end of each document validates and tests."""
    _told: WordLegend | None = None
    """Of the training text, which is then not asked."""

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """What a text is cut into."""

    @abstractmethod
    def _documents(self, role: Role) -> list[str]:
        """Texts of a split, whose lines end with a newline; where they are to be cut, whole."""

    def _files(self, roles: Collection[Role]) -> list[FileIdentity] | None:
        """The files that splits are read from; None: that cannot be told, or reading them costs nothing."""
        return None

    @property
    def outline(self) -> Shapes:
        return TokenShapes(self.usual_vocabulary, self.network)

    @property
    def legend(self) -> dict[str, Any]:
        return WordLegend(words=self._vocabulary.words, unit=self.unit).model_dump(mode="json")

    def by(self, legend: Mapping[str, Any]) -> Self:
        told = WordLegend.read(legend, self._where)
        if UNKNOWN not in told.words or len(set(told.words)) < len(told.words):
            raise DataError(f"{self._where}: the checkpoint's words are no vocabulary: each once, with {UNKNOWN}")
        if told.unit != self.unit:
            raise DataError(f"{self._where}: task.unit is {self.unit}, and the checkpoint was trained with {told.unit}")
        task = type(self)(self.config)
        task._told = told
        return task

    @property
    def vocabulary(self) -> int:
        return len(self._vocabulary)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        if self._told is not None:
            return Vocabulary(self._told.words)
        splits: tuple[Split, ...] = ("train", "valid", "test") if self.config.words == "all" else ("train",)
        found = Vocabulary.of(map(self._units, splits), self.config.min_count, self.config.most_words)
        own = len({*found.words} - {END, UNKNOWN})
        if own < 2:
            rare = f" that appear {self.config.min_count} times (task.min_count)" if self.config.min_count > 1 else ""
            raise DataError(f"{self._where}: the training text has {own} word{'s' * (own != 1)}{rare}, expected at "
                            "least 2 beside the end of a line")  # fmt: skip
        return found

    def _units(self, split: Split) -> list[str]:
        documents = [units(document, self.unit) for document in self._documents(_ROLES[split])]
        if self.is_cut:
            start, end = _CUTS[split]
            documents = [found[int(start * len(found)) : int(end * len(found))] for found in documents]
        return [word for document in documents for word in document]

    def _read(self, split: Split) -> Tokens:
        return self._encoded(split)[0]

    def _encoded(self, split: Split) -> tuple[Tokens, int]:
        """The tokens, and how many of them are words that the vocabulary does not have."""
        found = self._units(split)
        return self._vocabulary.encode(found), self._vocabulary.foreign(found)

    def odd_test(self) -> tuple[str, ...]:
        tokens, foreign = self._encoded("test")
        if len(tokens) < 2:
            raise DataError(f"{self._where}: the test text has {len(tokens)} tokens, expected at least 2")
        return (f"{foreign:,} of {len(tokens):,} test tokens are unknown words",) if foreign else ()

    def check_test(self) -> tuple[str, ...]:
        return self.odd_test()

    @cached_property
    def _facts(self) -> Facts:
        about = {"task": self.name, **self.config.model_dump(mode="json")}
        roles: Sequence[Role] = (
            ("train", "validation", "test") if self.config.words == "all" else ("train", "validation")
        )
        return facts_of(about, lambda: self._files(roles), self._read_facts)

    def _read_facts(self) -> Facts:
        train, valid = self.load()
        foreign = self._vocabulary.foreign(self._units("valid"))
        sha = hashlib.sha256("\n".join(self._vocabulary.words).encode())
        for tokens in (train, valid):
            sha.update(str(len(tokens)).encode())
            sha.update(np.ascontiguousarray(tokens, dtype="<i8").data)
        cut = ", the end of each document" if self.is_cut else ""
        summary = (
            f"{self._where}: {len(train):,} tokens train, {len(valid):,} validate{cut}; {self.vocabulary:,} "
            f"{'characters' if self.unit == 'character' else 'words'}"
        )
        odd = f"{foreign:,} of {len(valid):,} validation tokens are unknown words"
        return Facts(sha.hexdigest(), summary, (odd,) if foreign else (), len(train), len(valid))
