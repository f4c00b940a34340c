"""Gaussian process regression: a predictor that ranks from a dozen observations, and knows what it does not know.

Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: algorithm 2.1, eq. 2.30 (marginal
likelihood), squared exponential kernel; section 5.2 (hyperparameters averaged over).

Legend: `N` observations, `M` points, `D` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


_NEGLIGIBLE = 0.02  # posterior probability of a pair of length and noise from which on it is left out


@dataclass(frozen=True, slots=True)
class _Member:
    """The process with one length scale and one noise."""

    probability: float
    length: float
    noise: float
    factor: Tensor
    """Cholesky factor ``[N, N]`` of the kernel with noise."""
    weights: Tensor
    """``[N]``: its inverse times the targets."""


class GaussianProcess:
    """Posterior over a function of ``[D]`` features, given ``[N, D]`` features and ``[N]`` standardised targets.

    Length scale and noise are averaged over a small grid by their marginal likelihood, so nothing is tuned by hand, nor
    settled by the first few observations (section 5.2); `unit` is the length one grid step is measured in.
    """

    def __init__(self, features: Tensor, targets: Tensor, unit: float) -> None:
        self.features = features.double()
        self.targets = targets.double()
        distances = _squared_distances(self.features, self.features)
        identity = torch.eye(len(distances), dtype=torch.float64)
        grid: list[tuple[float, float, Tensor, Tensor]] = []
        likelihoods: list[float] = []
        for length in LENGTHS:
            kernel = _kernel(distances, length * unit)
            for noise in NOISES:
                factor = torch.linalg.cholesky(kernel + noise * identity)
                weights = torch.cholesky_solve(self.targets[:, None], factor)[:, 0]
                likelihoods.append(float(-0.5 * self.targets @ weights - factor.diagonal().log().sum()))
                grid.append((length * unit, noise, factor, weights))
        posterior = torch.softmax(torch.tensor(likelihoods, dtype=torch.float64), dim=0)
        posterior = torch.where(posterior < _NEGLIGIBLE, 0.0, posterior)
        probabilities: list[float] = (posterior / posterior.sum()).tolist()
        self._members = [_Member(p, *rest) for p, rest in zip(probabilities, grid, strict=True) if p > 0]
        self.noise = sum(member.probability * member.noise for member in self._members)
        """Expected noise variance, in units of the signal's."""

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and standard deviation ``[M]`` of the noise-free function at ``[M, D]``; differentiable."""
        distances = _squared_distances(features.double(), self.features)
        means, variances = [], []
        for member in self._members:
            mean, explained = self._condition(member, distances)
            means.append(mean)
            variances.append(1 - explained.square().sum(dim=0))
        middle = self._average(means)
        variance = self._average([v + (m - middle).square() for m, v in zip(means, variances, strict=True)])
        return middle, variance.clamp_min(1e-9).sqrt()

    def joint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and covariance ``[M, M]`` of the noise-free function at ``[M, D]``."""
        features = features.double()
        to_known, among = _squared_distances(features, self.features), _squared_distances(features, features)
        means, covariances = [], []
        for member in self._members:
            mean, explained = self._condition(member, to_known)
            means.append(mean)
            covariances.append(_kernel(among, member.length) - explained.T @ explained)
        middle = self._average(means)
        apart = [torch.outer(mean - middle, mean - middle) for mean in means]
        return middle, self._average([c + a for c, a in zip(covariances, apart, strict=True)])

    def left_out(self) -> Tensor:
        """``[N]``: what each observation would be predicted as without it (Rasmussen, Williams, eq. 5.12)."""
        return self._average(
            [self.targets - m.weights / torch.cholesky_inverse(m.factor).diagonal() for m in self._members]
        )

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([m.probability * value for m, value in zip(self._members, values, strict=True)]).sum(dim=0)

    def _condition(self, member: _Member, squared_distances: Tensor) -> tuple[Tensor, Tensor]:
        cross = _kernel(squared_distances, member.length)
        return cross @ member.weights, torch.linalg.solve_triangular(member.factor, cross.T, upper=False)


def _kernel(squared_distances: Tensor, length: float) -> Tensor:
    return torch.exp(-squared_distances / (2 * length**2))


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
