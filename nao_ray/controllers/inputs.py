"""What is known of a genotype without training, as one vector, and the views of it that a process chooses among.

Descriptors of the arch graph say what a network is, whatever its text; twins have equal ones. Tokens say what was
written, position by position, also what the descriptors leave out: a place in the cell, or an edge that carries
nothing, which a latency may depend on. Subtrees compare graphs whatever the order of their nodes. Which of them
explains the scores nobody knows before there are some.

Legend: `N` genotypes, `L` tokens per genotype, `D` columns: descriptors, tokens, subtrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nao_ray.controllers.descriptors import Descriptors
from nao_ray.controllers.kernels import View, median_distance
from nao_ray.controllers.subtrees import Subtree, subtrees
from nao_ray.spaces.base import Genotype, SearchSpace

ViewName = Literal["graph", "counts", "tokens", "graph+tokens", "subtrees", "embedding"]
"""All descriptors; those that are not of a single edge; tokens; all descriptors and tokens; subtrees; what the
pretrained encoder makes of the tokens."""
VIEWS: tuple[ViewName, ...] = ("graph", "counts", "tokens", "graph+tokens")

_DISTANCES = 500
"""Genotypes between which the median distance is taken."""
_LEVELS = 1
"""Of a subtree, below its root."""
_COMMON = 0.01
"""Share of the sample that a subtree occurs in, to have a column."""
_KEPT = 4096
"""Genotypes whose subtrees are kept."""


class Inputs:
    """Genotypes as vectors: a sample of the space fixes the columns and their units."""

    def __init__(self, space: SearchSpace[Any], sample: Sequence[Genotype], views: Sequence[ViewName] = VIEWS) -> None:
        self.space = space
        self.descriptors = Descriptors(space, sample)
        self._legal = torch.from_numpy(space.token_mask)
        self._subtrees: tuple[Subtree, ...] = _common(space, sample) if "subtrees" in views else ()
        self._column = {subtree: column for column, subtree in enumerate(self._subtrees)}
        self._counted = lru_cache(maxsize=_KEPT)(self._count)
        parts = self._parts(sample[:_DISTANCES])
        self._units = [median_distance(part) for part in parts]
        ends = np.cumsum([part.shape[1] for part in parts]).tolist()
        graph, tokens = torch.arange(ends[0]), torch.arange(ends[0], ends[1])
        columns = {
            "graph": graph,
            "counts": torch.tensor([at for at, (_, what, *_) in enumerate(self.descriptors.keys) if what != "edge"]),
            "tokens": tokens,
            "graph+tokens": torch.cat([graph, tokens]),
            "subtrees": torch.arange(ends[1], ends[2]),
        }
        rows = self(sample[:_DISTANCES])
        self.views = {name: _view(name, columns[name], rows) for name in views if name in columns}
        """By name; without that of the embedding, which is not of these columns."""

    def __len__(self) -> int:
        return len(self.descriptors) + int(self._legal.sum()) + len(self._subtrees)

    def __call__(self, genotypes: Sequence[Genotype]) -> Tensor:
        """``[N, D]``: each of the three parts in units of its own median distance."""
        return torch.cat([part / unit for part, unit in zip(self._parts(genotypes), self._units, strict=True)], dim=1)

    def _parts(self, genotypes: Sequence[Genotype]) -> tuple[Tensor, Tensor, Tensor]:
        described = torch.from_numpy(self.descriptors(genotypes)).double()
        written = np.zeros((len(genotypes), self.space.length), dtype=np.int64)
        counted = np.zeros((len(genotypes), len(self._subtrees)))
        for row, genotype in enumerate(genotypes):
            written[row] = self.space.encode(self.space.canonical(genotype))
            if self._subtrees:
                counted[row] = self._counted(genotype)
        positions = torch.nn.functional.one_hot(torch.from_numpy(written), self._legal.shape[1])
        return described, positions[:, self._legal].double(), torch.from_numpy(counted)

    def _count(self, genotype: Genotype) -> NDArray[np.float64]:
        row = np.zeros(len(self._subtrees))
        for subtree, count in subtrees(self.space.lower(self.space.canonical(genotype)), _LEVELS).items():
            if (column := self._column.get(subtree)) is not None:
                row[column] = count
        return row


def _common(space: SearchSpace[Any], sample: Sequence[Genotype]) -> tuple[Subtree, ...]:
    """Those that occur in a hundredth of the sample."""
    seen: Counter[Subtree] = Counter()
    for genotype in sample:
        seen.update(subtrees(space.lower(space.canonical(genotype)), _LEVELS).keys())
    return tuple(sorted(subtree for subtree, count in seen.items() if count >= _COMMON * len(sample)))


def _view(name: str, columns: Tensor, rows: Tensor) -> View:
    unit = median_distance(rows[:, columns])
    return View(name, columns, torch.full((len(columns),), 1 / unit, dtype=torch.float64))
