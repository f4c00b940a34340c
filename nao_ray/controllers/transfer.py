"""What earlier results say of new ones: ranks carried over, weighed by cross-validation on the new ones.

An earlier pool of the same space has other scores: of another task, seed or fidelity. What carries over is their order.
A process on the same features (`gp.py`) is fitted to the normal scores of the earlier ranks; its mean, brought to the
scale of the new targets by matching quantiles over the new architectures, is the prior mean of the new process with a
weight w, its own doubt is part of the prior covariance, and what is left has the variance 1 - w^2: as between two tasks
of correlation w (Bonilla, Chai, Williams, "Multi-task Gaussian Process Prediction", NeurIPS 2007, section 2.2).

Source and weight are those under which each new target is likeliest when predicted without itself (Rasmussen, Williams,
2006, eq. 5.10 and section 5.4.2); none at all, the plain process, is one of the choices. So a misleading pool is left
alone as soon as the new results say so, and one that helped is once they know better.

Legend: `N` observations, `M` points, `D` features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nao_ray.controllers.gp import Floats, GaussianProcess, normal_scores
from nao_ray.controllers.kernels import View

WEIGHTS = (0.5, 0.7, 0.85, 0.95)
"""Candidate correlations of an earlier pool with the new results."""


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier pool, learnt."""

    name: str
    process: Process
    trust: float = 0.0
    """Log odds that speak for it before any new result does."""

    @classmethod
    def of(cls, name: str, features: Tensor, scores: Floats, views: Sequence[View]) -> Self:
        """From ``[N, D]`` features and ``[N]`` scores, of which more is better; `views` as of a `GaussianProcess`."""
        return cls(name, GaussianProcess(features, torch.from_numpy(normal_scores(scores)), views))

    def __call__(self, features: Tensor) -> Tensor:
        """``[M, D]`` -> ``[M]``: normal scores among the earlier results; differentiable."""
        return self.process.posterior(features)[0]


class TransferredProcess:
    """A Gaussian process whose prior mean is an earlier pool's; used as a `GaussianProcess`."""

    def __init__(self, cold: GaussianProcess, views: Sequence[View], source: Source, weight: float) -> None:
        """On the features and targets of the `cold` one, which has none."""
        features, targets = cold.features, cold.targets
        self._source, self._weight = source, weight
        self._scale = math.sqrt(1 - weight**2)
        with torch.no_grad():
            earlier = source(features)
        self._quantiles = Quantiles(earlier, targets)
        self._prior = weight * self._quantiles(earlier)
        doubt = (weight * self._quantiles.slope / self._scale) ** 2
        self._rest = GaussianProcess(
            features,
            (targets - self._prior) / self._scale,
            views,
            _Doubt(source.process, doubt),
            cold.doubt / self._scale**2 if cold.doubt.any() else None,
        )
        self.noise = self._rest.noise * self._scale**2
        """As of a `GaussianProcess`."""

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and standard deviation ``[M]`` at ``[M, D]``; differentiable."""
        mean, spread = self._rest.posterior(features)
        return self._mean(features) + self._scale * mean, self._scale * spread

    def joint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[M]`` and covariance ``[M, M]`` at ``[M, D]``."""
        mean, covariance = self._rest.joint(features)
        return self._mean(features) + self._scale * mean, self._scale**2 * covariance

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """``[M, K]``: of the noise-free function at ``[M, D]`` with it at ``[K, D]``; differentiable."""
        return self._scale**2 * self._rest.covariance(a, b)

    def variance(self, features: Tensor) -> Tensor:
        """``[M]``: of the noise-free function at ``[M, D]``, the diagonal of `covariance`; differentiable."""
        return self._scale**2 * self._rest.variance(features)

    def row(self) -> Mapping[str, float | str]:
        """Columns of a fit's diagnostics; view and length of what the earlier pool leaves to explain."""
        return {**self._rest.row(), "noise": self.noise}

    def expected(self) -> Tensor:
        """``[N]``: posterior mean of the noise-free function at the observations."""
        return self._prior + self._scale * self._rest.expected()

    def left_out(self) -> Tensor:
        """``[N]``: what each observation would be predicted as without it."""
        return self._prior + self._scale * self._rest.left_out()

    def left_out_density(self) -> Tensor:
        """``[N]``: log density of each observation as predicted without it."""
        return self._rest.left_out_density() - math.log(self._scale)

    def _mean(self, features: Tensor) -> Tensor:
        return self._weight * self._quantiles(self._source(features))


@dataclass(frozen=True, slots=True)
class _Doubt:
    """The covariance of an earlier pool's process, in units of what is left to explain."""

    process: Process
    scale: Tensor
    """Of the variance; no dimension."""

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        return self.scale * self.process.covariance(a, b)

    def variance(self, features: Tensor) -> Tensor:
        return self.scale * self.process.variance(features)


class Quantiles:
    """The monotone map that gives ``[N]`` values the distribution of ``[N]`` targets; beyond them its mean slope."""

    def __init__(self, values: Tensor, targets: Tensor) -> None:
        self._from, inverse = torch.unique(values.double(), return_inverse=True)
        ranked = torch.empty_like(values, dtype=torch.float64)
        ranked[values.argsort(stable=True)] = targets.double().sort().values
        sums = torch.zeros_like(self._from).index_add(0, inverse, ranked)
        self._to = sums / torch.bincount(inverse)
        width = self._from[-1] - self._from[0]
        self.slope = (self._to[-1] - self._to[0]) / width if width > 1e-9 else torch.zeros(())

    def __call__(self, values: Tensor) -> Tensor:
        values = values.double()
        inside = values.clamp(self._from[0], self._from[-1])
        beyond = self.slope * (values - inside)
        if len(self._from) < 2:
            return self._to[0] + beyond
        right = torch.searchsorted(self._from, inside.detach()).clamp(1, len(self._from) - 1)
        low, high = self._from[right - 1], self._from[right]
        share = (inside - low) / (high - low)
        mapped: Tensor = self._to[right - 1] + share * (self._to[right] - self._to[right - 1]) + beyond
        return mapped


Process = GaussianProcess | TransferredProcess


@dataclass(frozen=True, slots=True)
class Transfer:
    """What cross-validation on the new results says of the earlier ones."""

    source: str
    """The pool under which they are likeliest, whether it is used or not."""
    weight: float
    """Of its best; 0: it does not help, and nothing of it is used."""
    density: float
    """Mean log density of a new target predicted without itself, with it."""
    density_without: float
    """Likewise without any earlier pool."""

    def row(self) -> Mapping[str, float | str]:
        """Columns of a fit's diagnostics."""
        return {
            "warm_start": "on" if self.weight else "off",
            "warm_start_source": self.source,
            "warm_start_weight": self.weight,
            "left_out_density_warm": self.density,
            "left_out_density_cold": self.density_without,
        }


def transferred(cold: GaussianProcess, views: Sequence[View], sources: Sequence[Source]) -> tuple[Process, Transfer]:
    """The process that predicts what it left out best: `cold`, or one with an earlier pool and a weight.

    Args:
        cold: fitted to the results.
        views: that it was fitted with.
        sources: one at least.
    """
    tried = [(source, w, TransferredProcess(cold, views, source, w)) for source in sources for w in WEIGHTS]
    densities = [float(process.left_out_density().mean()) for _, _, process in tried]
    trusts = [source.trust / len(cold.targets) for source in sources for _ in WEIGHTS]
    best = max(range(len(tried)), key=lambda row: densities[row] + trusts[row])
    source, weight, warm = tried[best]
    without = float(cold.left_out_density().mean())
    helps = densities[best] + trusts[best] > without
    return (warm if helps else cold), Transfer(source.name, weight if helps else 0.0, densities[best], without)
