"""A space without some of its operations, or favouring some: `ops: {without: [...], favour: {...}}` of a config.

Works for any space whose tokens choose operations one by one: what a token chooses is found by decoding it. Favoured
means drawn more often: where an operation is drawn, one of weight w is w times as likely as one of weight 1. It is the
space that it was made of in everything else: tokens, networks and shared weights have all operations.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.settings import Settings
from nao_ray.spaces.base import Genotype, SearchSpace

_TRIES = 200
"""Mutants of one architecture that are drawn; then it is left for a random one."""

S = TypeVar("S", bound=SearchSpace[Any])


class Preferences(Settings):
    """Of a search, among the operations of its space."""

    without: tuple[str, ...] = ()
    """That no architecture has; a published one that has such is refused."""
    favour: Mapping[str, float] = Field(default={})
    """Weights, over 0; the others have 1."""


def preferring(space: S, wanted: Preferences) -> S:
    """The space with what is preferred.

    Raises:
        ConfigError: it has no such operation, a weight is not over 0, or nothing would be left.
    """
    made = copy.copy(space)
    made.__class__ = _class_preferring(type(space))
    made.__dict__ = {name: value for name, value in made.__dict__.items() if name != "token_mask"}
    made.__dict__ |= {"_free": space, "_wanted": wanted}
    known = sorted({name for position in made._choices for name in position.values() if name})  # type: ignore[attr-defined]
    for name in (*wanted.without, *wanted.favour):
        if name not in known:
            raise ConfigError(
                f"space.ops: {space.name} has no operation {name!r}; it has {', '.join(known)}", "space.ops"
            )
    if wrong := [name for name, weight in wanted.favour.items() if not 0 < weight < np.inf]:
        raise ConfigError(f"space.ops.favour: the weight of {wrong[0]} must be over 0", "space.ops")
    if not made.token_mask.any(axis=1).all():
        raise ConfigError("space.ops.without: no operation is left to choose", "space.ops")
    return made


class _Preferring(SearchSpace[Any]):
    """Placed before the class of a space."""

    _free: SearchSpace[Any]
    _wanted: Preferences

    @cached_property
    def _choices(self) -> list[dict[int, str]]:
        """Of each position the operation that each legal token chooses there; empty: it chooses none."""
        mask = self._free.token_mask
        base = mask.argmax(axis=1).astype(np.int64)
        found = []
        for position, legal in enumerate(mask):
            counts: dict[int, Counter[str]] = {}
            for token in np.flatnonzero(legal).tolist():
                tokens = base.copy()
                tokens[position] = token
                counts[token] = Counter(self._ops_of(self._free.decode(tokens)))
            common = Counter.__and__
            shared = next(iter(counts.values()))
            for count in counts.values():
                shared = common(shared, count)
            found.append({token: next(iter(count - shared), "") for token, count in counts.items()})
        return found

    def _ops_of(self, genotype: Genotype) -> list[str]:
        cells = self._free.ops_by_cell(genotype)
        return [self.op_names.get(op, op) for ops in cells.values() for op in ops]

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self._free.token_mask.copy()
        for position, choices in enumerate(self._choices):
            mask[position, [token for token, name in choices.items() if name in self._wanted.without]] = False
        return mask

    @cached_property
    def _draws(self) -> list[tuple[int, list[int], NDArray[np.float64]]]:
        """Positions that choose operations: the tokens that may be drawn, and their shares, added up."""
        draws = []
        for position, choices in enumerate(self._choices):
            tokens = [token for token in choices if self.token_mask[position, token]]
            if any(choices.values()):
                weights = np.array([self._wanted.favour.get(choices[token], 1.0) for token in tokens])
                draws.append((position, tokens, weights.cumsum() / weights.sum()))
        return draws

    def sample(self, rng: np.random.Generator) -> Genotype:
        """As that of the whole space, with operations drawn by their weights."""
        tokens = self._free.encode(self._free.sample(rng))
        for (position, choices, shares), share in zip(self._draws, rng.random(len(self._draws)), strict=True):
            tokens[position] = choices[min(int(np.searchsorted(shares, share, side="right")), len(choices) - 1)]
        return self.canonical(self._free.decode(tokens))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """A neighbour, taken the more often the more its operations weigh; where `_TRIES` fail, a random one."""
        weights = [1.0, *self._wanted.favour.values()]
        most, here = max(weights) / min(weights), self._weight(genotype)
        for _ in range(_TRIES):
            mutant = self._free.mutate(genotype, rng)
            if self._banned(mutant) is None and rng.random() * most <= self._weight(mutant) / here:
                return mutant
        return self.sample(rng)

    def _weight(self, genotype: Genotype) -> float:
        return float(np.prod([self._wanted.favour.get(op, 1.0) for op in self._ops_of(genotype)]))

    def _banned(self, genotype: Genotype) -> str | None:
        return next((op for op in self._ops_of(genotype) if op in self._wanted.without), None)

    def read(self, text: str, dialect: str) -> Genotype:
        """As the whole space.

        Raises:
            GenotypeError: it has an operation that the search is without, too.
        """
        genotype = self._free.read(text, dialect)
        if op := self._banned(genotype):
            raise GenotypeError(f"space {self.name}: {genotype.key} has {op}, which space.ops.without excludes")
        return genotype


@cache
def _class_preferring(cls: type[SearchSpace[Any]]) -> type[Any]:
    return type(cls.__name__, (_Preferring, cls), {"name": cls.name, "__module__": cls.__module__})
