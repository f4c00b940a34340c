"""A space within limits: it draws and mutates what keeps them, and says of the rest that it does not.

It is the space that it was made of in everything else: tokens, texts, networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

import numpy as np

from nao_ray.errors import ConfigError
from nao_ray.limits import Limits, figure
from nao_ray.spaces.base import Genotype, SearchSpace

DRAWS = 500
"""Random architectures of which none keeps the limits: then they count as met by next to nothing. To count
a network's multiply-adds takes some 50 ms."""
_MUTANTS = 100
"""Mutants of one architecture that are tried; then it is left for another."""

S = TypeVar("S", bound=SearchSpace[Any])


def within(space: S, limits: Limits, figures: Callable[[Genotype], Mapping[str, float]]) -> S:
    """The space of the architectures that keep the limits.

    Args:
        space: any.
        limits: of figures that are known of a genotype.
        figures: tells them; is asked once for each genotype, of as many as are remembered.
    """
    made = copy.copy(space)
    made.__class__ = _class_within(type(space))
    made.__dict__ |= {"_whole": space, "_limits": limits, "_figures": lru_cache(maxsize=200_000)(figures)}
    return made


class _Within(SearchSpace[Any]):
    """Placed before the class of a space."""

    _limits: Limits
    _figures: Callable[[Genotype], Mapping[str, float]]
    _whole: SearchSpace[Any]

    @property
    def whole(self) -> SearchSpace[Any]:
        return self._whole

    def refusal(self, genotype: Genotype) -> str | None:
        return self._limits.broken(self._figures(genotype))

    def sample(self, rng: np.random.Generator) -> Genotype:
        """As that of the whole space, of those that keep the limits.

        Raises:
            ConfigError: of `DRAWS` none does.
        """
        nearest: dict[str, float] = {}
        for _ in range(DRAWS):
            genotype = self.whole.sample(rng)
            if self.refusal(genotype) is None:
                return genotype
            for name, value in self._figures(genotype).items():
                limit = self._limits.by_name.get(name)
                if limit is None:
                    continue
                nearest[name] = min(nearest.get(name, value), value, key=limit.excess)
        seen = ", ".join(f"{name} {figure(value)}" for name, value in nearest.items())
        raise ConfigError(
            f"constraints: none of {DRAWS:,} random architectures of {self.name} keeps {self._limits}; the nearest of "
            f"each was {seen}; loosen them",
            "constraints",
        )

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """A neighbour that keeps the limits; where none of `_MUTANTS` does, a random architecture."""
        for _ in range(_MUTANTS):
            mutant = self.whole.mutate(genotype, rng)
            if self.refusal(mutant) is None:
                return mutant
        for _ in range(_MUTANTS):
            if (fresh := self.sample(rng)) != genotype:
                return fresh
        raise ConfigError(f"constraints: {genotype.key} alone keeps {self._limits}; loosen them", "constraints")


@cache
def _class_within(cls: type[SearchSpace[Any]]) -> type[Any]:
    return type(cls.__name__, (_Within, cls), {"name": cls.name, "__module__": cls.__module__})
