"""The convolutional cells of DARTS: a normal and a reduction cell of four nodes with two edges each.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, without `none`, which no
derived cell has. States: 0 and 1 the outputs of the cell before the previous one and of the previous one, 2.. the
nodes. The two edges of a node come from different states, and the output is the concatenation of all nodes. The cells
called NASNet and AmoebaNet there are outside: five nodes, equal sources, other operations, an output of some nodes.

Legend: `L` = 32 tokens, (source, op) of 16 edges; `k` states that a node may read.

Text: per node ``|op~source|op~source|``, nodes joined by ``+``, normal and reduction cell by a space. Tokens: 0 start,
1..4 a source, then the operations. The first edge's source is token - 1. The second edge has one choice less, 0..k-2;
where it would repeat the first edge's source it means state k-1: so every masked sequence has different sources, and
every pair of them has one sequence. The two edges commute: in canonical form they ascend by source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens
from nao_ray.spaces.parts.relaxed import strongest

_NODES, _INPUTS, _OPS_AT = 4, 2, 6
_TOKEN_SHIFT: Tokens = np.array([1, _OPS_AT], dtype=np.int64)
_STATES = np.arange(_INPUTS, _INPUTS + _NODES)  # k of each node
_ROLES = {"normal": "normal", "reduction": "reduce"}
"""Role -> its field in DARTS' genotypes."""
_LAST = np.tile(_STATES - 1, len(_ROLES))  # the last state each of the 8 nodes may read
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
_NODE = re.compile(r"\|([^|~]*)~(\d{1,9})\|([^|~]*)~(\d{1,9})\|")


class DartsCnn(SearchSpace[SpaceConfig]):
    """Pools 3, skip connection, separable and dilated separable convolutions 3 and 5."""

    name: ClassVar[str] = "darts_cnn"
    skeleton: ClassVar[str] = "darts"
    dialects: ClassVar[tuple[str, ...]] = ("darts_cnn", "genotype", "tokens")
    """`genotype`: ``Genotype(normal=[(op, source), ...], normal_concat=..., reduce=...)`` of DARTS, or its JSON."""
    op_names: ClassVar[Mapping[str, str]] = {lowered: op for op, lowered in LOWERED.items()}
    alpha_edges: ClassVar[Mapping[str, int]] = dict.fromkeys(_ROLES, int(_STATES.sum()))
    # V1 and V2 are releases of the code, not its first and second order; each node's edges keep their published order.
    published: ClassVar[Mapping[str, str]] = {
        "DARTS_V1": (
            "|sep_conv_3x3~1|sep_conv_3x3~0|+|skip_connect~0|sep_conv_3x3~1|"
            "+|skip_connect~0|sep_conv_3x3~1|+|sep_conv_3x3~0|skip_connect~2| "
            "|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~0|"
            "+|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|avg_pool_3x3~0|"
        ),
        "DARTS_V2": (
            "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|"
            "+|sep_conv_3x3~1|skip_connect~0|+|skip_connect~0|dil_conv_3x3~2| "
            "|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~1|"
            "+|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|max_pool_3x3~1|"
        ),
    }

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return len(_ROLES) * _NODES * 4

    @property
    def vocabulary(self) -> int:
        return _OPS_AT + len(_OPS)

    @property
    def tokens_per_step(self) -> int:
        return 2

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((len(_ROLES), _NODES, 2, 2, self.vocabulary), dtype=bool)
        mask[..., 1, _OPS_AT:] = True
        for node, states in enumerate(_STATES):
            mask[:, node, 0, 0, 1 : 1 + states] = True
            mask[:, node, 1, 0, 1:states] = True
        return mask.reshape(self.length, self.vocabulary)

    @property
    def num_genotypes(self) -> int:
        per_cell = prod(k * (k - 1) * len(_OPS) ** 2 for k in _STATES.tolist())
        return int(per_cell ** len(_ROLES))

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes >> len(_ROLES) * _NODES  # the edges of a node always differ

    # -- genotypes ----------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Genotype:
        states = np.tile(_STATES, len(_ROLES))
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
        table = self._table(genotype)
        order = np.argsort(table[..., 0], axis=1)
        return self._genotype(np.take_along_axis(table, order[..., None], axis=1))

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        tables = _as_sources(tokens.reshape(len(tokens), -1, 2, 2) - _TOKEN_SHIFT)
        swap = rng.integers(0, 2, size=tables.shape[:2], dtype=bool)
        tables = np.where(swap[..., None, None], tables[:, :, ::-1], tables)
        return (_as_choices(tables) + _TOKEN_SHIFT).reshape(tokens.shape)

    def lower(self, genotype: Genotype) -> ArchGraph:
        table = self._table(genotype).reshape(len(_ROLES), _NODES, 2, 2).tolist()
        cells = []
        for role, rows in zip(_ROLES, table, strict=True):
            nodes = tuple(tuple(Edge(source, LOWERED[_OPS[op]]) for source, op in node) for node in rows)
            cells.append((role, Cell(_INPUTS, nodes, output=tuple(range(_INPUTS, _INPUTS + _NODES)))))
        return ArchGraph(self.skeleton, tuple(cells))

    @property
    def primitives(self) -> tuple[str, ...]:
        return PRIMITIVES

    def derive(self, alphas: Sequence[Any]) -> Genotype:
        return self._from_pairs([[pair for node in strongest(cell, PRIMITIVES) for pair in node] for cell in alphas])

    # -- text ---------------------------------------------------------------------------------------------

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "tokens":
            try:
                return self.decode(np.array([int(word) for word in text.split()], dtype=np.int64))
            except (ValueError, OverflowError) as error:
                raise GenotypeError(f"space {self.name}: tokens are {self.length} integers; {error}") from None
        if dialect == "genotype":
            return self._from_pairs(self._read_genotype(text))
        cells = [[_NODE.fullmatch(node) for node in cell.split("+")] for cell in text.split()]
        if [len(cell) for cell in cells] != [_NODES] * len(_ROLES) or not all(map(all, cells)):
            form = "+".join(["|op~source|op~source|"] * _NODES)
            raise GenotypeError(f"space {self.name}: expected {form} twice, for the normal and the reduction cell")
        found = [[node.groups() for node in cell if node] for cell in cells]
        return self._from_pairs([[(g[i], int(g[i + 1])) for g in cell for i in (0, 2)] for cell in found])

    def _read_genotype(self, text: str) -> list[list[Any]]:
        """The pairs ``[op, source]`` of both cells, as they stand there."""
        try:
            tree = ast.parse(text, mode="eval").body
            if isinstance(tree, ast.Call):
                fields = {word.arg: _literal(word.value) for word in tree.keywords}
            else:
                fields = ast.literal_eval(tree)
            for field in _ROLES.values():
                concat = fields.get(f"{field}_concat", [*_STATES])
                if len(concat) != _NODES or sorted(concat) != [*_STATES]:
                    raise ValueError(f"{field}_concat must be the nodes {_STATES.tolist()}, got {concat}")
            return [[*fields[field]] for field in _ROLES.values()]
        except KeyError as error:
            raise GenotypeError(f"space {self.name}: the genotype has no field {error}") from None
        except (
            SyntaxError,
            ValueError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            MemoryError,
        ) as error:
            raise GenotypeError(f"space {self.name}: cannot read the DARTS genotype: {error}") from None

    def _from_pairs(self, cells: Sequence[Sequence[Any]]) -> Genotype:
        """The genotype of both cells' pairs ``(op, source)``."""
        numbers: list[list[list[int]]] = []
        for role, pairs in zip(_ROLES, cells, strict=True):
            if len(pairs) != 2 * _NODES:
                raise GenotypeError(f"space {self.name}, {role} cell: expected {2 * _NODES} edges, got {len(pairs)}")
            for node, states in enumerate(_STATES.tolist()):
                where = f"space {self.name}, {role} cell, node {states}"
                edges = [self._edge(where, pair, states) for pair in pairs[2 * node : 2 * node + 2]]
                if edges[0][0] == edges[1][0]:
                    raise GenotypeError(
                        f"{where}: both edges come from state {edges[0][0]}, expected two different ones"
                    )
                numbers.append(edges)
        return self._genotype(np.array(numbers))

    @staticmethod
    def _edge(where: str, pair: Any, states: int) -> list[int]:  # noqa: ANN401
        """(source, operation index) of a pair ``(op, source)`` from outside."""
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise GenotypeError(f"{where}: an edge is a pair of operation and source, got {pair!r}")
        op, source = pair
        if op not in _OPS:
            raise GenotypeError(f"{where}: no operation {op!r}, choose of {', '.join(_OPS)}")
        if type(source) is not int or not 0 <= source < states:
            raise GenotypeError(f"{where}: source {source!r} is illegal, expected 0..{states - 1}")
        return [source, _OPS.index(op)]

    def _genotype(self, table: Tokens) -> Genotype:
        nodes = ["|" + "|".join(f"{_OPS[op]}~{source}" for source, op in node) + "|" for node in table.tolist()]
        return Genotype(self.name, " ".join("+".join(nodes[at : at + _NODES]) for at in (0, _NODES)))

    def _table(self, genotype: Genotype) -> Tokens:
        """``[8, 2, 2]``: node, edge, (source, operation index)."""
        edges = re.findall(r"(\w+)~(\d)", genotype.key)
        return np.array([(int(source), _OPS.index(op)) for op, source in edges], dtype=np.int64).reshape(-1, 2, 2)


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


def _literal(value: ast.expr) -> Any:  # noqa: ANN401
    """A literal, or ``range(a, b)`` of literals."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        return range(*[ast.literal_eval(argument) for argument in value.args])
    return ast.literal_eval(value)
