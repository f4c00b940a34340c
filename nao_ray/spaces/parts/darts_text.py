"""Texts of DARTS' cells: ours, which is a genotype's key, and that of DARTS' code, which users paste.

Ours: per node ``|op~source|op~source|``, nodes joined by ``+``, and ``:3,4,6`` where the states 3, 4, 6 alone are the
cell's output instead of all nodes; the normal cell, a space, the reduction cell. Theirs: ``Genotype(normal=[(
'sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=[2, 3, 4, 5])``, also with a name and
``=`` before it, or as a JSON object of these fields (`literals.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nao_ray.errors import GenotypeError
from nao_ray.spaces.parts.literals import MAX_TEXT, read_fields, shown, written_concat

ROLES: Mapping[str, str] = {"normal": "normal", "reduction": "reduce"}
"""Role of a cell -> its field in DARTS' genotypes."""
INPUTS = 2
MAX_NODES = 20
"""Of a cell; the published ones have four or five."""

_FIELDS = tuple(name for field in ROLES.values() for name in (field, f"{field}_concat"))
_NODE = re.compile(r"\|([^|~]*)~(\d{1,9})\|([^|~]*)~(\d{1,9})\|")


@dataclass(frozen=True, slots=True)
class DartsCell:
    """A cell in DARTS' words: two edges a node."""

    edges: tuple[tuple[str, int], ...]
    """(operation, state it reads) by node."""
    concat: tuple[int, ...]
    """States whose concatenation is the output, ascending."""

    @property
    def nodes(self) -> list[tuple[tuple[str, int], ...]]:
        """The two edges of each."""
        return [self.edges[at : at + 2] for at in range(0, len(self.edges), 2)]

    @property
    def is_whole(self) -> bool:
        """Whether all nodes are the output."""
        return self.concat == all_nodes(len(self.edges) // 2)


Cells = tuple[DartsCell, ...]
"""Normal, reduction."""


def all_nodes(count: int) -> tuple[int, ...]:
    """The states of `count` nodes."""
    return tuple(range(INPUTS, INPUTS + count))


class DartsText:
    """Reads and writes both notations.

    Args:
        space: the name for errors.
        ops: the operations there are.
    """

    def __init__(self, space: str, ops: Sequence[str]) -> None:
        self._space, self._ops = space, ops

    # -- ours ---------------------------------------------------------------------------------------------------

    def read(self, text: str) -> Cells:
        """Cells of a genotype's key.

        Raises:
            GenotypeError: it is malformed, or no cell.
        """
        words = text.split() if len(text) <= MAX_TEXT else []
        halves = [word.partition(":") for word in words]
        nodes = [[_NODE.fullmatch(node) for node in half.split("+")] for half, _, _ in halves]
        outputs = [_integers(output) if colon else () for _, colon, output in halves]
        if len(words) != len(ROLES) or not all(map(all, nodes)) or None in outputs:
            form = "|op~source|op~source|+...+|op~source|op~source|"
            raise GenotypeError(f"space {self._space}: expected {form} twice, for the normal and the reduction cell")
        found = [[node.groups() for node in cell if node] for cell in nodes]
        pairs = [[(g[at], int(g[at + 1])) for g in cell for at in (0, 2)] for cell in found]
        return self._cells(pairs, [output or None for output in outputs])

    @staticmethod
    def write(cells: Cells) -> str:
        """The key of a genotype."""
        texts = []
        for cell in cells:
            nodes = ["|" + "|".join(f"{op}~{source}" for op, source in node) + "|" for node in cell.nodes]
            texts.append("+".join(nodes) + ("" if cell.is_whole else ":" + ",".join(map(str, cell.concat))))
        return " ".join(texts)

    # -- DARTS' -------------------------------------------------------------------------------------------------

    def read_genotype(self, text: str) -> Cells:
        """Cells in the notation of DARTS' code.

        Raises:
            GenotypeError: it is malformed, or no cell.
        """
        try:
            fields = read_fields(text, _FIELDS)
        except ValueError as error:
            raise GenotypeError(f"space {self._space}: cannot read the DARTS genotype: {error}") from None
        missing = [field for field in ROLES.values() if field not in fields]
        if missing:
            raise GenotypeError(f"space {self._space}: the genotype has no field {missing[0]!r}")
        return self._cells(
            [fields[field] for field in ROLES.values()], [fields.get(f"{field}_concat") for field in ROLES.values()]
        )

    @staticmethod
    def write_genotype(cells: Cells) -> str:
        """The cells in the notation of DARTS' code, as that prints it."""
        fields = []
        for field, cell in zip(ROLES.values(), cells, strict=True):
            fields += [f"{field}={[*cell.edges]}", f"{field}_concat={written_concat(cell.concat)}"]
        return f"Genotype({', '.join(fields)})"

    # -- what is read ---------------------------------------------------------------------------------------------

    def _cells(self, cells: Sequence[Any], outputs: Sequence[Any]) -> Cells:
        return tuple(self._cell(role, pairs, output) for role, pairs, output in zip(ROLES, cells, outputs, strict=True))

    def _cell(self, role: str, pairs: Any, output: Any) -> DartsCell:  # noqa: ANN401 - from outside
        where = f"space {self._space}, {role} cell"
        count, odd = divmod(len(pairs), 2) if isinstance(pairs, list | tuple) else (0, 1)
        if odd or not 1 <= count <= MAX_NODES:
            got = f"{len(pairs)} edges" if isinstance(pairs, list | tuple) else shown(pairs)
            raise GenotypeError(f"{where}: expected a list of two edges a node, of 1 to {MAX_NODES} nodes, got {got}")
        edges = [
            self._edge(f"{where}, node {INPUTS + at // 2}", pair, INPUTS + at // 2) for at, pair in enumerate(pairs)
        ]
        concat = all_nodes(count) if output is None else output
        states = sorted(concat) if isinstance(concat, list | tuple) and all(type(s) is int for s in concat) else []
        if not states or len(set(states)) < len(states) or not set(states) <= {*all_nodes(count)}:
            legal = f"nodes of {[*all_nodes(count)]}, each at most once"
            raise GenotypeError(f"{where}: {ROLES[role]}_concat must be {legal}, got {shown(concat)}")
        return DartsCell(tuple(edges), tuple(states))

    def _edge(self, where: str, pair: Any, states: int) -> tuple[str, int]:  # noqa: ANN401
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise GenotypeError(f"{where}: an edge is a pair of operation and source, got {shown(pair)}")
        op, source = pair
        if op not in self._ops:
            raise GenotypeError(f"{where}: no operation {shown(op)}, choose of {', '.join(self._ops)}")
        if type(source) is not int or not 0 <= source < states:
            raise GenotypeError(f"{where}: source {shown(source)} is illegal, expected 0..{states - 1}")
        return op, source


def _integers(text: str) -> tuple[int, ...] | None:
    """``2,3`` -> (2, 3); None: it is no list of numbers."""
    words = text.split(",")
    return tuple(map(int, words)) if all(re.fullmatch(r"\d{1,4}", word, re.ASCII) for word in words) else None
