"""Architectures that are given, each once, in their order: to train again what a search has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Fidelity, Proposal, Trial


class GivenConfig(StrategyConfig):
    """Which."""

    genotypes: tuple[str, ...] = Field(min_length=1)
    """Their texts, or published names of the space."""


class Given(Strategy[GivenConfig]):
    """Learns nothing."""

    Config: ClassVar[type[StrategyConfig]] = GivenConfig

    def __init__(self, space: SearchSpace[Any], config: GivenConfig, seed: int, fidelity: Fidelity) -> None:
        """Raises ConfigError: a text is no genotype of the space, or the same one as another."""
        super().__init__(space, config, seed, fidelity)
        self._genotypes = _read(space, config.genotypes)

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self.done:
            return None
        return Proposal(genotype=self._genotypes[k])

    def observe(self, trial: Trial) -> None:
        pass

    @property
    def done(self) -> bool:
        return self.num_asked >= len(self._genotypes)

    @property
    def planned(self) -> int:
        return len(self._genotypes)


def _read(space: SearchSpace[Any], texts: Sequence[str]) -> tuple[Genotype, ...]:
    """The canonical genotypes."""
    first: dict[Genotype, int] = {}
    for number, text in enumerate(texts, start=1):
        try:
            genotype = space.canonical(space.parse(text))
        except GenotypeError as error:
            raise ConfigError(f"strategy.genotypes, number {number}: {error}") from None
        if genotype in first:
            raise ConfigError(
                f"strategy.genotypes: numbers {first[genotype]} and {number} are the same architecture; each is "
                "trained once, remove one"
            )
        first[genotype] = number
    return tuple(first)
