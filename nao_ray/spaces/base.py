"""Genotype, arch graph and search space: the words every other part is written in.

Legend: `L` tokens per genotype, `V` vocabulary size, `N` genotypes.

A genotype is a value: the name of its space and its text. The space gives the text its meaning: tokens for
the controllers, an arch graph for the networks, a canonical form that makes twins one architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from nao_ray import own_modules
from nao_ray.errors import GenotypeError
from nao_ray.settings import Settings

Tokens = NDArray[np.int64]

_OF_NO_NAME = frozenset("|~()[]{},:")
"""What is in texts of genotypes, and in no published name."""


@dataclass(frozen=True, slots=True)
class Genotype:
    """One discrete architecture of a search space."""

    space: str
    """Name of the search space."""
    key: str
    """Its stable text, e.g. the 40 integers of a pair of NAO cells."""

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, slots=True)
class Edge:
    """An operation on one earlier state of the cell."""

    source: int
    op: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A directed acyclic graph: states 0..inputs-1 come from outside, each node sums its edges."""

    inputs: int
    nodes: tuple[tuple[Edge, ...], ...]
    """Node i is state `inputs + i`, the sum of its edges unless the skeleton joins them otherwise."""
    output: tuple[int, ...]
    """States that are concatenated, in this order, to the cell's output."""


@dataclass(frozen=True, slots=True)
class ArchGraph:
    """A genotype lowered to cells, edges and named operations: all that a network of it has to know of the genotype.

    Shared weights, which are of all genotypes, are made for the space.
    """

    skeleton: str
    """Name of the skeleton that repeats the cells."""
    cells: tuple[tuple[str, Cell], ...]
    """Cells by role, e.g. ``(("normal", ...), ("reduction", ...))``."""

    def cell(self, role: str) -> Cell:
        """The cell of a role; raises KeyError for a role the graph has not."""
        return dict(self.cells)[role]


def by_commas(value: object) -> object:
    """Validator of a list of words: takes ``a,b`` as well as ``[a, b]``."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


class SpaceConfig(Settings):
    """Base of every space's config; most spaces have no settings."""


C = TypeVar("C", bound=SpaceConfig)


class SearchSpace(ABC, Generic[C]):
    """What may be built. Stateless: two instances of one config are interchangeable."""

    Config: ClassVar[type[SpaceConfig]] = SpaceConfig

    name: ClassVar[str]
    """One of the user's own is named as configs do, ``package.module:Class``."""
    skeleton: ClassVar[str] = ""
    """Name of the skeleton of its networks; empty: it has none, as a space that is looked up in a table."""
    published: ClassVar[Mapping[str, str]] = {}
    """Published architectures of this space: name -> text."""
    dialects: ClassVar[tuple[str, ...]] = ()
    """Notations `parse` reads besides the space's own; the first entry names the space's own."""
    op_names: ClassVar[Mapping[str, str]] = {}
    """What its texts call an operation, by the name that its arch graphs have for it, where that is another one."""
    may_be_distinct: ClassVar[bool] = False
    """Its config has `twins`: with `distinct` every text is an architecture of its own."""

    alpha_edges: Mapping[str, int] = {}
    """By role, in the order of the arch graph, the edges of a relaxed cell; empty: the space has no alphas."""
    many_skips: ClassVar[int] = 2
    """Of a cell that alphas come to; more are a sign of collapse: DARTS+ (arXiv 1909.06035) has 2 of 8 edges."""

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**arguments)
        own_modules.give_name(cls)

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config if config is not None else self.Config()  # type: ignore[assignment]

    @classmethod
    def for_text(cls, text: str) -> Self:  # noqa: ARG003
        """The space of this kind that a text, or a published name, is of: settings a text can tell are read off it."""
        return cls()

    @classmethod
    def dialect_of(cls, text: str) -> str | None:  # noqa: ARG003
        """The one of `dialects` that a text is seen to be in, so that nobody has to say so; None: it may be any."""
        return None

    # -- limits -------------------------------------------------------------------------------------------

    @property
    def whole(self) -> SearchSpace[Any]:
        """Without the limits of a search; where there are none, itself. See `parts/within.py`."""
        return self

    def refusal(self, genotype: Genotype) -> str | None:
        """Which limits of the search a genotype breaks, in words; None: it may be asked for."""
        return None

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def length(self) -> int:
        """L, tokens per genotype."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """V, number of token ids; id 0 is the start symbol and never part of a genotype."""

    @property
    @abstractmethod
    def tokens_per_step(self) -> int:
        """Consecutive tokens that form one step of the encoder (an edge: source and op)."""

    @property
    @abstractmethod
    def token_mask(self) -> NDArray[np.bool_]:
        """``[L, V]``, true where a token is legal at a position; every masked sequence is a legal genotype."""

    @property
    @abstractmethod
    def num_genotypes(self) -> int:
        """Number of genotypes, twins counted apart."""

    @property
    @abstractmethod
    def num_architectures(self) -> int:
        """Number of canonical forms."""

    @property
    def num_classes(self) -> int:
        """Number of classes of equal networks; other than `num_architectures` where twins are distinct."""
        return self.num_architectures

    # -- genotypes ----------------------------------------------------------------------------------------

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype, uniform over the space's strings, in canonical form."""

    @abstractmethod
    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """A canonical genotype one change away; never the architecture it started from."""

    @abstractmethod
    def encode(self, genotype: Genotype) -> Tokens:
        """``[L]`` token ids of a genotype."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> Genotype:
        """The genotype of ``[L]`` token ids.

        Raises:
            GenotypeError: a token is illegal at its position.
        """

    def legal(self, tokens: Tokens) -> Tokens:
        """The ``[L]`` token ids as an array, each legal at its position.

        Raises:
            GenotypeError: one is not, or there are not L of them.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.shape != (self.length,):
            raise GenotypeError(f"space {self.name}: expected {self.length} tokens, got shape {tokens.shape}")
        legal = (tokens >= 0) & (tokens < self.vocabulary)
        legal &= self.token_mask[np.arange(self.length), np.where(legal, tokens, 0)]
        if not legal.all():
            at = int(np.argmin(legal))
            allowed = np.flatnonzero(self.token_mask[at])
            expected = f"expected {allowed[0]}..{allowed[-1]}"
            raise GenotypeError(f"space {self.name}: token {tokens[at]} at position {at} is illegal, {expected}")
        return tokens

    @abstractmethod
    def canonical(self, genotype: Genotype) -> Genotype:
        """The one genotype that stands for all twins of `genotype`; idempotent."""

    def twin_key(self, genotype: Genotype) -> str:
        """Names the class of equal networks that a genotype is of, also where twins are distinct."""
        return self.canonical(genotype).key

    @abstractmethod
    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        """``[N, L]`` -> ``[N, L]``: each row replaced by a random equivalent, or itself (the swap augmentation)."""

    @abstractmethod
    def lower(self, genotype: Genotype) -> ArchGraph:
        """The arch graph of a genotype."""

    def ops_by_cell(self, genotype: Genotype) -> dict[str, tuple[str, ...]]:
        """The operations of each cell by its role, edge by edge in the order of the nodes."""
        cells = self.lower(genotype).cells
        return {role: tuple(edge.op for node in cell.nodes for edge in node) for role, cell in cells}

    @property
    def primitives(self) -> tuple[str, ...]:
        """What a relaxed cell mixes on each edge, in the order of its alphas, as texts call it; empty: it has none."""
        return ()

    def derive(self, alphas: Sequence[Any]) -> Genotype:
        """What alphas come to: an array ``[edges, primitives]`` per role of `alpha_edges`, before the softmax.

        With one more column, where the space knows of it, that of the edges.

        Raises:
            GenotypeError: the space has no alphas.
        """
        raise GenotypeError(f"space {self.name} has no alphas that a genotype is derived of")

    @abstractmethod
    def read(self, text: str, dialect: str) -> Genotype:
        """A genotype from text in one of `dialects`.

        Raises:
            GenotypeError: the text is malformed, or outside the space.
        """

    def parse(self, text: str, dialect: str | None = None) -> Genotype:
        """A genotype from a published name or from text.

        Raises:
            GenotypeError: neither a published name nor a legal text of this space.
        """
        text = text.strip()
        if text in self.published:
            return self.read(self.published[text], self.dialects[0])
        if dialect is None:
            dialect = self.dialect_of(text)
        elif dialect not in self.dialects:
            raise GenotypeError(
                f"space {self.name} has no dialect {dialect!r}; choose one of {', '.join(self.dialects)}"
            )
        if dialect is None and text[:1].isalpha() and not _OF_NO_NAME & set(text):
            names = {name.lower(): name for name in self.published}
            name = text if len(text) <= 80 else f"{text[:80]}..."
            close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
            hint = f"; did you mean {names[close[0]]}?" if close else f"; known: {', '.join(self.published) or 'none'}"
            raise GenotypeError(f"space {self.name} has no published architecture {name!r}{hint}")
        return self.read(text, dialect or self.dialects[0])

    def notations(self, genotype: Genotype) -> dict[str, str]:
        """A genotype's text in `dialects` of other code, by the dialect, for users to paste there."""
        return {}

    def validate(self, genotype: Genotype) -> None:
        """Check that a genotype is one of this space.

        Raises:
            GenotypeError: it is of another space, or its text is illegal.
        """
        if genotype.space != self.name:
            raise GenotypeError(f"genotype of space {genotype.space} given to space {self.name}: {genotype.key}")
        self.read(genotype.key, self.dialects[0])
