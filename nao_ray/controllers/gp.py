"""Gaussian process regression: a predictor that ranks from a dozen observations, and knows what it does not know.

Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: algorithm 2.1, eq. 2.30 (marginal
likelihood), squared exponential kernel.

Legend: `N` observations, `M` points, `D` features.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

LENGTHS = (0.5, 0.75, 1.0, 1.5)
"""Candidate length scales, in units of the median distance between random points of the space."""
NOISES = (0.003, 0.03, 0.1, 0.3)
"""Candidate noise variances, in units of the signal's."""


class GaussianProcess:
    """Posterior over a function of ``[D]`` features, given ``[N, D]`` features and ``[N]`` standardised targets.

    The length scale and the noise are those of the highest marginal likelihood over a small grid, so nothing is tuned
    by hand; `unit` is the length one grid step is measured in.
    """

    def __init__(self, features: Tensor, targets: Tensor, unit: float) -> None:
        self.features = features.double()
        self.targets = targets.double()
        distances = _squared_distances(self.features, self.features)
        best: tuple[float, float, float, Tensor, Tensor] | None = None
        for length in LENGTHS:
            kernel = torch.exp(-distances / (2 * (length * unit) ** 2))
            for noise in NOISES:
                factor = torch.linalg.cholesky(kernel + noise * torch.eye(len(kernel), dtype=torch.float64))
                weights = torch.cholesky_solve(self.targets[:, None], factor)
                likelihood = float(-0.5 * self.targets @ weights[:, 0] - factor.diagonal().log().sum())
                if best is None or likelihood > best[0]:
                    best = (likelihood, length * unit, noise, factor, weights)
        assert best is not None
        self.log_likelihood = best[0] - 0.5 * len(targets) * math.log(2 * math.pi)
        self.length = best[1]
        self.noise = best[2]
        self._factor, self._weights = best[3], best[4]

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and standard deviation ``[M]`` of the noise-free function at ``[M, D]``; differentiable."""
        mean, explained = self._condition(features)
        return mean, (1 - explained.square().sum(dim=0)).clamp_min(1e-9).sqrt()

    def joint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and covariance ``[M, M]`` of the noise-free function at ``[M, D]``."""
        mean, explained = self._condition(features)
        return mean, self._kernel(features.double(), features.double()) - explained.T @ explained

    def left_out(self) -> Tensor:
        """``[N]``: what each observation would be predicted as without it (Rasmussen, Williams, eq. 5.12)."""
        precision = torch.cholesky_inverse(self._factor).diagonal()
        return self.targets - self._weights[:, 0] / precision

    def _condition(self, features: Tensor) -> tuple[Tensor, Tensor]:
        cross = self._kernel(features.double(), self.features)
        return (cross @ self._weights)[:, 0], torch.linalg.solve_triangular(self._factor, cross.T, upper=False)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-_squared_distances(a, b) / (2 * self.length**2))


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    squared: Tensor = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
    return squared.clamp_min(0)


def median_distance(features: Tensor) -> float:
    """Median distance between the rows of ``[N, D]``; 1 where they are all equal."""
    squared = _squared_distances(features.double(), features.double())
    rows, columns = torch.triu_indices(len(features), len(features), offset=1)
    median = float(squared[rows, columns].sqrt().median()) if len(rows) else 0.0
    return median if median > 0 else 1.0


def normal_scores(scores: Floats) -> Floats:
    """``[N]`` scores to standard normal quantiles of their ranks (Blom); equal scores get equal ones.

    Outliers, such as networks that did not learn, lose their pull, and the scale of the metric falls away.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    quantile = NormalDist().inv_cdf
    return np.array([quantile((rank - 0.375) / (len(scores) + 0.25)) for rank in ranks])
