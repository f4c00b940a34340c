"""Which genotype a step of the shared weights trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nao_ray.networks.derived import build
from nao_ray.spaces.base import ArchGraph


class PathSampler:
    """Draws from a pool of genotypes: evenly, or in proportion to weights.

    Args:
        graphs: the pool, at least one.
        weights: a positive number per genotype, for example `standalone_params` of each (NAO-V2, arXiv 1909.10815);
            None: all are alike.
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

    def draw(self, draw: np.random.Generator, turn: int) -> ArchGraph:
        """A genotype of the pool for the draw of this number, from 0."""
        if self._in_turn:
            return self.graphs[turn % len(self.graphs)]
        index = int(np.searchsorted(self._cumulative, draw.random(), side="right"))
        return self.graphs[min(index, len(self.graphs) - 1)]


def standalone_params(graph: ArchGraph, *, network: str, cells_per_stage: int = 3, channels: int = 20) -> int:
    """Parameters of the genotype's stand-alone network without an auxiliary head; nothing is computed."""
    with torch.device("meta"):
        built = build(graph, network=network, cells_per_stage=cells_per_stage, channels=channels)
    return sum(parameter.numel() for parameter in built.parameters())
