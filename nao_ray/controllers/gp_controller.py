"""A controller whose predictor is a Gaussian process: encoder and decoder pretrained, a posterior in closed form.

The process stands on the descriptors of the arch graph. For a genotype they are known; for a point of the embedding
space the readout gives them, so the gradient of an upper confidence bound leads from the point to a better one
(Srinivas, Krause, Kakade, Seeger, ICML 2010, arXiv 0912.3995), which is decoded as in NAO. What is asked but not yet
measured counts as measured at its predicted value (Desautels, Krause, Burdick, JMLR 2014), so parallel workers are
given different things.

Legend: `N` scored genotypes, `M` others, `L` tokens per genotype, `A` step sizes, `H` hidden, `R` decoded rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from nao_ray.controllers.base import Floats, Steps
from nao_ray.controllers.epd import additive_mask
from nao_ray.controllers.fit import FitReport
from nao_ray.controllers.gp import GaussianProcess, normal_scores
from nao_ray.controllers.inputs import VIEWS, ViewName
from nao_ray.controllers.kernels import View
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.pretraining import Pretrained
from nao_ray.controllers.targets import TargetScale
from nao_ray.controllers.transfer import Process, Source, Transfer, transferred
from nao_ray.settings import Settings
from nao_ray.spaces.base import SearchSpace, Tokens, by_commas

_VIEW_OF_BEFORE = {"descriptors": "graph"}


class GpConfig(Settings):
    """What the process stands on."""

    views: Annotated[tuple[ViewName, ...], BeforeValidator(by_commas)] = Field(default=VIEWS, min_length=1)
    """What a fit chooses among, by how well it predicts each result without it: descriptors of the arch graph, those
    that are not of single edges, tokens, descriptors with tokens; also the graph's `subtrees` and the pretrained
    `embedding`."""
    targets: Literal["ranks", "standard"] = "ranks"
    """Normal scores of the ranks, or scores of mean 0 and deviation 1."""
    most: int = Field(default=1000, ge=2)
    """Results a fit is made from: of more, the best half of so many, and the others evenly over the ranks. A fit's time
    grows with their cube."""
    most_pending: int = Field(default=1000, ge=1)
    """Asked and not yet measured ones that a choice takes in: of more, the nearest to what it is made from. Time and
    memory grow with their square."""

    @model_validator(mode="before")
    @classmethod
    def _features_of_before(cls, values: object) -> object:
        """Pools of before have `features`: the one thing that the process stood on."""
        if not isinstance(values, Mapping) or "features" not in values:
            return values
        rest = {name: value for name, value in values.items() if name != "features"}
        return {"views": _VIEW_OF_BEFORE.get(values["features"], values["features"]), **rest}


class GpController:
    """Posterior after ``[N, L]`` tokens and ``[N]`` scores, N >= 2; `bound` is the weight of the spread in a step.

    `doubt` ``[N]`` is the variance of single scores besides the process's noise, in units of the signal's.
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        pretrained: Pretrained,
        tokens: Tokens,
        scores: Floats,
        bound: float,
        config: GpConfig | None = None,
        sources: Sequence[Source] = (),
        doubt: Floats | None = None,
    ) -> None:
        self.space = space
        self.bound = bound
        self.config = config or GpConfig()
        self._pretrained = pretrained
        ranks = self.config.targets == "ranks"
        targets = normal_scores(scores) if ranks else TargetScale.fit(scores, "standard").to_targets(scores)
        self.rows = representatives(scores, self.config.most)
        """``[n]``: those the process is conditioned on."""
        features, targets, scores = self._features(tokens[self.rows]), targets[self.rows], scores[self.rows]
        views = views_of(pretrained, self.config)
        doubted = None if doubt is None else torch.from_numpy(doubt[self.rows])
        cold = GaussianProcess(features, torch.from_numpy(targets), views, doubt=doubted)
        self._gp: Process = cold
        self.transfer: Transfer | None = None
        """What came of the `sources`; None: there are none."""
        if sources:
            self._gp, self.transfer = transferred(cold, views, sources)
        self._targets, first = np.unique(targets, return_index=True)
        self._scores = scores[first]
        self._mask = additive_mask(torch.from_numpy(space.token_mask))

    def _features(self, tokens: Tokens) -> Tensor:
        return features_of(self.space, self._pretrained, tokens, self.config)

    @torch.no_grad()
    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Mean ``[M]`` and spread ``[M]`` of the predicted scores of ``[M, L]`` tokens, in units of the scores."""
        mean, spread = self._gp.posterior(self._features(tokens))
        middle, high = self._to_scores(mean.numpy()), self._to_scores((mean + spread).numpy())
        low = self._to_scores((mean - spread).numpy())
        return middle, (high - low) / 2

    @torch.no_grad()
    def choose(self, tokens: Tokens, count: int, pending: Tokens, spread_weight: float) -> list[int]:
        """Up to `count` rows of ``[M, L]`` tokens, by the bound, each as if those before it, and `pending`, were known.

        Conditioning on a point at its own predicted value leaves every mean and shrinks the spread near it.
        """
        features = self._features(np.concatenate([pending, tokens]))
        asked, open_ones = self._nearest(features[: len(pending)], features[len(pending) :])
        mean, covariance = self._gp.joint(torch.cat([asked, open_ones]))
        mean, covariance = mean[len(asked) :], self._observed(covariance, len(asked))
        chosen: list[int] = []
        is_open = torch.ones(len(tokens), dtype=torch.bool)
        for _ in range(min(count, len(tokens))):
            bound = mean + spread_weight * covariance.diagonal().clamp_min(0).sqrt()
            best = int(torch.where(is_open, bound, -torch.inf).argmax())
            is_open[best] = False
            column = covariance[:, best]
            covariance = covariance - torch.outer(column, column) / (column[best].clamp_min(0) + self._gp.noise)
            chosen.append(best)
        return chosen

    def _nearest(self, pending: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[M, D]``, the first reduced to at most `most_pending` rows, in their order; and the others."""
        if len(pending) > self.config.most_pending and len(others):
            distances = torch.cdist(pending.double(), others.double()).amin(dim=1)
            rows = distances.argsort(stable=True)[: self.config.most_pending].sort().values
            pending = pending[rows]
        return pending, others

    def _observed(self, covariance: Tensor, count: int) -> Tensor:
        """Covariance ``[M, M]`` of the other rows once the first `count` of ``[count + M, count + M]`` are observed."""
        known = covariance[:count, :count] + self._gp.noise * torch.eye(count, dtype=covariance.dtype)
        explained = torch.linalg.solve_triangular(torch.linalg.cholesky(known), covariance[:count, count:], upper=False)
        left: Tensor = covariance[count:, count:] - explained.T @ explained
        return left

    @torch.no_grad()
    def embed(self, tokens: Tokens) -> Floats:
        """``[M, H]``: the embedding of ``[M, L]`` tokens."""
        return _embedded(self._pretrained, tokens)

    def row(self) -> Mapping[str, float | str]:
        """Columns of a fit's diagnostics.

        `view`, the likeliest, and `view_probability`; expected `length` and `noise`; `left_out_density`, the mean log
        density of a target predicted without itself.
        """
        return {**self._gp.row(), "left_out_density": float(self._gp.left_out_density().mean())}

    def recommended(self) -> int:
        """Row of the scored genotype with the largest posterior mean: its own score and those of like ones count."""
        return int(self.rows[int(self._gp.expected().argmax())])

    def left_out(self) -> Floats:
        """``[n]``: the target of each of `rows` as predicted without it."""
        return self._gp.left_out().numpy()

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens) -> Tokens:
        """Greedy decode ``[M, L]`` of the encoded tokens."""
        epd = self._pretrained.epd
        return epd.decode(epd.encode(torch.from_numpy(tokens)), self._mask).numpy()

    def step(self, tokens: Tokens, step_sizes: Sequence[float], unit: bool) -> Steps:
        """One step up the bound from each of ``[M, L]`` sources with each size, decoded; by size, then source."""
        epd = self._pretrained.epd
        sizes = torch.tensor(step_sizes).repeat_interleave(len(tokens))
        sources = torch.arange(len(tokens)).repeat(len(step_sizes))
        with torch.no_grad():
            memory = epd.encode(torch.from_numpy(tokens))
        gradient = self._gradient(memory)
        if unit:
            gradient = gradient / gradient.norm(dim=-1).mean(dim=-1)[:, None, None].clamp_min(1e-12)
        with torch.no_grad():
            moved = F.normalize(memory[sources] + sizes[:, None, None] * gradient[sources], dim=-1)
            points = epd.embed(moved)
        return Steps(
            tokens=epd.decode(moved, self._mask).numpy(),
            points=points.double().numpy(),
            sources=sources.numpy(),
            step_sizes=sizes.double().numpy(),
        )

    def _gradient(self, memory: Tensor) -> Tensor:
        with torch.enable_grad():
            free = memory.detach().requires_grad_()
            point = self._pretrained.epd.embed(free)
            read = self._pretrained.readout(point)
            mean, spread = self._gp.posterior(torch.cat([read, point], dim=1) if _embeds(self.config) else read)
            (gradient,) = torch.autograd.grad((mean + self.bound * spread).sum(), free)
        return gradient

    def _to_scores(self, targets: Floats) -> Floats:
        """Targets back to scores: between the observed ones linearly, beyond them with the mean slope."""
        slope = np.ptp(self._scores) / np.ptp(self._targets) if len(self._targets) > 1 else 0.0
        inside = np.interp(targets, self._targets, self._scores)
        beyond = targets - np.clip(targets, self._targets[0], self._targets[-1])
        return inside + slope * beyond


def features_of(space: SearchSpace[Any], pretrained: Pretrained, tokens: Tokens, config: GpConfig) -> Tensor:
    """``[N, L]`` -> ``[N, D]``: the inputs, and the embedding after them where one of the views is of it."""
    inputs = pretrained.features(space, tokens)
    if not _embeds(config):
        return inputs
    return torch.cat([inputs, torch.from_numpy(_embedded(pretrained, tokens))], dim=1)


def views_of(pretrained: Pretrained, config: GpConfig) -> tuple[View, ...]:
    """The views of these features that a process chooses among."""
    return tuple(_view(name, pretrained) for name in config.views)


def _embeds(config: GpConfig) -> bool:
    return "embedding" in config.views


def _view(name: ViewName, pretrained: Pretrained) -> View:
    if name != "embedding":
        return pretrained.inputs.views[name]
    columns = len(pretrained.inputs) + torch.arange(pretrained.epd.config.hidden)
    return View(name, columns, torch.full((len(columns),), 1 / pretrained.embedding_unit, dtype=torch.float64))


@torch.no_grad()
def _embedded(pretrained: Pretrained, tokens: Tokens) -> Floats:
    epd = pretrained.epd
    return epd.embed(epd.encode(torch.from_numpy(tokens))).double().numpy()


def representatives(scores: Floats, most: int) -> NDArray[np.int64]:
    """At most so many rows of ``[N]`` scores, ascending: half of them the best, the others evenly over the ranks."""
    if len(scores) <= most:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    best, others = order[: most // 2], order[most // 2 :]
    evenly = np.linspace(0, len(others) - 1, most - len(best)).round().astype(np.int64)
    return np.sort(np.concatenate([best, others[evenly]]))


def fit_process(
    space: SearchSpace[Any],
    pretrained: Pretrained,
    tokens: Tokens,
    scores: Floats,
    bound: float,
    config: GpConfig | None = None,
    sources: Sequence[Source] = (),
) -> tuple[GpController, FitReport]:
    """The posterior after ``[N, L]`` tokens and ``[N]`` scores, N >= 2, and how well it predicts what it left out."""
    began = time.process_time()
    controller = GpController(space, pretrained, tokens, scores, bound, config, sources)
    left_out, count = controller.left_out(), len(scores)
    tokens, scores = tokens[controller.rows], scores[controller.rows]
    return controller, FitReport(
        num_trials=count,
        num_steps=0,
        prediction_loss=math.nan,
        reconstruction_loss=math.nan,
        reconstruction=hamming(tokens, controller.reconstruct(tokens)),
        pairwise_accuracy=pairwise_accuracy(scores, controller.predict(tokens)[0]),
        heldout_pairwise_accuracy=pairwise_accuracy(scores, left_out),
        heldout_rank_correlation=rank_correlation(scores, left_out),
        cpu_seconds=time.process_time() - began,
    )
