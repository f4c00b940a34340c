"""What a cell's graph says for free: numbers that need no training, for a predictor to stand on.

Legend: `N` genotypes, `D` descriptors.

An edge is live when it carries something from the cell's inputs to its output; what is not live changes nothing. Per
cell the descriptors are: which live edge has which operation; per operation the number of live edges and the largest
number of them on one path; the number of paths (as log1p); the longest and the shortest path, where identity counts
nothing. They hold for every space that lowers to an arch graph; twins have equal ones, those of their canonical form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nao_ray.networks.ops import op_params
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace

_KEPT = 4096  # genotypes whose descriptors are kept: what is known and pending is asked about in every fit

Key = tuple[str | int, ...]
Weight = Callable[[Edge], float]


class Descriptors:
    """Genotypes as vectors: a sample of the space fixes the columns, anything else falls away."""

    def __init__(self, space: SearchSpace, sample: Iterable[Genotype]) -> None:  # type: ignore[type-arg]
        self.space = space
        keys = {key for genotype in sample for key in describe(space.lower(space.canonical(genotype)))}
        self.keys: tuple[Key, ...] = tuple(sorted(keys, key=str))
        """Names of the columns."""
        self._column = {key: column for column, key in enumerate(self.keys)}
        self._row = lru_cache(maxsize=_KEPT)(self._describe)

    def __len__(self) -> int:
        return len(self.keys)

    def __call__(self, genotypes: Sequence[Genotype]) -> NDArray[np.float32]:
        """``[N, D]``: edges 0 or 1, counts and lengths >= 0."""
        return np.stack([self._row(genotype) for genotype in genotypes]) if genotypes else self._nothing(0)

    def _describe(self, genotype: Genotype) -> NDArray[np.float32]:
        row = self._nothing()
        for key, value in describe(self.space.lower(self.space.canonical(genotype))).items():
            if (column := self._column.get(key)) is not None:
                row[column] = value
        return row

    def _nothing(self, *shape: int) -> NDArray[np.float32]:
        return np.zeros((*shape, len(self)), dtype=np.float32)


def describe(graph: ArchGraph) -> dict[Key, float]:
    """The non-zero descriptors of an arch graph, by name ``(role, what, ...)``."""
    return {(role, *key): value for role, cell in graph.cells for key, value in _describe_cell(cell).items()}


def num_live_params(graph: ArchGraph) -> int:
    """Parameters of the operations on live edges, each cell once and at the same width: a size to compare by."""
    return sum(op_params(edge.op) for _, cell in graph.cells for _, edge in live_edges(cell))


def _describe_cell(cell: Cell) -> dict[Key, float]:
    live = live_edges(cell)
    out: Counter[Key] = Counter()
    for node, edge in live:
        out["edge", node, edge.source, edge.op] += 1
        out["count", edge.op] += 1
    described: dict[Key, float] = dict(out)
    described["paths",] = float(np.log1p(_num_paths(cell, live)))
    for op in {edge.op for _, edge in live} - {"identity"}:
        described["longest", op] = _extreme_path(cell, live, lambda edge, op=op: float(edge.op == op), max)  # type: ignore[misc]
    described["longest",] = _extreme_path(cell, live, lambda edge: float(edge.op != "identity"), max)
    described["shortest",] = _extreme_path(cell, live, lambda edge: float(edge.op != "identity"), min)
    return described


def live_edges(cell: Cell) -> list[tuple[int, Edge]]:
    """``(node, edge)`` of every edge on a path from an input to the output that no `zero` interrupts."""
    edges = [(cell.inputs + index, edge) for index, node in enumerate(cell.nodes) for edge in node if edge.op != "zero"]
    fed = set(range(cell.inputs))
    for node, edge in edges:  # in topological order
        if edge.source in fed:
            fed.add(node)
    used = set(cell.output)
    for node, edge in reversed(edges):
        if node in used:
            used.add(edge.source)
    return [(node, edge) for node, edge in edges if edge.source in fed and node in used]


def _num_paths(cell: Cell, live: list[tuple[int, Edge]]) -> int:
    paths = dict.fromkeys(range(cell.inputs), 1)
    for node, edge in live:
        paths[node] = paths.get(node, 0) + paths[edge.source]
    return sum(paths.get(state, 0) for state in cell.output)


def _extreme_path(
    cell: Cell, live: list[tuple[int, Edge]], weight: Weight, best: Callable[[float, float], float]
) -> float:
    """The largest or smallest sum of weights on a path from an input to the output; 0 where there is none."""
    length = dict.fromkeys(range(cell.inputs), 0.0)
    for node, edge in live:
        through = length[edge.source] + weight(edge)
        length[node] = best(length[node], through) if node in length else through
    ends = [length[state] for state in cell.output if state in length]
    total = ends[0] if ends else 0.0
    for end in ends[1:]:
        total = best(total, end)
    return total
