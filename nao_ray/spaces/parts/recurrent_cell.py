"""Spaces of recurrent cells: each node applies an activation to one earlier state; a tree that grows from state 0.

NAO, ENAS and DARTS search the same cells (see `networks/recurrent.py` for what they compute).

Legend: `n` nodes, `A` activations, `L` = 2n tokens.

Text: see `recurrent_text.py`. Tokens: 0 start, 1..n a source + 1, then the activations.

Twins: nodes are numbers of one's choice as long as a node's source comes before it, and each node has weights of its
own. So two cells are one architecture if they are one tree, whose nodes have activations and whose branches have no
order. Its canonical form numbers the nodes from the root outwards, and those of one source by what grows from them.

Shared weights know a node by its number. What searches train and score with them are canonical forms, whose sources
ascend: a late node hardly ever reads an early state (of 11 nodes the last one practically never reads 0, 1 or 2), and
the weights of its row are used for other sources than in the published codes, which score the numbers that were drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from math import factorial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens
from nao_ray.spaces.parts.literals import is_literal
from nao_ray.spaces.parts.operations import check_operations
from nao_ray.spaces.parts.recurrent_text import MAX_NODES, RecurrentText, all_nodes

ROLE = "recurrent"
ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")


class RecurrentConfig(SpaceConfig):
    """Settings of a space of recurrent cells."""

    nodes: int = Field(default=8, ge=1, le=MAX_NODES)
    """n."""
    output: Literal["all", "loose_ends"] = "all"
    """States whose mean is the cell's output: all nodes, or those that no node reads."""


C = TypeVar("C", bound=RecurrentConfig)


class RecurrentSpace(SearchSpace[C]):
    """Cells of n nodes over `activations`; a concrete space gives names, ids and published cells.

    Cells with another number of nodes or another output are read, drawn, built and trained, but not searched: they have
    no tokens and no mutants.

    Raises:
        ConfigError: an activation is unknown or given twice.
    """

    Config: ClassVar[type[SpaceConfig]] = RecurrentConfig
    skeleton: ClassVar[str] = "recurrent"
    activations: ClassVar[tuple[str, ...]] = ACTIVATIONS
    """At least two, in the order of the tokens."""
    ids: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Activations by their ids, of each dialect of ``source id`` per node."""
    dialects: ClassVar[tuple[str, ...]] = ("names", "genotype", "tokens")
    """`genotype`: that of DARTS' code; text that begins so is taken for it."""

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        check_operations(self, self.activations, ACTIVATIONS, "activations")
        self.nodes: int = self.config.nodes
        self.text = RecurrentText(self.name, self.activations)

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return 2 * self.nodes

    @property
    def vocabulary(self) -> int:
        return 1 + self.nodes + len(self.activations)

    @property
    def tokens_per_step(self) -> int:
        return 2

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((self.nodes, 2, self.vocabulary), dtype=bool)
        mask[:, 0, 1 : 1 + self.nodes] = np.tri(self.nodes, dtype=bool)
        mask[:, 1, 1 + self.nodes :] = True
        return mask.reshape(self.length, self.vocabulary)

    @property
    def _token_shift(self) -> Tokens:
        return np.array([1, 1 + self.nodes], dtype=np.int64)

    @property
    def num_genotypes(self) -> int:
        return int(factorial(self.nodes) * len(self.activations) ** self.nodes)

    @property
    def num_architectures(self) -> int:
        return num_trees(self.nodes, len(self.activations))

    # -- genotypes ----------------------------------------------------------------------------------------

    @property
    def _choices(self) -> Tokens:
        """``[n, 2]``: how many sources and activations a node may have."""
        return np.stack([np.arange(1, self.nodes + 1), np.full(self.nodes, len(self.activations))], axis=1)

    def sample(self, rng: np.random.Generator) -> Genotype:
        return self.canonical(self._genotype(rng.integers(0, self._choices)))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        origin = self.canonical(genotype)
        choices = self._choices
        free = np.argwhere(choices > 1)
        while True:  # ends: another activation of a node is another tree
            table = self._table(origin)
            node, what = free[rng.integers(len(free))]
            table[node, what] = (table[node, what] + rng.integers(1, choices[node, what])) % choices[node, what]
            mutant = self.canonical(self._genotype(table))
            if mutant != origin:
                return mutant

    def encode(self, genotype: Genotype) -> Tokens:
        return (self._table(genotype) + self._token_shift).reshape(-1)

    def decode(self, tokens: Tokens) -> Genotype:
        return self._genotype(self.legal(tokens).reshape(-1, 2) - self._token_shift)

    def canonical(self, genotype: Genotype) -> Genotype:
        return Genotype(self.name, self.text.write(_renumbered(self.text.read(genotype.key), self.activations)))

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        count = len(tokens)
        table = tokens.reshape(count, self.nodes, 2) - self._token_shift
        sources, rows = table[..., 0], np.arange(count)
        heights = np.zeros((count, self.nodes + 1))  # each above that of its source: any order of them is a legal one
        for node in range(1, self.nodes + 1):
            below = heights[rows, sources[:, node - 1]]
            heights[:, node] = below + (1 - below) * rng.random(count)
        order = np.argsort(heights, axis=1, kind="stable")  # the root, of height 0, stays first
        place = np.argsort(order, axis=1, kind="stable")
        moved = np.take_along_axis(table, order[:, 1:, None] - 1, axis=1)
        moved[..., 0] = np.take_along_axis(place, moved[..., 0], axis=1)
        return (moved + self._token_shift).reshape(tokens.shape)

    def lower(self, genotype: Genotype) -> ArchGraph:
        return ArchGraph(self.skeleton, ((ROLE, self.text.read(genotype.key)),))

    # -- text ---------------------------------------------------------------------------------------------

    @classmethod
    def dialect_of(cls, text: str) -> str | None:
        return "genotype" if is_literal(text, recurrent=True) else None

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "tokens":
            return self.decode(np.array(self.text.integers(text), dtype=np.int64))
        if dialect in self.ids:
            return self._searched(self.text.read_ids(text, self.ids[dialect]))
        if dialect == "genotype":
            return Genotype(self.name, self.text.write(self.text.read_genotype(text)))
        if self.ids and text.replace(",", " ").replace(" ", "").isdigit():
            raise GenotypeError(
                f"space {self.name}: activations have other ids in other code: say whose they are, "
                f"{' or '.join(f'--dialect {name}' for name in self.ids)}; or write 0:tanh 1:relu ..."
            )
        return Genotype(self.name, self.text.write(self.text.read(text)))

    def notations(self, genotype: Genotype) -> dict[str, str]:
        cell = self.text.read(genotype.key)
        told = {"genotype": self.text.write_genotype(cell)}
        if cell.output == self._output(cell.nodes):  # numbers do not tell it
            told |= {dialect: self.text.write_ids(cell, table) for dialect, table in self.ids.items()}
        return told

    def _output(self, nodes: Sequence[tuple[Edge, ...]]) -> tuple[int, ...]:
        """Of a cell that is searched."""
        if self.config.output == "all":
            return all_nodes(len(nodes))
        read = {edge.source for node in nodes for edge in node}
        return tuple(state for state in range(len(nodes) + 1) if state not in read)

    def _searched(self, cell: Cell) -> Genotype:
        """With the output of this space."""
        return Genotype(self.name, self.text.write(Cell(1, cell.nodes, self._output(cell.nodes))))

    def _genotype(self, table: Tokens) -> Genotype:
        """Of ``[n, 2]``: source, index of the activation."""
        nodes = tuple((Edge(source, self.activations[index]),) for source, index in table.tolist())
        return self._searched(Cell(1, nodes, ()))

    def _table(self, genotype: Genotype) -> Tokens:
        """``[n, 2]``: source, index of the activation.

        Raises:
            GenotypeError: it is none of those that are searched.
        """
        cell = self.text.read(genotype.key)
        if len(cell.nodes) != self.nodes:
            raise GenotypeError(
                f"space {self.name}: the cell is none that can be searched: it has {len(cell.nodes)} nodes, not "
                f"{self.nodes}; the space can be told so, nodes: {len(cell.nodes)}"
            )
        if cell.output != self._output(cell.nodes):
            wanted = "all nodes" if self.config.output == "all" else "its loose ends"
            raise GenotypeError(
                f"space {self.name}: the cell is none that can be searched: its output is the states {[*cell.output]}, "
                f"not {wanted}"
            )
        return np.array([(edge.source, self.activations.index(edge.op)) for (edge,) in cell.nodes], dtype=np.int64)


def _renumbered(cell: Cell, activations: Sequence[str]) -> Cell:
    """The cell in its canonical form."""
    branches: dict[int, list[int]] = defaultdict(list)
    for node, (edge,) in enumerate(cell.nodes, 1):
        branches[edge.source].append(node)
    codes: dict[int, tuple[Any, ...]] = {}
    for node in range(len(cell.nodes), 0, -1):  # what grows from a node has larger numbers
        branches[node].sort(key=codes.__getitem__)
        op = activations.index(cell.nodes[node - 1][0].op)
        codes[node] = (op, node not in cell.output, *(codes[branch] for branch in branches[node]))
    branches[0].sort(key=codes.__getitem__)
    order, nodes = [0], []
    for number, old in enumerate(order):  # which grows as it is read
        order += branches[old]
        nodes += [(Edge(number, cell.nodes[branch - 1][0].op),) for branch in branches[old]]
    output = sorted(order.index(state) for state in cell.output)
    return Cell(1, tuple(nodes), tuple(output))


@lru_cache
def num_trees(nodes: int, kinds: int) -> int:
    """Trees of `nodes` nodes besides the root, each of one of `kinds`; branches have no order (Euler's transform)."""
    trees = [0]  # with k nodes of a kind, the root among them
    forests = [1]  # of k nodes: what grows from one root
    for k in range(1, nodes + 1):
        trees.append(kinds * forests[k - 1])
        weights = [sum(d * trees[d] for d in range(1, j + 1) if j % d == 0) for j in range(1, k + 1)]
        forests.append(sum(weights[j - 1] * forests[k - j] for j in range(1, k + 1)) // k)
    return forests[nodes]
