"""Which genotype a step of the shared weights trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nao_ray import rng
from nao_ray.spaces.base import ArchGraph


class PathSampler:
    """Draws from a pool of genotypes: evenly, or in proportion to weights.

    Args:
        graphs: the pool, at least one.
        weights: a positive number per genotype, for example the parameters of its network on its own (NAO-V2, arXiv
            1909.10815); None: all are alike.
        in_turn: draw nothing: step by step, and worker by worker within a step, the next of the pool.
    """

    def __init__(
        self, graphs: Sequence[ArchGraph], weights: Sequence[float] | None = None, *, in_turn: bool = False
    ) -> None:
        if not graphs:
            raise ValueError("a pool to sample from needs at least one genotype")
        shares = np.ones(len(graphs)) if weights is None else np.asarray(weights, dtype=np.float64)
        if shares.shape != (len(graphs),) or not (np.isfinite(shares) & (shares > 0)).all():
            raise ValueError(f"expected {len(graphs)} positive weights, got {weights}")
        self.graphs = list(graphs)
        self._in_turn = in_turn
        self._cumulative = np.cumsum(shares / shares.sum())

    def choices(self, seed: int, step: int, workers: int = 1) -> list[ArchGraph]:
        """What each worker of a group trains in a step: named by seed, step and rank, so each knows it of all."""
        draws = (rng.child(seed, f"sampled genotype of worker {rank}", step) for rank in range(workers))
        return [self.draw(draw, step * workers + rank) for rank, draw in enumerate(draws)]

    def draw(self, draw: np.random.Generator, turn: int) -> ArchGraph:
        """A genotype of the pool; `turn`: the number of this draw, from 0, over all steps and workers."""
        if self._in_turn:
            return self.graphs[turn % len(self.graphs)]
        index = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        return self.graphs[min(index, len(self.graphs) - 1)]
