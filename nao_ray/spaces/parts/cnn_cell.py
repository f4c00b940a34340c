"""Spaces of NAO's and ENAS's convolutional cells: a normal and a reduction cell of five nodes with two edges each.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233.

Legend: `B` = 5 nodes a cell, `E` = 2B edges a cell, `K` operations, `L` = 4E tokens.

Text: 40 integers, ``x_id x_op y_id y_op`` per node, normal cell then reduction cell. State ids: 0 the output of the
cell before the previous one, 1 of the previous one, 2.. the nodes. Tokens: 0 start, 1..B+1 state id + 1, then the
operations. The two edges of a node commute: in canonical form each node's edges ascend by (state, op).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens
from nao_ray.spaces.parts.operations import check_operations

NODES = 5
EDGES = 2  # per node
CELL_INPUTS = 2
ROLES = ("normal", "reduction")


class CnnCellSpace(SearchSpace[SpaceConfig]):
    """Normal and reduction cell over the operations `ops`; a concrete space gives the table and its ids.

    Raises:
        ConfigError: an operation is unknown or given twice.
    """

    ops: ClassVar[tuple[str, ...]]
    """Operation names, in token order (`networks/ops.py` builds them)."""
    dialects: ClassVar[tuple[str, ...]] = ("integers", "tokens")
    id_offset: ClassVar[Mapping[str, int]] = {"integers": 0}
    """Per integer dialect, the id of the first operation."""
    skeleton: ClassVar[str] = "nao"

    def __init__(self, config: SpaceConfig | None = None) -> None:
        super().__init__(config)
        check_operations(self, self.ops)

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return len(ROLES) * NODES * 4

    @property
    def vocabulary(self) -> int:
        return self._first_op + len(self.ops)

    @property
    def _first_op(self) -> int:
        return 1 + NODES + 1

    @property
    def _token_shift(self) -> Tokens:
        return np.array([1, self._first_op], dtype=np.int64)

    def _id_shift(self, dialect: str) -> Tokens:
        return np.array([0, self.id_offset[dialect]], dtype=np.int64)

    @property
    def tokens_per_step(self) -> int:
        return 2

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((self.length, self.vocabulary), dtype=bool)
        for position in range(self.length):
            if position % 2:
                mask[position, self._first_op :] = True
            else:
                mask[position, 1 : 1 + self._num_sources(position // 4 % NODES)] = True
        return mask

    @staticmethod
    def _num_sources(node: int) -> int:
        return CELL_INPUTS + node

    @property
    def num_genotypes(self) -> int:
        per_cell = prod((self._num_sources(node) * len(self.ops)) ** 2 for node in range(NODES))
        return int(per_cell ** len(ROLES))

    @property
    def num_architectures(self) -> int:
        edges = [self._num_sources(node) * len(self.ops) for node in range(NODES)]
        per_cell = prod(m * (m + 1) // 2 for m in edges)  # unordered pairs with repetition
        return int(per_cell ** len(ROLES))

    # -- genotypes ----------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Genotype:
        sources = np.tile([self._num_sources(node) for node in range(NODES)], len(ROLES))[:, None]
        table = np.empty((len(ROLES) * NODES, 2, 2), dtype=np.int64)
        table[..., 0] = rng.integers(0, sources, size=(len(sources), 2))
        table[..., 1] = rng.integers(0, len(self.ops), size=(len(sources), 2))
        return self.canonical(self._genotype(table))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        origin = self.canonical(genotype)
        while True:  # ends: any edge can change to another op, and most such changes give another architecture
            table = self._table(origin).copy()
            node, edge, what = rng.integers(len(table)), rng.integers(2), rng.integers(2)
            choices = self._num_sources(int(node) % NODES) if what == 0 else len(self.ops)
            table[node, edge, what] = (table[node, edge, what] + rng.integers(1, choices)) % choices
            mutant = self.canonical(self._genotype(table))
            if mutant != origin:
                return mutant

    def encode(self, genotype: Genotype) -> Tokens:
        return (self._table(genotype) + self._token_shift).reshape(-1)

    def decode(self, tokens: Tokens) -> Genotype:
        return self._genotype(self.legal(tokens).reshape(-1, 2, 2) - self._token_shift)

    def canonical(self, genotype: Genotype) -> Genotype:
        table = self._table(genotype)
        rank = table[..., 0] * len(self.ops) + table[..., 1]
        return self._genotype(np.take_along_axis(table, np.argsort(rank, axis=1, kind="stable")[..., None], axis=1))

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        edges = tokens.reshape(len(tokens), -1, 2, 2)
        swap = rng.integers(0, 2, size=edges.shape[:2], dtype=bool)
        return np.where(swap[..., None, None], edges[:, :, ::-1], edges).reshape(tokens.shape)

    def lower(self, genotype: Genotype) -> ArchGraph:
        table = self._table(genotype).reshape(len(ROLES), NODES, 2, 2)
        return ArchGraph(
            self.skeleton, tuple((role, self._lower_cell(cell)) for role, cell in zip(ROLES, table, strict=True))
        )

    def _lower_cell(self, table: Tokens) -> Cell:
        nodes = tuple(tuple(Edge(int(source), self.ops[op]) for source, op in node) for node in table)
        used = {edge.source for node in nodes for edge in node}
        states = range(CELL_INPUTS + NODES)
        return Cell(CELL_INPUTS, nodes, output=tuple(state for state in states if state not in used))  # loose ends

    # -- text ---------------------------------------------------------------------------------------------

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "tokens":
            return self.decode(np.array(self._integers(text), dtype=np.int64))
        offset = self.id_offset[dialect]
        table = np.array(self._integers(text), dtype=np.int64).reshape(-1, 2, 2)
        for row, node in enumerate(table):
            where = f"space {self.name}, {ROLES[row // NODES]} cell, node {row % NODES + CELL_INPUTS}"
            for (source, op), letter in zip(node, "xy", strict=True):
                sources = self._num_sources(row % NODES)
                if not 0 <= source < sources:
                    raise GenotypeError(f"{where}: {letter}_id {source} is illegal, expected 0..{sources - 1}")
                if not offset <= op < offset + len(self.ops):
                    last = offset + len(self.ops) - 1
                    raise GenotypeError(f"{where}: {letter}_op {op} is illegal, expected {offset}..{last}")
        return self._genotype(table - self._id_shift(dialect))

    def _integers(self, text: str) -> list[int]:
        words = text.replace(",", " ").split()
        try:
            numbers = [int(word) for word in words]
        except ValueError as error:
            raise GenotypeError(f"space {self.name}: a genotype is {self.length} integers; {error}") from None
        if len(numbers) != self.length:
            raise GenotypeError(f"space {self.name}: a genotype is {self.length} integers, got {len(numbers)}")
        if max(abs(number) for number in numbers) > 10**6:
            raise GenotypeError(f"space {self.name}: an id in the genotype is out of range")
        return numbers

    def _genotype(self, table: Tokens) -> Genotype:
        shifted = table + self._id_shift(self.dialects[0])
        return Genotype(self.name, " ".join(map(str, shifted.reshape(-1).tolist())))

    def _table(self, genotype: Genotype) -> Tokens:
        """``[10, 2, 2]``: node, edge, (state id, operation index)."""
        numbers = np.array(genotype.key.split(), dtype=np.int64).reshape(-1, 2, 2)
        return numbers - self._id_shift(self.dialects[0])
