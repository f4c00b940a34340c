"""Which view, length scale and noise a Gaussian process has: by what it says of observations that it was not given.

Within a view, length scale and noise are averaged over a small grid by their marginal likelihood. The views are
averaged by how likely they make each observation when it alone is left out: the weights of pseudo Bayesian model
averaging (Geisser, Eddy, "A Predictive Approach to Model Selection", JASA 1979; Yao, Vehtari, Simpson, Gelman, "Using
Stacking to Average Bayesian Predictive Distributions", Bayesian Analysis 2018, section 3.4), in closed form for a
process (Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, section 5.4.2). So what does
not explain the scores at hand has no say, and nothing is settled by the first few of them.

Legend: `N` observations, `S` settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nao_ray.controllers.kernels import View, squared_distances, squared_exponential

LENGTHS = (0.5, 0.75, 1.0, 1.5)
"""Candidate length scales, in units of the median distance between random points of the space."""
NOISES = (0.003, 0.03, 0.1, 0.3)
"""Candidate noise variances, in units of the signal's. With 1.0 among them the best of CIFAR-10 is found later: what is
not understood yet passes for noise."""

HEAD_START = 3.0
"""What another view than the first has to explain the observations better by, in all, to count as much: log odds that
speak for the graph before any score does, and that a dozen scores overcome where it is wrong."""

_NEGLIGIBLE = 0.1
"""Of the likeliest setting's probability, below which one is left out."""
_JUDGED_BY = 128
"""Observations, evenly over their order, that all settings are judged by; of more, a few settings by all."""
_FEW = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What a process may be."""

    view: View
    length: float
    noise: float


@dataclass(frozen=True, slots=True)
class Member:
    """The process of one setting."""

    probability: float
    setting: Setting
    factor: Tensor
    """Cholesky factor ``[N, N]`` of the kernel with noise."""
    weights: Tensor
    """``[N]``: its inverse times the targets."""
    precision: Tensor
    """``[N]``: the diagonal of its inverse."""

    def left_out_density(self) -> Tensor:
        """``[N]``: log density of each observation as predicted without it (Rasmussen, Williams, eq. 5.10)."""
        exponent = self.weights.square() / self.precision
        return (self.precision.log() - exponent - math.log(2 * math.pi)) / 2


def likeliest(features: Tensor, targets: Tensor, views: Sequence[View], added: Tensor) -> list[Member]:
    """The settings that have a say.

    Args:
        features: ``[N, D]``.
        targets: ``[N]``.
        views: one at least; the first has a head start.
        added: covariance ``[N, N]`` besides the kernel, or 0.
    """
    settings = [Setting(view, length, noise) for view in views for length in LENGTHS for noise in NOISES]
    if len(targets) > _JUDGED_BY:
        rows = (
            targets.argsort(stable=True)[torch.linspace(0, len(targets) - 1, _JUDGED_BY).round().long()].sort().values
        )
        some = added[rows][:, rows] if added.ndim else added
        judged = _weighed(_members(settings, features[rows], targets[rows], some), views[0])
        best = sorted(range(len(judged)), key=lambda row: -judged[row].probability)[:_FEW]
        settings = [settings[row] for row in sorted(best)]
    members = _weighed(_members(settings, features, targets, added), views[0])
    least = _NEGLIGIBLE * max(member.probability for member in members)
    kept = [member for member in members if member.probability >= least]
    total = sum(member.probability for member in kept)
    return [replace(member, probability=member.probability / total) for member in kept]


def _members(settings: Sequence[Setting], features: Tensor, targets: Tensor, added: Tensor) -> list[Member]:
    """With the marginal likelihood as the probability, all multiplied by one constant within a view."""
    views = {setting.view.name: setting.view for setting in settings}
    distances = {name: squared_distances(view(features), view(features)) for name, view in views.items()}
    identity = torch.eye(len(targets), dtype=torch.float64)
    kernels = [squared_exponential(distances[s.view.name], s.length) + added + s.noise * identity for s in settings]
    factors = torch.linalg.cholesky(torch.stack(kernels))
    inverses = torch.cholesky_inverse(factors)
    weights, precisions = inverses @ targets, inverses.diagonal(dim1=1, dim2=2)
    evidence = -0.5 * weights @ targets - factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)  # eq. 2.30
    names = [setting.view.name for setting in settings]
    highest = {name: max(float(e) for e, of in zip(evidence, names, strict=True) if of == name) for name in names}
    return [
        Member(math.exp(float(e) - highest[setting.view.name]), setting, *rest)
        for e, setting, *rest in zip(evidence, settings, factors, weights, precisions, strict=True)
    ]


def _weighed(members: Sequence[Member], first: View) -> list[Member]:
    """Their probabilities, which sum to 1: of the view by what it leaves out, times of the setting within the view."""
    names = list(dict.fromkeys(member.setting.view.name for member in members))
    within = {name: [member for member in members if member.setting.view.name == name] for name in names}
    totals = {name: sum(member.probability for member in of) for name, of in within.items()}
    densities = [
        torch.logsumexp(
            torch.stack([member.left_out_density() + _log(member.probability / totals[name]) for member in of]), dim=0
        ).sum()
        + (HEAD_START if name == first.name else 0.0)
        for name, of in within.items()
    ]
    weights = dict(zip(names, torch.softmax(torch.stack(densities), dim=0).tolist(), strict=True))
    return [
        replace(member, probability=weights[name] * member.probability / totals[name])
        for member in members
        for name in [member.setting.view.name]
    ]


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
