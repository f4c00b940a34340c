"""The cells of NAS-Bench-101 of up to five vertices, as a search space: what is looked up in a table of them.

Ying et al., "NAS-Bench-101", ICML 2019, arXiv 1902.09635: a directed acyclic graph from an input to an output with an
operation on each vertex between. Vertices that are on no path from the one to the other are cut off, and the order
of the others does not matter, so graphs that are equal then are one cell.

Legend: `M` = 3 vertices between, `L` = 13 tokens: vertex by vertex, the output last, whether each earlier vertex leads
to it, and what it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from itertools import permutations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens

MIDDLE = 3
OPS = {"conv3x3-bn-relu": "conv_3x3", "conv1x1-bn-relu": "conv_1x1", "maxpool3x3": "max_pool_3x3"}
"""By the benchmark's name of what a vertex does, that of arch graphs."""
_OUTPUT = MIDDLE + 1
_PAIRS = [(source, vertex) for vertex in range(1, _OUTPUT + 1) for source in range(vertex)]
_FIRST_OP = 3  # tokens: 0 start, 1 no edge, 2 an edge, then the operations
Graph = tuple[frozenset[tuple[int, int]], tuple[int, ...]]
"""Edges ``(source, vertex)``, and for each vertex between which operation it does."""


class Cells101(SearchSpace[SpaceConfig]):
    """Cells of at most three vertices between input and output."""

    name: ClassVar[str] = "nas_bench_101"
    dialects: ClassVar[tuple[str, ...]] = ("tokens", "benchmark")
    """`benchmark`: ``ADJACENCY OPERATIONS``, the matrix row by row as 0 and 1, and names by commas."""

    @property
    def length(self) -> int:
        return len(_PAIRS) + MIDDLE

    @property
    def vocabulary(self) -> int:
        return _FIRST_OP + len(OPS)

    @property
    def tokens_per_step(self) -> int:
        return 1

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((self.length, self.vocabulary), dtype=bool)
        for position, is_op in enumerate(_is_op()):
            mask[position, _FIRST_OP if is_op else 1 : self.vocabulary if is_op else _FIRST_OP] = True
        return mask

    @property
    def num_genotypes(self) -> int:
        return int(2 ** len(_PAIRS) * len(OPS) ** MIDDLE)

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes  # an upper bound: a list says how many there are

    def sample(self, rng: np.random.Generator) -> Genotype:
        tokens = [int(rng.choice(np.flatnonzero(legal))) for legal in self.token_mask]
        return self.canonical(self.decode(np.array(tokens)))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        tokens, home = self.encode(genotype), self.canonical(genotype)
        while True:
            position = int(rng.integers(self.length))
            tokens[position] = int(rng.choice(np.flatnonzero(self.token_mask[position])))
            if (mutant := self.canonical(self.decode(tokens))) != home:
                return mutant

    def encode(self, genotype: Genotype) -> Tokens:
        return np.array(genotype.key.split(), dtype=np.int64)

    def decode(self, tokens: Tokens) -> Genotype:
        return Genotype(self.name, " ".join(map(str, self.legal(tokens).tolist())))

    def canonical(self, genotype: Genotype) -> Genotype:
        return Genotype(self.name, _canonical(genotype.key))

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        del rng
        return tokens

    def lower(self, genotype: Genotype) -> ArchGraph:
        """A vertex is a state that sums what leads to it, and one that does its operation."""
        edges, ops = _graph(genotype.key)
        names, nodes = list(OPS.values()), []
        for vertex in range(1, _OUTPUT + 1):
            sources = sorted(2 * source for source, target in edges if target == vertex)
            nodes.append(tuple(Edge(source, "identity") for source in sources))
            if vertex < _OUTPUT:
                nodes.append((Edge(2 * vertex - 1, names[ops[vertex - 1]]),))
        return ArchGraph("", (("normal", Cell(1, tuple(nodes), (2 * _OUTPUT - 1,))),))

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "benchmark":
            return self._of_benchmark(*text.split())
        words = text.split()
        if not all(word.isdecimal() and len(word) < 2 for word in words):
            raise GenotypeError(f"space {self.name}: expected {self.length} tokens, got {text[:40]!r}")
        return self.decode(np.array(words, dtype=np.int64))

    def _of_benchmark(self, adjacency: str, operations: str) -> Genotype:
        names = operations.split(",")
        count = len(names)
        if count > MIDDLE + 2 or len(adjacency) != count**2 or not set(names[1:-1]) <= set(OPS):
            raise GenotypeError(
                f"space {self.name}: no cell of at most {MIDDLE + 2} vertices: {adjacency} {operations}"
            )
        matrix = np.array([int(digit) for digit in adjacency]).reshape(count, count)
        place = [*range(count - 1), _OUTPUT]
        edges = frozenset((place[source], place[target]) for source, target in np.argwhere(matrix).tolist())
        ops = [list(OPS).index(name) for name in names[1:-1]]
        return Genotype(self.name, _text((edges, (*ops, *[0] * (MIDDLE - len(ops))))))


def _is_op() -> Iterator[bool]:
    for vertex in range(1, _OUTPUT + 1):
        yield from [False] * vertex
        if vertex < _OUTPUT:
            yield True


def _graph(key: str) -> Graph:
    words = [int(word) for word in key.split()]
    bits = [word for word, is_op in zip(words, _is_op(), strict=True) if not is_op]
    ops = [word - _FIRST_OP for word, is_op in zip(words, _is_op(), strict=True) if is_op]
    return frozenset(pair for pair, bit in zip(_PAIRS, bits, strict=True) if bit == 2), tuple(ops)


def _text(graph: Graph) -> str:
    edges, ops = graph
    words: list[int] = []
    for vertex in range(1, _OUTPUT + 1):
        words += [1 + ((source, vertex) in edges) for source in range(vertex)]
        words += [_FIRST_OP + ops[vertex - 1]] if vertex < _OUTPUT else []
    return " ".join(map(str, words))


@cache
def _canonical(key: str) -> str:
    """What is on no path is cut off; of all orders of the vertices the first text."""
    edges, ops = _graph(key)
    fed, used = {0}, {_OUTPUT}
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        fed |= {target} if source in fed else set()
    for source, target in sorted(edges, key=lambda edge: -edge[1]):
        used |= {source} if target in used else set()
    alive = fed & used if _OUTPUT in fed else set()
    edges = frozenset(edge for edge in edges if alive.issuperset(edge))
    ops = tuple(op if vertex in alive else 0 for vertex, op in enumerate(ops, start=1))
    texts = []
    for order in permutations(range(1, _OUTPUT)):
        place = {0: 0, _OUTPUT: _OUTPUT, **{vertex: at for at, vertex in enumerate(order, start=1)}}
        moved = frozenset((place[source], place[target]) for source, target in edges)
        if all(source < target for source, target in moved):
            texts.append(_text((moved, tuple(ops[vertex - 1] for vertex in order))))
    return min(texts)
