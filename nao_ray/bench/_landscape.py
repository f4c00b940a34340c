"""A stated function of a cell, to measure controllers and strategies on: what an operation is worth, where, after whom.

    raw(cell) = sum over edges of  w[role, node] v[role, op]
              + sum over edges that read a node of  u[op of that node's edges, op]
              + depth - loose ends

v = shared normal(0, 1) + per role normal(0, 0.5); w uniform in 0.5..1.5; u normal(0, 0.4); the sums are divided by
sqrt(edges of a cell); depth counts 0.4 per node on the longest path beyond 3, loose ends 0.3 per state off from 3.
A score is 0.9 + 0.02 z, z the raw value standardised over random genotypes, plus noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.spaces.base import Cell, Genotype, SearchSpace

Floats = NDArray[np.float64]
CENTRE, UNIT = 0.9, 0.02
"""Score of a mean architecture, and one standard deviation of the space: a plausible CIFAR-10 search."""


class Landscape:
    """The function of one seed, over a space of normal and reduction cells."""

    _SAMPLE = 500  # random genotypes that fix mean and deviation

    def __init__(self, space: SearchSpace[Any], seed: int) -> None:
        self.space = space
        draw = rng.child(seed, "landscape")
        graph = space.lower(space.sample(draw))
        lowered = {text: op for op, text in space.op_names.items()}
        self._ops = {lowered.get(text, text): i for i, text in enumerate(getattr(space, "ops"))}  # noqa: B009
        roles, nodes, ops = len(graph.cells), len(graph.cells[0][1].nodes), len(self._ops)
        self._value = draw.normal(0, 1, size=ops) + draw.normal(0, 0.5, size=(roles, ops))
        self._weight = draw.uniform(0.5, 1.5, size=(roles, nodes))
        self._pair = draw.normal(0, 0.4, size=(ops, ops))
        raw = np.array([self._raw(space.sample(draw)) for _ in range(self._SAMPLE)])
        self._mean, self._deviation = float(raw.mean()), float(raw.std())

    def __call__(self, genotype: Genotype) -> float:
        """The noise-free score; about 0.9 +- 0.02 over the space."""
        return CENTRE + UNIT * (self._raw(genotype) - self._mean) / self._deviation

    def measure(self, genotype: Genotype, draw: np.random.Generator, noise: float) -> float:
        """The score with normal noise of `noise` times the space's deviation."""
        return self(genotype) + UNIT * noise * float(draw.normal())

    def _raw(self, genotype: Genotype) -> float:
        return sum(self._cell(role, cell) for role, (_, cell) in enumerate(self.space.lower(genotype).cells))

    def _cell(self, role: int, cell: Cell) -> float:
        edges, depths = 0.0, [0] * cell.inputs
        for node, incoming in enumerate(cell.nodes):
            for edge in incoming:
                op = self._ops[edge.op]
                edges += self._weight[role, node] * self._value[role, op]
                if edge.source >= cell.inputs:
                    edges += sum(self._pair[self._ops[e.op], op] for e in cell.nodes[edge.source - cell.inputs])
            depths.append(1 + max(depths[edge.source] for edge in incoming))
        size = sum(len(incoming) for incoming in cell.nodes)
        return float(edges / np.sqrt(size) + 0.4 * (max(depths) - 3) - 0.3 * abs(len(cell.output) - 3))
