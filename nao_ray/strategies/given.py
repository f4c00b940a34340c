"""Architectures that are given, each once, in their order: to train again what a search has found."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Proposal, Trial


class GivenConfig(StrategyConfig):
    """Which."""

    genotypes: tuple[str, ...] = Field(min_length=1)
    """Their texts, or published names of the space."""


class Given(Strategy[GivenConfig]):
    """Learns nothing."""

    Config: ClassVar[type[StrategyConfig]] = GivenConfig

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self.done:
            return None
        return Proposal(genotype=self.space.parse(self.config.genotypes[k]))

    def observe(self, trial: Trial) -> None:
        pass

    @property
    def done(self) -> bool:
        return self.num_asked >= len(self.config.genotypes)

    @property
    def planned(self) -> int:
        return len(self.config.genotypes)
