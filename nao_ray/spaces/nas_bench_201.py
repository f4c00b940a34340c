"""The cell of NAS-Bench-201: 4 nodes, 6 edges, an operation on each (Dong, Yang, ICLR 2020, arXiv 2001.00326).

Legend: `K` operations, `L` = 6 tokens, one per edge.

Text: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: per node the operation on each earlier node. Tokens: 0 start, then the
operations. Two texts are one architecture when the benchmark's own rule gives them one expression (section 3.1 counts
6,466): `none` vanishes, `skip_connect` is the value itself, sums commute. The rule sorts a sum as text without opening
sums inside it, so a few equal cells stay apart; tables name their classes by it, so it is kept to the letter.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens, by_commas

_SOURCES = (0, 0, 1, 0, 1, 2)  # of the six edges, in the order of the text
_NODES = ((0,), (1, 2), (3, 4, 5))  # edges that end in node 1, 2, 3
_TEXT = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
_READ = re.compile(re.escape(_TEXT).replace(re.escape("{}"), "([^|~]+)"))
LOWERED = {
    "none": "zero",
    "skip_connect": "identity",
    "nor_conv_1x1": "conv_1x1",
    "nor_conv_3x3": "conv_3x3",
    "avg_pool_3x3": "avg_pool_3x3",
}
"""What arch graphs call an operation."""


class NasBench201Config(SpaceConfig):
    """Settings of the space."""

    ops: Annotated[tuple[str, ...], BeforeValidator(by_commas)] = Field(default=tuple(LOWERED), min_length=2)
    """Operations, in token order; a related table may have fewer (NATS-Bench's size 5 is the default)."""
    twins: Literal["merge", "distinct"] = "merge"
    """`distinct`: each of the space's texts is an architecture of its own, as in a table that trained all of them."""


class NasBench201(SearchSpace[NasBench201Config]):
    """One cell of six edges over the operations of the config.

    Raises:
        GenotypeError: an operation of the config is unknown or given twice.
    """

    name: ClassVar[str] = "nas_bench_201"
    skeleton: ClassVar[str] = "nas_bench_201"
    Config: ClassVar[type[SpaceConfig]] = NasBench201Config
    dialects: ClassVar[tuple[str, ...]] = ("nas_bench_201", "tokens")
    op_names: ClassVar[Mapping[str, str]] = {lowered: op for op, lowered in LOWERED.items()}
    may_be_distinct: ClassVar[bool] = True
    alpha_edges: Mapping[str, int] = {"normal": len(_SOURCES)}
    many_skips: ClassVar[int] = 3
    """Of 15,625 cells the best with more is the 3,524th on CIFAR-10, of those with 3 one is the 105th."""

    def __init__(self, config: NasBench201Config | None = None) -> None:
        super().__init__(config)
        self.ops = self.config.ops
        unknown = [op for op in self.ops if op not in LOWERED]
        if unknown or len(set(self.ops)) < len(self.ops):
            raise GenotypeError(f"space {self.name}: ops must be distinct and of {', '.join(LOWERED)}, got {self.ops}")

    @property
    def length(self) -> int:
        return len(_SOURCES)

    @property
    def vocabulary(self) -> int:
        return 1 + len(self.ops)

    @property
    def tokens_per_step(self) -> int:
        return 1

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.ones((self.length, self.vocabulary), dtype=bool)
        mask[:, 0] = False
        return mask

    @property
    def num_genotypes(self) -> int:
        return int(len(self.ops) ** self.length)

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes if self._is_distinct else self.num_classes

    @property
    def num_classes(self) -> int:
        return len(self._expressions)

    def sample(self, rng: np.random.Generator) -> Genotype:
        return self.canonical(self._genotype(tuple(rng.integers(0, len(self.ops), size=self.length).tolist())))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        origin = self._indices(genotype)
        home = self._class_of(origin)
        while True:  # ends: putting a convolution on an edge of a cell without effect, and so on, changes the class
            mutant = list(origin)
            edge = int(rng.integers(self.length))
            mutant[edge] = int(mutant[edge] + rng.integers(1, len(self.ops))) % len(self.ops)
            if self._class_of(tuple(mutant)) != home:
                return self.canonical(self._genotype(tuple(mutant)))
            origin = tuple(mutant)  # a step inside the class: go on from there

    def encode(self, genotype: Genotype) -> Tokens:
        return np.array(self._indices(genotype), dtype=np.int64) + 1

    def decode(self, tokens: Tokens) -> Genotype:
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.shape != (self.length,) or (tokens < 1).any() or (tokens > len(self.ops)).any():
            expected = f"expected {self.length} tokens in 1..{len(self.ops)}"
            raise GenotypeError(f"space {self.name}: {expected}, got {tokens.tolist()}")
        return self._genotype(tuple((tokens - 1).tolist()))

    def canonical(self, genotype: Genotype) -> Genotype:
        return self._genotype(self._class_of(self._indices(genotype))[0])

    def twin_key(self, genotype: Genotype) -> str:
        return self._genotype(self._class_by_indices[self._indices(genotype)][0]).key

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        rows = []
        for row in tokens.tolist():
            members = self._class_of(tuple(token - 1 for token in row))
            rows.append(members[int(rng.integers(len(members)))])
        return np.array(rows, dtype=np.int64).reshape(tokens.shape) + 1

    def lower(self, genotype: Genotype) -> ArchGraph:
        ops = [LOWERED[self.ops[index]] for index in self._indices(genotype)]
        nodes = tuple(tuple(Edge(_SOURCES[edge], ops[edge]) for edge in edges) for edges in _NODES)
        return ArchGraph(self.skeleton, (("normal", Cell(1, nodes, output=(3,))),))

    @property
    def primitives(self) -> tuple[str, ...]:
        return self.ops

    def derive(self, alphas: Sequence[Any]) -> Genotype:
        """As the benchmark's own code: each edge has its strongest operation, `none` like any other."""
        (alpha,) = alphas
        return self._genotype(tuple(np.asarray(alpha, dtype=np.float64).argmax(axis=1).tolist()))

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect == "tokens":
            try:
                return self.decode(np.array([int(word) for word in text.split()], dtype=np.int64))
            except ValueError as error:
                raise GenotypeError(f"space {self.name}: tokens are {self.length} integers; {error}") from None
        found = _READ.fullmatch(text)
        if found is None:
            raise GenotypeError(f"space {self.name}: expected {_TEXT.replace('{}', 'op')}, got {text!r}")
        for op in found.groups():
            if op not in self.ops:
                raise GenotypeError(f"space {self.name}: no operation {op!r}, choose of {', '.join(self.ops)}")
        return Genotype(self.name, text)

    # -- isomorphism --------------------------------------------------------------------------------------

    @cached_property
    def _expressions(self) -> dict[str, list[tuple[int, ...]]]:
        """Members of every class of equal cells, in token order; the first one stands for the class."""
        classes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for indices in itertools.product(range(len(self.ops)), repeat=self.length):
            classes[self._expression(indices)].append(indices)
        return dict(classes)

    @cached_property
    def _class_by_indices(self) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        return {member: members for members in self._expressions.values() for member in members}

    @property
    def _is_distinct(self) -> bool:
        return self.config.twins == "distinct"

    def _class_of(self, indices: tuple[int, ...]) -> list[tuple[int, ...]]:
        """What counts as one architecture."""
        return [indices] if self._is_distinct else self._class_by_indices[indices]

    def _expression(self, indices: tuple[int, ...]) -> str:
        """The function a cell computes, as text: equal for equal cells."""
        values = ["0"]
        for edges in _NODES:
            terms = []
            for edge in edges:
                op, value = self.ops[indices[edge]], values[_SOURCES[edge]]
                if op == "skip_connect":
                    terms.append(value)
                elif op == "none" or value == _NOTHING:
                    terms.append(_NOTHING)
                else:
                    terms.append(f"({value})@{op}")
            values.append("+".join(sorted(terms)))
        return values[-1]

    def _genotype(self, indices: tuple[int, ...]) -> Genotype:
        return Genotype(self.name, _TEXT.format(*[self.ops[index] for index in indices]))

    def _indices(self, genotype: Genotype) -> tuple[int, ...]:
        found = _READ.fullmatch(genotype.key)
        assert found, genotype
        return tuple([self.ops.index(op) for op in found.groups()])


_NOTHING = "#"
