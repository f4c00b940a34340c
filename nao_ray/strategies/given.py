"""Architectures that are given, in their order: to train again what a search has found.

Each once, or once under each of some settings of the recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig, refuse_outside
from nao_ray.trial import Fidelity, Proposal, Trial


class GivenConfig(StrategyConfig):
    """Which."""

    genotypes: tuple[str, ...] = Field(min_length=1)
    """Their texts, or published names of the space."""
    settings: tuple[dict[str, Any], ...] | None = None
    """One mapping for each of them: settings of the recipe, instead of the evaluator's. An architecture may then be
    there several times, under other settings."""

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if self.settings is not None and len(self.settings) != len(self.genotypes):
            raise ValueError(f"settings: there are {len(self.settings)}, for {len(self.genotypes)} genotypes")
        return self

    @property
    def own_settings(self) -> Sequence[Mapping[str, Any]]:
        return self.settings or ()


class Given(Strategy[GivenConfig]):
    """Learns nothing."""

    Config: ClassVar[type[StrategyConfig]] = GivenConfig

    def __init__(self, space: SearchSpace[Any], config: GivenConfig, seed: int, fidelity: Fidelity) -> None:
        """Raises ConfigError: a text is no genotype of the space, or the same one as another."""
        super().__init__(space, config, seed, fidelity)
        self._given = _read(space, config.genotypes, config.settings)
        refuse_outside(space, "strategy.genotypes", [genotype for genotype, _ in self._given])

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self.done:
            return None
        genotype, settings = self._given[k]
        return Proposal(genotype=genotype, settings=settings)

    def observe(self, trial: Trial) -> None:
        pass

    @property
    def done(self) -> bool:
        return self.num_asked >= len(self._given)

    @property
    def planned(self) -> int:
        return len(self._given)


def _read(
    space: SearchSpace[Any], texts: Sequence[str], settings: Sequence[Mapping[str, Any]] | None
) -> tuple[tuple[Genotype, str | None], ...]:
    """The canonical genotypes, each with its settings as JSON."""
    first: dict[tuple[Genotype, str | None], int] = {}
    for number, text in enumerate(texts, start=1):
        try:
            genotype = space.canonical(space.parse(text))
        except GenotypeError as error:
            raise ConfigError(f"strategy.genotypes, number {number}: {error}") from None
        own = None if settings is None else json.dumps(settings[number - 1], sort_keys=True)
        if (genotype, own) in first:
            raise ConfigError(
                f"strategy.genotypes: numbers {first[genotype, own]} and {number} are the same architecture"
                f"{'' if own is None else ' under the same settings'}; each is trained once, remove one"
            )
        first[genotype, own] = number
    return tuple(first)
