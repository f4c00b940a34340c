"""The convolutional cells of DARTS: a normal and a reduction cell of four nodes with two edges each.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, without `none`, which no
derived cell has. States: 0 and 1 the outputs of the cell before the previous one and of the previous one, 2.. the
nodes. The two edges of a node come from different states, and the output is the concatenation of all nodes.

Cells that its code calls NASNet and AmoebaNet are others: five nodes, edges from one state, two more operations, an
output of some nodes. Such cells are read, drawn, built and trained, but they are not searched: they have no tokens and
no mutants.

Legend: `L` = 32 tokens, (source, op) of 16 edges; `k` states that a node may read.

Text: see `parts/darts_text.py`. Tokens: 0 start, 1..4 a source, then the operations. The first edge's source is
token - 1. The second edge has one choice less, 0..k-2; where it would repeat the first edge's source it means state
k-1: so every masked sequence has different sources, and every pair of them has one sequence. The two edges commute: in
canonical form they ascend by source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens
from nao_ray.spaces.parts.darts_text import INPUTS, ROLES, Cells, DartsCell, DartsText, all_nodes
from nao_ray.spaces.parts.literals import is_literal
from nao_ray.spaces.parts.relaxed import strongest

_NODES, _OPS_AT = 4, 6
_TOKEN_SHIFT: Tokens = np.array([1, _OPS_AT], dtype=np.int64)
_STATES = np.arange(INPUTS, INPUTS + _NODES)  # k of each node
_LAST = np.tile(_STATES - 1, len(ROLES))  # the last state each of the 8 nodes may read
LOWERED: Mapping[str, str] = {
    "none": "zero",
    "max_pool_3x3": "max_pool_3x3",
    "avg_pool_3x3": "avg_pool_3x3",
    "skip_connect": "identity",
    "sep_conv_3x3": "sep_conv_3x3",
    "sep_conv_5x5": "sep_conv_5x5",
    "dil_conv_3x3": "dil_sep_conv_3x3",
    "dil_conv_5x5": "dil_sep_conv_5x5",
    "sep_conv_7x7": "sep_conv_7x7",
    "conv_7x1_1x7": "conv_7x1_1x7",
}
"""DARTS' names of operations -> ours."""
PRIMITIVES = tuple(LOWERED)[:8]
"""What a search chooses of, in the order of the columns of alpha."""
_OPS = PRIMITIVES[1:]
_KNOWN = tuple(LOWERED)[1:]
_TEXT = DartsText("darts_cnn", _KNOWN)
_DARTS_V2 = (
    "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|"
    "+|sep_conv_3x3~1|skip_connect~0|+|skip_connect~0|dil_conv_3x3~2| "
    "|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~1|"
    "+|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|max_pool_3x3~1|"
)


class DartsCnn(SearchSpace[SpaceConfig]):
    """Pools 3, skip connection, separable and dilated separable convolutions 3 and 5."""

    name: ClassVar[str] = "darts_cnn"
    skeleton: ClassVar[str] = "darts"
    dialects: ClassVar[tuple[str, ...]] = ("darts_cnn", "genotype", "tokens")
    """`genotype`: ``Genotype(normal=[(op, source), ...], normal_concat=..., reduce=...)`` of DARTS, or its JSON; text
    that begins so is taken for it."""
    op_names: ClassVar[Mapping[str, str]] = {lowered: op for op, lowered in LOWERED.items()}
    alpha_edges: Mapping[str, int] = dict.fromkeys(ROLES, int(_STATES.sum()))
    # V1 and V2 are releases of the code, not its first and second order; each node's edges keep their published order.
    published: ClassVar[Mapping[str, str]] = {
        "DARTS_V1": (
            "|sep_conv_3x3~1|sep_conv_3x3~0|+|skip_connect~0|sep_conv_3x3~1|"
            "+|skip_connect~0|sep_conv_3x3~1|+|sep_conv_3x3~0|skip_connect~2| "
            "|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~0|"
            "+|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|avg_pool_3x3~0|"
        ),
        **dict.fromkeys(("DARTS_V2", "DARTS"), _DARTS_V2),
        "NASNet": (
            "|sep_conv_5x5~1|sep_conv_3x3~0|+|sep_conv_5x5~0|sep_conv_3x3~0|+|avg_pool_3x3~1|skip_connect~0|"
            "+|avg_pool_3x3~0|avg_pool_3x3~0|+|sep_conv_3x3~1|skip_connect~1| "
            "|sep_conv_5x5~1|sep_conv_7x7~0|+|max_pool_3x3~1|sep_conv_7x7~0|+|avg_pool_3x3~1|sep_conv_5x5~0|"
            "+|skip_connect~3|avg_pool_3x3~2|+|sep_conv_3x3~2|max_pool_3x3~1|:4,5,6"
        ),
        "AmoebaNet": (
            "|avg_pool_3x3~0|max_pool_3x3~1|+|sep_conv_3x3~0|sep_conv_5x5~2|+|sep_conv_3x3~0|avg_pool_3x3~3|"
            "+|sep_conv_3x3~1|skip_connect~1|+|skip_connect~0|avg_pool_3x3~1|:4,5,6 "
            "|avg_pool_3x3~0|sep_conv_3x3~1|+|max_pool_3x3~0|sep_conv_7x7~2|+|sep_conv_7x7~0|avg_pool_3x3~1|"
            "+|max_pool_3x3~0|max_pool_3x3~1|+|conv_7x1_1x7~0|sep_conv_3x3~5|:3,4,6"
        ),
    }

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return len(ROLES) * _NODES * 4

    @property
    def vocabulary(self) -> int:
        return _OPS_AT + len(_OPS)

    @property
    def tokens_per_step(self) -> int:
        return 2

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((len(ROLES), _NODES, 2, 2, self.vocabulary), dtype=bool)
        mask[..., 1, _OPS_AT:] = True
        for node, states in enumerate(_STATES):
            mask[:, node, 0, 0, 1 : 1 + states] = True
            mask[:, node, 1, 0, 1:states] = True
        return mask.reshape(self.length, self.vocabulary)

    @property
    def num_genotypes(self) -> int:
        per_cell = prod(k * (k - 1) * len(_OPS) ** 2 for k in _STATES.tolist())
        return int(per_cell ** len(ROLES))

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes >> len(ROLES) * _NODES  # the edges of a node always differ

    # -- genotypes ----------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Genotype:
        states = np.tile(_STATES, len(ROLES))
        choices = np.empty((len(states), 2, 2), dtype=np.int64)
        choices[..., 0] = rng.integers(0, np.stack([states, states - 1], axis=1))
        choices[..., 1] = rng.integers(0, len(_OPS), size=(len(states), 2))
        return self.canonical(self._genotype(_as_sources(choices)))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        table = self._table(genotype)
        while True:  # ends: half of the draws change an operation
            row, edge = int(rng.integers(len(table))), int(rng.integers(2))
            if rng.integers(2):
                table[row, edge, 1] = (table[row, edge, 1] + rng.integers(1, len(_OPS))) % len(_OPS)
                break
            free = np.setdiff1d(np.arange(_STATES[row % _NODES]), table[row, :, 0])
            if len(free):  # the first node reads both inputs, always
                table[row, edge, 0] = rng.choice(free)
                break
        return self.canonical(self._genotype(table))

    def encode(self, genotype: Genotype) -> Tokens:
        return (_as_choices(self._table(genotype)) + _TOKEN_SHIFT).reshape(-1)

    def decode(self, tokens: Tokens) -> Genotype:
        return self._genotype(_as_sources(self.legal(tokens).reshape(-1, 2, 2) - _TOKEN_SHIFT))

    def canonical(self, genotype: Genotype) -> Genotype:
        cells = []
        for cell in self._cells(genotype):
            nodes = [sorted(node, key=lambda edge: (edge[1], _KNOWN.index(edge[0]))) for node in cell.nodes]
            cells.append(DartsCell(tuple(edge for node in nodes for edge in node), cell.concat))
        return self._of_cells(tuple(cells))

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        tables = _as_sources(tokens.reshape(len(tokens), -1, 2, 2) - _TOKEN_SHIFT)
        swap = rng.integers(0, 2, size=tables.shape[:2], dtype=bool)
        tables = np.where(swap[..., None, None], tables[:, :, ::-1], tables)
        return (_as_choices(tables) + _TOKEN_SHIFT).reshape(tokens.shape)

    def lower(self, genotype: Genotype) -> ArchGraph:
        cells = []
        for role, cell in zip(ROLES, self._cells(genotype), strict=True):
            nodes = tuple(tuple(Edge(source, LOWERED[op]) for op, source in node) for node in cell.nodes)
            cells.append((role, Cell(INPUTS, nodes, cell.concat)))
        return ArchGraph(self.skeleton, tuple(cells))

    @property
    def primitives(self) -> tuple[str, ...]:
        return PRIMITIVES

    def derive(self, alphas: Sequence[Any]) -> Genotype:
        edges = [[edge for node in strongest(cell, PRIMITIVES) for edge in node] for cell in alphas]
        return self._of_cells(tuple(DartsCell(tuple(cell), all_nodes(_NODES)) for cell in edges))

    # -- text ---------------------------------------------------------------------------------------------

    @classmethod
    def dialect_of(cls, text: str) -> str | None:
        return "genotype" if is_literal(text, recurrent=False) else None

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "tokens":
            try:
                return self.decode(np.array([int(word) for word in text.split()], dtype=np.int64))
            except (ValueError, OverflowError) as error:
                raise GenotypeError(f"space {self.name}: tokens are {self.length} integers; {error}") from None
        return self._of_cells(_TEXT.read_genotype(text) if dialect == "genotype" else _TEXT.read(text))

    def notations(self, genotype: Genotype) -> dict[str, str]:
        return {"genotype": _TEXT.write_genotype(self._cells(genotype))}

    def _cells(self, genotype: Genotype) -> Cells:
        return _TEXT.read(genotype.key)

    def _of_cells(self, cells: Cells) -> Genotype:
        return Genotype(self.name, _TEXT.write(cells))

    def _genotype(self, table: Tokens) -> Genotype:
        """Of ``[8, 2, 2]``: node, edge, (source, operation index)."""
        edges = [(_OPS[op], source) for source, op in table.reshape(-1, 2).tolist()]
        half = len(edges) // len(ROLES)
        return self._of_cells(
            tuple(DartsCell(tuple(edges[at : at + half]), all_nodes(_NODES)) for at in range(0, len(edges), half))
        )

    def _table(self, genotype: Genotype) -> Tokens:
        """``[8, 2, 2]``: node, edge, (source, operation index).

        Raises:
            GenotypeError: it is none of those that are searched.
        """
        cells = self._cells(genotype)
        for role, cell in zip(ROLES, cells, strict=True):
            if reason := _not_searched(cell):
                raise GenotypeError(f"space {self.name}: the {role} cell is none that can be searched: {reason}")
        edges = [(source, _OPS.index(op)) for cell in cells for op, source in cell.edges]
        return np.array(edges, dtype=np.int64).reshape(-1, 2, 2)


def _not_searched(cell: DartsCell) -> str:
    """Why a cell has no tokens; empty: it has."""
    if len(cell.nodes) != _NODES:
        return f"it has {len(cell.nodes)} nodes, not {_NODES}"
    if not cell.is_whole:
        return f"its output is the nodes {[*cell.concat]}, not all"
    foreign = [op for op, _ in cell.edges if op not in _OPS]
    if foreign:
        return f"{foreign[0]} is none of {', '.join(_OPS)}"
    alike = [node for node, (first, second) in enumerate(cell.nodes) if first[1] == second[1]]
    return f"both edges of node {INPUTS + alike[0]} come from one state" if alike else ""


def _as_sources(choices: Tokens) -> Tokens:
    """``[..., 8, 2, 2]``: the second edge's choice among the states left becomes the state itself."""
    table = choices.copy()
    first, second = choices[..., 0, 0], choices[..., 1, 0]
    table[..., 1, 0] = np.where(second == first, _LAST, second)
    return table


def _as_choices(table: Tokens) -> Tokens:
    """``[..., 8, 2, 2]``: the inverse of `_as_sources`."""
    choices = table.copy()
    first, second = table[..., 0, 0], table[..., 1, 0]
    choices[..., 1, 0] = np.where(second == _LAST, first, second)
    return choices
