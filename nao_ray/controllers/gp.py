"""Gaussian process regression: a predictor that ranks from a dozen observations, and knows what it does not know.

Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: algorithm 2.1, squared exponential
kernel; section 5.2 (hyperparameters averaged over).

Legend: `N` observations, `M` points, `D` features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nao_ray.controllers.criticism import Member, likeliest
from nao_ray.controllers.kernels import View, squared_distances, squared_exponential

Floats = NDArray[np.float64]
_Conditioned = tuple[list[Tensor], list[Tensor]]
"""Of each member the mean ``[M]`` at ``[M, D]``, and what the observations explain ``[N, M]``."""


class Covariance(Protocol):
    """Of a function of ``[D]`` features; a process is one."""

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """``[M, K]``: of the function at ``[M, D]`` with it at ``[K, D]``."""

    def variance(self, features: Tensor) -> Tensor:
        """``[M]``: of the function at ``[M, D]``, in memory and time that grow as M, not as its square."""


class GaussianProcess:
    """Posterior over a function of ``[D]`` features, given ``[N, D]`` features and ``[N]`` standardised targets.

    What it looks at, length scale and noise are averaged over (`criticism.py`). `views` are those of the features
    to choose among. `beside` is what the function's covariance has besides the kernel, in units of the signal's
    variance, and `doubt` ``[N]`` the variance of single targets besides the noise, in the same.
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        views: Sequence[View],
        beside: Covariance | None = None,
        doubt: Tensor | None = None,
    ) -> None:
        self.features = features.double()
        self._beside = beside
        self.targets = targets.double()
        self.doubt = torch.zeros(len(targets), dtype=torch.float64) if doubt is None else doubt.double()
        """``[N]``."""
        added = self._added(self.features, self.features)
        added = added if doubt is None else added + self.doubt.diag()
        self._members = likeliest(self.features, self.targets, views, added)
        self.noise = sum(member.probability * member.setting.noise for member in self._members)
        """Expected noise variance, in units of the signal's."""

    @property
    def views(self) -> dict[str, float]:
        """Probability of each view that has one, the likeliest first."""
        names = dict.fromkeys(member.setting.view.name for member in self._members)
        found = {name: sum(m.probability for m in self._members if m.setting.view.name == name) for name in names}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def row(self) -> Mapping[str, float | str]:
        """Columns of a fit's diagnostics."""
        name, probability = next(iter(self.views.items()))
        length = sum(member.probability * member.setting.length for member in self._members)
        return {"view": name, "view_probability": probability, "length": length, "noise": self.noise}

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and standard deviation ``[M]`` of the noise-free function at ``[M, D]``; differentiable."""
        mean, variance = self._moments(features)
        return mean, variance.clamp_min(1e-9).sqrt()

    def variance(self, features: Tensor) -> Tensor:
        """``[M]``: of the noise-free function at ``[M, D]``, the diagonal of `covariance`; differentiable."""
        return self._moments(features)[1]

    def joint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and covariance ``[M, M]`` of the noise-free function at ``[M, D]``."""
        features = features.double()
        conditioned = self._at(features)
        return self._average(conditioned[0]), self._covariance(features, features, conditioned, conditioned)

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """``[M, K]``: of the noise-free function at ``[M, D]`` with it at ``[K, D]``; differentiable."""
        at_a = self._at(a)
        return self._covariance(a, b, at_a, at_a if b is a else self._at(b))

    def _moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and variance ``[M]``."""
        features = features.double()
        distances, added = self._distances(features, self.features), self._added(features, self.features)
        alone = 1.0 if self._beside is None else 1 + self._beside.variance(features)
        means, variances = [], []
        for member in self._members:
            mean, explained = self._condition(member, distances, added)
            means.append(mean)
            variances.append(alone - explained.square().sum(dim=0))
        middle = self._average(means)
        return middle, self._average([v + (m - middle).square() for m, v in zip(means, variances, strict=True)])

    def _covariance(self, a: Tensor, b: Tensor, at_a: _Conditioned, at_b: _Conditioned) -> Tensor:
        (means_a, explained_a), (means_b, explained_b) = at_a, at_b
        among, added = self._distances(a, b), self._added(a, b)
        middle_a, middle_b = self._average(means_a), self._average(means_b)
        within = [
            squared_exponential(among[member.setting.view.name], member.setting.length) + added - left.T @ right
            for member, left, right in zip(self._members, explained_a, explained_b, strict=True)
        ]
        apart = [torch.outer(x - middle_a, y - middle_b) for x, y in zip(means_a, means_b, strict=True)]
        return self._average([c + d for c, d in zip(within, apart, strict=True)])

    def _at(self, features: Tensor) -> _Conditioned:
        distances, added = self._distances(features, self.features), self._added(features, self.features)
        conditioned = [self._condition(member, distances, added) for member in self._members]
        return [mean for mean, _ in conditioned], [explained for _, explained in conditioned]

    def _added(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros((), dtype=torch.float64) if self._beside is None else self._beside.covariance(a, b)

    def expected(self) -> Tensor:
        """``[N]``: posterior mean of the noise-free function at the observations (Rasmussen, Williams, eq. 2.25)."""
        return self._average([self.targets - (m.setting.noise + self.doubt) * m.weights for m in self._members])

    def left_out(self) -> Tensor:
        """``[N]``: what each observation would be predicted as without it (Rasmussen, Williams, eq. 5.12)."""
        return self._average([self.targets - m.weights / m.precision for m in self._members])

    def left_out_density(self) -> Tensor:
        """``[N]``: log density of each observation as predicted without it (Rasmussen, Williams, eq. 5.10)."""
        densities = [math.log(member.probability) + member.left_out_density() for member in self._members]
        return torch.logsumexp(torch.stack(densities), dim=0)

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([m.probability * value for m, value in zip(self._members, values, strict=True)]).sum(dim=0)

    def _distances(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """``[M, K]`` squared, by view."""
        views = {member.setting.view.name: member.setting.view for member in self._members}
        return {name: squared_distances(view(a), view(b)) for name, view in views.items()}

    def _condition(self, member: Member, distances: Mapping[str, Tensor], added: Tensor) -> tuple[Tensor, Tensor]:
        cross = squared_exponential(distances[member.setting.view.name], member.setting.length) + added
        return cross @ member.weights, torch.linalg.solve_triangular(member.factor, cross.T, upper=False)


def normal_scores(scores: Floats) -> Floats:
    """``[N]`` scores to standard normal quantiles of their ranks (Blom); equal scores get equal ones.

    Outliers, such as networks that did not learn, lose their pull, and the scale of the metric falls away.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    quantile = NormalDist().inv_cdf
    return np.array([quantile((rank - 0.375) / (len(scores) + 0.25)) for rank in ranks])
