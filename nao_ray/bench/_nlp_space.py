"""The recurrent cells of NAS-Bench-NLP, as a search space: what a predictor has to know of them.

Klyuchnikov et al., "NAS-Bench-NLP", arXiv 2006.07116: a recipe says of each node what it does with the input x, with
hidden states of before (`h_prev_0`, ...) and with other nodes; nodes called `h_new_0`, ... are the next hidden states.
There are weights in `linear` alone. None of them is a cell of `nao_rnn`, whose nodes are highway units of one source,
without products, sums or a second hidden state; so they are read and described here, and not built.

Legend: `n` nodes, `L` = 5n tokens: per node which hidden state it is, what it does, and three sources.

Nodes of a recipe are ordered level by level, and there by what they do; other orders are cells of their own here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens

NODES, HIDDEN, SOURCES = 15, 5, 3
OPS: Mapping[str, tuple[str, ...]] = {
    "linear": ("linear",) * SOURCES,
    "elementwise_sum": ("sum",) * SOURCES,
    "elementwise_prod": ("product",) * SOURCES,
    "blend": ("gate", "open", "closed"),
    "activation_tanh": ("tanh",),
    "activation_sigm": ("sigmoid",),
    "activation_leaky_relu": ("leaky_relu",),
}
"""By what a node does, the operations on its edges."""
_OPS, _PER_NODE, _INPUTS = list(OPS), 2 + SOURCES, 1 + HIDDEN
_ROLES, _CHOICES = 1 + HIDDEN, 1 + len(OPS)
_STATE = re.compile(r"h_new_([0-4])")
# A table has 0 where nothing is: no hidden state, no node, no source; a source is x, a hidden state or a node.
_SHIFT = np.array([1, 1 + _ROLES, *[1 + _ROLES + _CHOICES] * SOURCES], dtype=np.int64)


class NlpRecipes(SearchSpace[SpaceConfig]):
    """Cells of at most 15 nodes and 5 hidden states."""

    name: ClassVar[str] = "nas_bench_nlp"
    dialects: ClassVar[tuple[str, ...]] = ("tokens", "recipe")
    """`recipe`: the benchmark's JSON."""

    @property
    def length(self) -> int:
        return _PER_NODE * NODES

    @property
    def vocabulary(self) -> int:
        return 1 + _ROLES + _CHOICES + 1 + _INPUTS + NODES - 1

    @property
    def tokens_per_step(self) -> int:
        return _PER_NODE

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((NODES, _PER_NODE, self.vocabulary), dtype=bool)
        mask[:, 0, 1 : 1 + _ROLES] = True
        mask[:, 1, _SHIFT[1] : _SHIFT[1] + _CHOICES] = True
        for node in range(NODES):
            mask[node, 2:, _SHIFT[2] : _SHIFT[2] + 1 + _INPUTS + node] = True
        return mask.reshape(self.length, self.vocabulary)

    @property
    def num_genotypes(self) -> int:
        return int(np.prod(self.token_mask.sum(axis=1).astype(object)))

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Not uniform, as most strings are no cells: nodes in a row, the last ones the hidden states."""
        hidden, nodes = int(rng.integers(1, 4)), int(rng.integers(3, NODES - 1))
        table = np.zeros((NODES, _PER_NODE), dtype=np.int64)
        for node in range(nodes):
            op = int(rng.integers(len(OPS)))
            there = [0, *range(1, 1 + hidden), *range(_INPUTS, _INPUTS + node)]
            wanted = int(rng.integers(2, 1 + SOURCES)) if _OPS[op] == "linear" else _arity(_OPS[op])
            chosen = rng.permutation(there)[:wanted]
            table[node, 1] = 1 + op
            table[node, 2 : 2 + len(chosen)] = 1 + chosen
        table[nodes - hidden : nodes, 0] = 1 + rng.permutation(hidden)
        return self._genotype(table)

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        tokens, mask = self.encode(genotype), self.token_mask
        position = int(rng.choice(np.flatnonzero(mask.sum(axis=1) > 1)))
        others = np.flatnonzero(mask[position])
        tokens[position] = rng.choice(others[others != tokens[position]])
        return self.decode(tokens)

    def encode(self, genotype: Genotype) -> Tokens:
        return (_table(genotype) + _SHIFT).reshape(-1)

    def decode(self, tokens: Tokens) -> Genotype:
        return self._genotype(self.legal(tokens).reshape(NODES, _PER_NODE) - _SHIFT)

    def _genotype(self, table: Tokens) -> Genotype:
        """Of ``[n, 5]``."""
        return Genotype(self.name, " ".join(map(str, table.reshape(-1))))

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        del rng
        return tokens

    def lower(self, genotype: Genotype) -> ArchGraph:
        """States are x, hidden states of before, nodes; outputs the nodes that are hidden states, or else the last."""
        table, nodes = _table(genotype), []
        for row in table:
            ops = OPS[_OPS[row[1] - 1]] if row[1] else ()
            nodes.append(tuple(Edge(int(s) - 1, op) for s, op in zip(row[2:], ops, strict=False) if s))
        output = _INPUTS + (np.flatnonzero(table[:, 0]) if table[:, 0].any() else np.array([NODES - 1]))
        return ArchGraph("", (("recurrent", Cell(_INPUTS, tuple(nodes), tuple(output.tolist()))),))

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "recipe":
            return self._genotype(self._of_recipe(text))
        words = text.split()
        if not all(word.isdecimal() and len(word) < 3 for word in words) or len(words) != self.length:
            raise GenotypeError(f"space {self.name}: expected {self.length} numbers, got {len(words)} words")
        table = np.array(words, dtype=np.int64).reshape(NODES, _PER_NODE)
        return self.decode((table + _SHIFT).reshape(-1))

    def _of_recipe(self, text: str) -> Tokens:
        """``[n, 5]``."""
        try:
            recipe: dict[str, Any] = json.loads(text)
            after = TopologicalSorter(
                {name: [s for s in told["input"] if s in recipe] for name, told in recipe.items()}
            )
            after.prepare()
            table, place = np.zeros((NODES, _PER_NODE), dtype=np.int64), 0
            places = {"x": 1} | {f"h_prev_{number}": 2 + number for number in range(HIDDEN)}
            while after.is_active():
                level = after.get_ready()
                for row, name in sorted((_row(name, recipe[name], places), name) for name in level):
                    table[place, : len(row)] = row
                    place += 1
                    places[name] = _INPUTS + place
                after.done(*level)
        except (ValueError, TypeError, AttributeError, LookupError, CycleError) as error:
            reason = f"{type(error).__name__} {error}".splitlines()[0]
            raise GenotypeError(f"space {self.name}: no recipe of at most {NODES} nodes: {reason}") from None
        return table


def _row(name: str, told: Mapping[str, Any], places: Mapping[str, int]) -> list[int]:
    """Of a table; sources have an order where they are mixed by the first."""
    state, sources = _STATE.fullmatch(name), [places[source] for source in told["input"]]
    is_ordered = told["op"] == "blend"
    return [
        1 + int(state[1]) if state else 0,
        1 + _OPS.index(told["op"]),
        *(sources if is_ordered else sorted(sources)),
    ]


def _arity(op: str) -> int:
    return {"blend": SOURCES}.get(op, 1 if op.startswith("activation") else 2)


def _table(genotype: Genotype) -> Tokens:
    """``[n, 5]``."""
    return np.array(genotype.key.split(), dtype=np.int64).reshape(NODES, _PER_NODE)
