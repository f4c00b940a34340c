"""Texts of DARTS' cells: ours, which is a genotype's key, and that of DARTS' code, which users paste.

Ours: per node ``|op~source|op~source|``, nodes joined by ``+``, and ``:3,4,6`` where the states 3, 4, 6 alone are the
cell's output instead of all nodes; the normal cell, a space, the reduction cell. Theirs: ``Genotype(normal=[(
'sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=[2, 3, 4, 5])``, also with a name and
``=`` before it, or as a JSON object of these fields. It is looked at word by word, and read as literals; nothing is
evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nao_ray.errors import GenotypeError

ROLES: Mapping[str, str] = {"normal": "normal", "reduction": "reduce"}
"""Role of a cell -> its field in DARTS' genotypes."""
INPUTS = 2
MAX_NODES = 20
"""Of a cell; the published ones have four or five."""
MAX_TEXT = 10_000
"""Characters of a genotype in DARTS' notation; the published ones have under 600."""

_FIELDS = tuple(name for field in ROLES.values() for name in (field, f"{field}_concat"))
_ASSIGNED = re.compile(r"[A-Za-z_]\w*\s*=\s*(?=Genotype\b)")
_WORDS = re.compile(r"""'[\w ]*'|"[\w ]*"|\w+|[][(){},:=]|\s+""", re.ASCII)
_NODE = re.compile(r"\|([^|~]*)~(\d{1,9})\|([^|~]*)~(\d{1,9})\|")
_BROKEN = (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
"""What Python's parser and its literals raise of texts that it was not made for."""


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
            fields = _fields(text)
        except _BROKEN as error:
            what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise GenotypeError(f"space {self._space}: cannot read the DARTS genotype: {what}") from None
        missing = [field for field in ROLES.values() if field not in fields]
        if missing:
            raise GenotypeError(f"space {self._space}: the genotype has no field {missing[0]!r}")
        unknown = [name for name in fields if name not in _FIELDS]
        if unknown:
            raise GenotypeError(f"space {self._space}: the genotype has a field {unknown[0]!r}, expected {_FIELDS}")
        return self._cells(
            [fields[field] for field in ROLES.values()], [fields.get(f"{field}_concat") for field in ROLES.values()]
        )

    @staticmethod
    def write_genotype(cells: Cells) -> str:
        """The cells in the notation of DARTS' code, as that prints it."""
        fields = []
        for field, cell in zip(ROLES.values(), cells, strict=True):
            first, last = cell.concat[0], cell.concat[-1]
            is_range = list(cell.concat) == [*range(first, last + 1)]
            concat = f"range({first}, {last + 1})" if is_range else str([*cell.concat])
            fields += [f"{field}={[*cell.edges]}", f"{field}_concat={concat}"]
        return f"Genotype({', '.join(fields)})"

    # -- what is read ---------------------------------------------------------------------------------------------

    def _cells(self, cells: Sequence[Any], outputs: Sequence[Any]) -> Cells:
        return tuple(self._cell(role, pairs, output) for role, pairs, output in zip(ROLES, cells, outputs, strict=True))

    def _cell(self, role: str, pairs: Any, output: Any) -> DartsCell:  # noqa: ANN401 - from outside
        where = f"space {self._space}, {role} cell"
        count, odd = divmod(len(pairs), 2) if isinstance(pairs, list | tuple) else (0, 1)
        if odd or not 1 <= count <= MAX_NODES:
            got = f"{len(pairs)} edges" if isinstance(pairs, list | tuple) else _shown(pairs)
            raise GenotypeError(f"{where}: expected a list of two edges a node, of 1 to {MAX_NODES} nodes, got {got}")
        edges = [
            self._edge(f"{where}, node {INPUTS + at // 2}", pair, INPUTS + at // 2) for at, pair in enumerate(pairs)
        ]
        concat = all_nodes(count) if output is None else output
        states = sorted(concat) if isinstance(concat, list | tuple) and all(type(s) is int for s in concat) else []
        if not states or len(set(states)) < len(states) or not set(states) <= {*all_nodes(count)}:
            legal = f"nodes of {[*all_nodes(count)]}, each at most once"
            raise GenotypeError(f"{where}: {ROLES[role]}_concat must be {legal}, got {_shown(concat)}")
        return DartsCell(tuple(edges), tuple(states))

    def _edge(self, where: str, pair: Any, states: int) -> tuple[str, int]:  # noqa: ANN401
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise GenotypeError(f"{where}: an edge is a pair of operation and source, got {_shown(pair)}")
        op, source = pair
        if op not in self._ops:
            raise GenotypeError(f"{where}: no operation {_shown(op)}, choose of {', '.join(self._ops)}")
        if type(source) is not int or not 0 <= source < states:
            raise GenotypeError(f"{where}: source {_shown(source)} is illegal, expected 0..{states - 1}")
        return op, source


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _integers(text: str) -> tuple[int, ...] | None:
    """``2,3`` -> (2, 3); None: it is no list of numbers."""
    words = text.split(",")
    return tuple(map(int, words)) if all(re.fullmatch(r"\d{1,4}", word, re.ASCII) for word in words) else None


def _fields(text: str) -> dict[str, Any]:
    """The fields of a genotype as they stand there."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text):,} characters, at most {MAX_TEXT:,} are read")
    text = _ASSIGNED.sub("", text.strip(), count=1) if _ASSIGNED.match(text.strip()) else text.strip()
    _check_words(text)
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.Call):
        if not isinstance(tree.func, ast.Name) or tree.func.id != "Genotype" or tree.args:
            raise ValueError("expected Genotype(normal=..., normal_concat=..., reduce=..., reduce_concat=...)")
        items = [(word.arg, word.value) for word in tree.keywords]
    elif isinstance(tree, ast.Dict):
        items = [(ast.literal_eval(key), value) for key, value in zip(tree.keys, tree.values, strict=True) if key]
    else:
        raise ValueError("expected Genotype(...), or a JSON object")
    fields: dict[str, Any] = {}
    for name, value in items:
        if not isinstance(name, str) or name in fields:
            raise ValueError(f"the field {name!r} is no name, or stands there twice")
        fields[name] = _literal(value)
    return fields


def _check_words(text: str) -> None:
    """Refuse what has no place in a genotype, before Python's parser sees it; so no other expression comes to it."""
    at = 0
    known = {*_FIELDS, "Genotype", "range"}
    while at < len(text):
        word = _WORDS.match(text, at)
        found = word.group() if word else text[at]
        if not word or not (found[0] in "'\"[](){},:= \t\r\n" or found in known or re.fullmatch(r"\d{1,4}", found)):
            raise ValueError(f"unexpected {found[:40]!r} at character {at + 1}; fields are {', '.join(_FIELDS)}")
        at = word.end()


def _literal(value: ast.expr) -> Any:  # noqa: ANN401
    """A literal, or ``range(a, b)`` of literals."""
    if not isinstance(value, ast.Call):
        try:
            return ast.literal_eval(value)
        except ValueError:
            raise ValueError(f"{_shown(ast.unparse(value))} is no list of literals") from None
    ends = [ast.literal_eval(argument) for argument in value.args]
    named_range = isinstance(value.func, ast.Name) and value.func.id == "range" and not value.keywords
    if not named_range or len(ends) not in (1, 2) or any(type(end) is not int for end in ends):
        raise ValueError("a list is written [2, 3] or range(2, 4)")
    return [*range(*ends)]
