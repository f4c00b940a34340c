"""What to ask while far more is under way than is known: the larger ones, and unlike those that were asked.

With many workers most of the first proposals are made after few results or none, and nothing fitted to those predicts.
Larger networks are better more often than not, and their size costs no result: the prior mean of a process over the
descriptors is half the normal score of the number of parameters among random genotypes, with a slope that the results
correct (explicit basis functions: Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006,
section 2.7). What is asked and not yet measured counts as measured at its predicted value (Desautels, Krause, Burdick,
JMLR 2014), so that a batch spreads by itself: before any result it is a design by the largest spread, tilted to size.

Legend: `N` results, `P` asked and not yet measured, `M` candidates, `D` descriptors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.controllers.descriptors import Descriptors, num_live_params
from nao_ray.controllers.gp import normal_scores
from nao_ray.controllers.kernels import median_distance
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.trial import Proposal

Floats = NDArray[np.float64]
LENGTHS = (0.5, 0.75, 1.0, 1.5)
"""The kernel is the mean of those with these lengths, in units of the median distance between random genotypes."""
NOISE = 0.1
"""Variance, in units of the signal's."""
SLOPE, SLOPE_SPREAD = 0.5, 0.5
"""Prior mean and standard deviation of the target's slope in the normal score of the size."""
SPREAD_WEIGHT = 1.0
"""Of the bound: many workers explore by being many."""
MORE = 8
"""So many more asked and not yet measured ones than results there are where it is used; fewer workers have the fits."""
MOST = 64
"""Asked and not yet measured ones up to which it is used, so that the first of a thousand workers soon have work."""
_RANDOM, _RANDOM_FIRST = 80, 200
"""Candidates drawn at random, with results to climb by and without."""
_CLIMBS, _HIGHEST, _NEIGHBOURS = 3, 10, 4
"""Times the highest candidates get neighbours, how many of them, and so many each."""
_SAMPLE = 500
"""Random genotypes whose sizes and distances are the units."""


class FirstBatches:
    """A proposal of it, where it is called for."""

    def __init__(self, space: SearchSpace[Any], config: NaoConfig, seed: int) -> None:
        self._space = space
        self._serves = config.size_prior and config.mode == "steady" and config.predictor == "gp"
        self._seed = seed

    def __call__(
        self,
        told: Sequence[Observation],
        asked: Mapping[int, Genotype],
        taken: Collection[str],
        generator: np.random.Generator,
    ) -> Proposal | None:
        """None where there are enough results for a fit, or too much is pending, or limits refuse all that was found.

        Args:
            told: finished trials.
            asked: by trial id, finished or not.
            taken: keys that are not wanted.
            generator: draws candidates.
        """
        if not self._serves or len(told) + MORE > MOST:
            return None  # before a long log is gone through
        finished = {seen.genotype.key for seen in told}
        pending = [genotype for genotype in asked.values() if genotype.key not in finished]
        if not len(told) + MORE <= len(pending) <= MOST:
            return None
        known = [seen for seen in told if seen.score is not None]
        scores = np.array([seen.score for seen in known], dtype=np.float64)
        order = self._prior.order([seen.genotype for seen in known], scores, pending, taken, generator)
        allowed = (Proposal(genotype=found, round=0) for found in order if not self._space.refusal(found))
        return next(allowed, None)

    @cached_property
    def _prior(self) -> SizePrior:
        return SizePrior(self._space.whole, rng.child(self._seed, "first batches"))


class SizePrior:
    """A process before it can be fitted: its hyper-parameters are given."""

    def __init__(self, space: SearchSpace[Any], generator: np.random.Generator) -> None:
        """The generator draws what columns and units are taken from."""
        self.space = space
        sample = [space.sample(generator) for _ in range(_SAMPLE)]
        self._descriptors = Descriptors(space, sample)
        self._unit = median_distance(torch.from_numpy(self._descriptors(sample)))
        sizes = np.array([self._size(genotype) for genotype in sample], dtype=np.float64)
        order = np.argsort(sizes, kind="stable")
        self._sizes, self._normal = sizes[order], normal_scores(sizes)[order]

    def _size(self, genotype: Genotype) -> int:
        return num_live_params(self.space.lower(genotype))

    def _at(self, genotypes: Sequence[Genotype]) -> tuple[Floats, Floats]:
        """Descriptors ``[M, D]`` in units, and normal scores ``[M]`` of the sizes."""
        sizes = np.array([self._size(genotype) for genotype in genotypes], dtype=np.float64)
        described: Floats = self._descriptors(genotypes).astype(np.float64) / self._unit
        return described, np.interp(sizes, self._sizes, self._normal)

    def order(
        self,
        known: Sequence[Genotype],
        scores: Floats,
        pending: Sequence[Genotype],
        taken: Collection[str],
        generator: np.random.Generator,
    ) -> list[Genotype]:
        """New genotypes, the highest bound first; it knows nothing of a search's limits.

        Args:
            known: N with results.
            scores: ``[N]``.
            pending: asked and not yet measured.
            taken: keys that are not wanted.
            generator: draws candidates.
        """
        found: dict[str, Genotype] = {}

        def add(genotype: Genotype) -> None:
            if genotype.key not in taken:
                found.setdefault(genotype.key, genotype)

        for _ in range(_RANDOM if known else _RANDOM_FIRST):
            add(self.space.sample(generator))
        for _ in range(_CLIMBS if known else 0):
            for genotype in self._sorted(known, scores, pending, list(found.values()))[:_HIGHEST]:
                for _ in range(_NEIGHBOURS):
                    add(self.space.mutate(genotype, generator))
        return self._sorted(known, scores, pending, list(found.values()))

    def _sorted(
        self, known: Sequence[Genotype], scores: Floats, pending: Sequence[Genotype], candidates: list[Genotype]
    ) -> list[Genotype]:
        bounds = self.bounds(known, scores, pending, candidates) if candidates else np.zeros(0)
        return [candidates[row] for row in np.argsort(-bounds, kind="stable")]

    def bounds(
        self, known: Sequence[Genotype], scores: Floats, pending: Sequence[Genotype], candidates: Sequence[Genotype]
    ) -> Floats:
        """``[M]`` upper bounds of the candidates, in normal scores, after ``[N]`` results and with ``P`` pending."""
        at = self._at([*known, *pending]) if known or pending else (np.zeros((0, len(self._descriptors))), np.zeros(0))
        to, n = self._at(candidates), len(known)
        cross = _kernel(at, to)
        factor = np.linalg.cholesky(_kernel(at, at) + NOISE * np.eye(len(at[1])))
        explained = np.linalg.solve(factor, cross)
        mean = SLOPE * to[1]
        if n:
            rest = np.linalg.solve(factor[:n, :n], normal_scores(scores) - SLOPE * at[1][:n])
            mean = mean + explained[:n].T @ rest
        variance = 1 + (SLOPE_SPREAD * to[1]) ** 2 - np.square(explained).sum(axis=0)
        bound: Floats = mean + SPREAD_WEIGHT * np.sqrt(np.maximum(variance, 0))
        return bound


def _kernel(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> Floats:
    """``[M, K]``."""
    squared = np.square(a[0]).sum(1)[:, None] + np.square(b[0]).sum(1)[None] - 2 * a[0] @ b[0].T
    near = np.mean([np.exp(-np.maximum(squared, 0) / (2 * length**2)) for length in LENGTHS], axis=0)
    covariance: Floats = near + SLOPE_SPREAD**2 * np.outer(a[1], b[1])
    return covariance
