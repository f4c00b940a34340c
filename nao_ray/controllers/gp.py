"""Gaussian process regression: a predictor that ranks from a dozen observations, and knows what it does not know.

Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: algorithm 2.1, eq. 2.30 (marginal
likelihood), squared exponential kernel; section 5.2 (hyperparameters averaged over).

Legend: `N` observations, `M` points, `D` features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Covariance = Callable[[Tensor, Tensor], Tensor]
"""``[M, D]``, ``[K, D]`` -> ``[M, K]``."""

LENGTHS = (0.5, 0.75, 1.0, 1.5)
"""Candidate length scales, in units of the median distance between random points of the space."""
NOISES = (0.003, 0.03, 0.1, 0.3)
"""Candidate noise variances, in units of the signal's."""


_Conditioned = tuple[list[Tensor], list[Tensor]]
"""Of each member the mean ``[M]`` at ``[M, D]``, and what the observations explain ``[N, M]``."""
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
    settled by the first few observations (section 5.2); `unit` is the length one grid step is measured in. `beside` is
    what the function's covariance has besides the kernel, in units of the signal's variance.
    """

    def __init__(self, features: Tensor, targets: Tensor, unit: float, beside: Covariance | None = None) -> None:
        self.features = features.double()
        self._beside = beside
        self.targets = targets.double()
        distances = _squared_distances(self.features, self.features)
        added = self._added(self.features, self.features)
        identity = torch.eye(len(distances), dtype=torch.float64)
        grid: list[tuple[float, float, Tensor, Tensor]] = []
        likelihoods: list[float] = []
        for length in LENGTHS:
            kernel = _kernel(distances, length * unit) + added
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
        features = features.double()
        distances, added = _squared_distances(features, self.features), self._added(features, self.features)
        alone = 1 + self._added(features, features).diagonal() if self._beside is not None else 1.0
        means, variances = [], []
        for member in self._members:
            mean, explained = self._condition(member, distances, added)
            means.append(mean)
            variances.append(alone - explained.square().sum(dim=0))
        middle = self._average(means)
        variance = self._average([v + (m - middle).square() for m, v in zip(means, variances, strict=True)])
        return middle, variance.clamp_min(1e-9).sqrt()

    def joint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and covariance ``[M, M]`` of the noise-free function at ``[M, D]``."""
        features = features.double()
        conditioned = self._at(features)
        return self._average(conditioned[0]), self._covariance(features, features, conditioned, conditioned)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """``[M, K]``: of the noise-free function at ``[M, D]`` with it at ``[K, D]``; differentiable."""
        at_a = self._at(a)
        return self._covariance(a, b, at_a, at_a if b is a else self._at(b))

    def _covariance(self, a: Tensor, b: Tensor, at_a: _Conditioned, at_b: _Conditioned) -> Tensor:
        (means_a, explained_a), (means_b, explained_b) = at_a, at_b
        among, added = _squared_distances(a, b), self._added(a, b)
        middle_a, middle_b = self._average(means_a), self._average(means_b)
        within = [
            _kernel(among, member.length) + added - left.T @ right
            for member, left, right in zip(self._members, explained_a, explained_b, strict=True)
        ]
        apart = [torch.outer(x - middle_a, y - middle_b) for x, y in zip(means_a, means_b, strict=True)]
        return self._average([c + d for c, d in zip(within, apart, strict=True)])

    def _at(self, features: Tensor) -> _Conditioned:
        distances, added = _squared_distances(features, self.features), self._added(features, self.features)
        conditioned = [self._condition(member, distances, added) for member in self._members]
        return [mean for mean, _ in conditioned], [explained for _, explained in conditioned]

    def _added(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.float64) if self._beside is None else self._beside(a, b)

    def left_out(self) -> Tensor:
        """``[N]``: what each observation would be predicted as without it (Rasmussen, Williams, eq. 5.12)."""
        return self._average(
            [self.targets - m.weights / torch.cholesky_inverse(m.factor).diagonal() for m in self._members]
        )

    def left_out_density(self) -> Tensor:
        """``[N]``: log density of each observation as predicted without it (Rasmussen, Williams, eq. 5.10)."""
        densities = []
        for member in self._members:
            precision = torch.cholesky_inverse(member.factor).diagonal()
            exponent = member.weights.square() / precision
            densities.append(math.log(member.probability) + (precision.log() - exponent - math.log(2 * math.pi)) / 2)
        return torch.logsumexp(torch.stack(densities), dim=0)

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([m.probability * value for m, value in zip(self._members, values, strict=True)]).sum(dim=0)

    def _condition(self, member: _Member, squared_distances: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        cross = _kernel(squared_distances, member.length) + added
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
