"""Texts of recurrent cells: ours, which is a genotype's key, that of DARTS' code, and numbers with a table of ids.

Ours: per node ``source:activation``, joined by spaces; at the end ``out=7,8`` where the mean of the states 7 and 8 is
the cell's output instead of that of all nodes. State 0 is made of input and hidden state, node i is state i.
Theirs: ``Genotype(recurrent=[('tanh', 0), ...], concat=range(1, 9))``, also as JSON (`literals.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Cell, Edge
from nao_ray.spaces.parts.literals import MAX_TEXT, read_fields, shown, written_concat

MAX_NODES = 50
"""Of a cell; the published ones have 8 or 11."""

_NODE = re.compile(r"(\d{1,4}):(\S+)", re.ASCII)
_OUT = re.compile(r"out=(\d{1,4}(?:,\d{1,4})*)", re.ASCII)
_FIELDS = ("recurrent", "concat")


def all_nodes(count: int) -> tuple[int, ...]:
    """The states of `count` nodes."""
    return tuple(range(1, count + 1))


class RecurrentText:
    """Reads and writes cells.

    Args:
        space: the name for errors.
        activations: those there are.
    """

    def __init__(self, space: str, activations: Sequence[str]) -> None:
        self._space, self._activations = space, activations

    def read(self, text: str) -> Cell:
        """The cell of a genotype's key.

        Raises:
            GenotypeError: it is malformed, or no cell.
        """
        words = text.split() if len(text) <= MAX_TEXT else []
        out = _OUT.fullmatch(words[-1]) if words else None
        found = [_NODE.fullmatch(word) for word in (words[:-1] if out else words)]
        if not found or not all(found):
            raise GenotypeError(f"space {self._space}: expected source:activation for each node, as 0:tanh 1:relu")
        pairs = [(node[2], int(node[1])) for node in found if node]
        return self._cell(pairs, [int(state) for state in out[1].split(",")] if out else None)

    @staticmethod
    def write(cell: Cell) -> str:
        """The key of a genotype."""
        words = [f"{edge.source}:{edge.op}" for (edge,) in cell.nodes]
        is_whole = cell.output == all_nodes(len(cell.nodes))
        return " ".join(words if is_whole else [*words, f"out={','.join(map(str, cell.output))}"])

    def read_genotype(self, text: str) -> Cell:
        """The cell in the notation of DARTS' code.

        Raises:
            GenotypeError: it is malformed, or no cell.
        """
        try:
            fields = read_fields(text, _FIELDS)
        except ValueError as error:
            raise GenotypeError(f"space {self._space}: cannot read the DARTS genotype: {error}") from None
        if "recurrent" not in fields:
            raise GenotypeError(f"space {self._space}: the genotype has no field 'recurrent'")
        return self._cell(fields["recurrent"], fields.get("concat"))

    @staticmethod
    def write_genotype(cell: Cell) -> str:
        """The cell in the notation of DARTS' code, as that prints it."""
        pairs = [(edge.op, edge.source) for (edge,) in cell.nodes]
        return f"Genotype(recurrent={pairs}, concat={written_concat(cell.output)})"

    def read_ids(self, text: str, table: Sequence[str], output: Sequence[int] | None = None) -> Cell:
        """The cell of numbers, ``source id`` per node; an id is an index of the `table` of activations.

        Raises:
            GenotypeError: they are none, or no cell.
        """
        numbers = self.integers(text)
        if len(numbers) % 2 or not numbers:
            raise GenotypeError(f"space {self._space}: expected source and activation of each node, got {len(numbers)} "
                                "numbers")  # fmt: skip
        for node, number in enumerate(numbers[1::2], 1):
            if not 0 <= number < len(table):
                known = ", ".join(f"{index} {name}" for index, name in enumerate(table))
                raise GenotypeError(f"space {self._space}, node {node}: no activation {number}, choose of {known}")
        return self._cell([(table[number], source) for source, number in zip(numbers[::2], numbers[1::2], strict=True)],
                          output)  # fmt: skip

    @staticmethod
    def write_ids(cell: Cell, table: Sequence[str]) -> str:
        """As `read_ids` reads them; which states are the output is not told."""
        return " ".join(f"{edge.source} {table.index(edge.op)}" for (edge,) in cell.nodes)

    def integers(self, text: str) -> list[int]:
        """Numbers between spaces or commas.

        Raises:
            GenotypeError: a word is none.
        """
        words = text.replace(",", " ").split() if len(text) <= MAX_TEXT else []
        wrong = next((word for word in words if not re.fullmatch(r"-?\d{1,4}", word, re.ASCII)), None)
        if wrong is not None or not words:
            raise GenotypeError(f"space {self._space}: expected integers, got {shown(wrong or text)}")
        return [int(word) for word in words]

    def _cell(self, pairs: Any, output: Any) -> Cell:  # noqa: ANN401 - from outside
        where = f"space {self._space}"
        count = len(pairs) if isinstance(pairs, list | tuple) else 0
        if not 1 <= count <= MAX_NODES:
            got = f"{count} nodes" if isinstance(pairs, list | tuple) else shown(pairs)
            raise GenotypeError(f"{where}: expected a list of 1 to {MAX_NODES} nodes, got {got}")
        nodes = tuple((self._edge(f"{where}, node {node}", pair, node),) for node, pair in enumerate(pairs, 1))
        concat = all_nodes(count) if output is None else output
        states = sorted(concat) if isinstance(concat, list | tuple) and all(type(s) is int for s in concat) else []
        if not states or len(set(states)) < len(states) or not 0 <= states[0] <= states[-1] <= count:
            raise GenotypeError(f"{where}: the output must be states of 0..{count}, each once, got {shown(concat)}")
        return Cell(1, nodes, tuple(states))

    def _edge(self, where: str, pair: Any, states: int) -> Edge:  # noqa: ANN401
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise GenotypeError(f"{where}: expected a pair of activation and source, got {shown(pair)}")
        op, source = pair
        if op not in self._activations:
            raise GenotypeError(f"{where}: no activation {shown(op)}, choose of {', '.join(self._activations)}")
        if type(source) is not int or not 0 <= source < states:
            raise GenotypeError(f"{where}: source {shown(source)} is illegal, expected 0..{states - 1}")
        return Edge(source, op)
