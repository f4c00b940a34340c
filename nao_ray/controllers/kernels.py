"""What a process may look at: some columns of the features, each view with a squared exponential kernel of its own.

Legend: `N` `M` points, `D` features, `d` of them that a view looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """Some columns of the features, each with a weight."""

    name: str
    columns: Tensor
    """``[d]``, of D."""
    weights: Tensor
    """``[d]``: the median distance between random points of the space is about 1 in what is weighted by them."""

    def __call__(self, features: Tensor) -> Tensor:
        """``[N, D]`` -> ``[N, d]``; differentiable."""
        return features[:, self.columns] * self.weights

    @classmethod
    def whole(cls, width: int, unit: float) -> View:
        """All of so many features, whose median distance is `unit`."""
        return cls("all", torch.arange(width), torch.full((width,), 1 / unit, dtype=torch.float64))


def squared_exponential(squared_distances: Tensor, length: float) -> Tensor:
    """The kernel, of variance 1."""
    return torch.exp(-squared_distances / (2 * length**2))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``[N, d]``, ``[M, d]`` -> ``[N, M]``, at least 0."""
    squared: Tensor = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return squared.clamp_min(0)


def median_distance(features: Tensor) -> float:
    """Median distance between the rows of ``[N, D]``; 1 where they are all equal."""
    squared = squared_distances(features.double(), features.double())
    rows, columns = torch.triu_indices(len(features), len(features), offset=1)
    median = float(squared[rows, columns].sqrt().median()) if len(rows) else 0.0
    return median if median > 0 else 1.0
