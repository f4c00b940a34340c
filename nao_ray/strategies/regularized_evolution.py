"""Regularized (aging) evolution: mutate the best of a random sample, let the oldest die.

Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
arXiv 1802.01548, algorithm 1.

Differs from the paper: an architecture is asked once (its mutants are tried again, then a random one); the population
is filled asynchronously, as the authors' own distributed runs do; failed trials never enter it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from nao_ray import pareto
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Fidelity, Proposal, Trial


class EvolutionConfig(StrategyConfig):
    """Settings of `RegularizedEvolution`."""

    population: int = Field(default=100, ge=1)
    """P: living architectures (section 4: 100)."""
    sample: int = Field(default=25, ge=1)
    """S: candidates for parent, drawn without replacement (section 4: 25)."""

    @model_validator(mode="after")
    def _sample_within(self) -> Self:
        if self.sample > self.population:
            raise ValueError(f"sample must be at most population, which is {self.population}")
        return self


class RegularizedEvolution(Strategy[EvolutionConfig]):
    """Tournament selection over the youngest `population` completed trials."""

    Config = EvolutionConfig
    ranks_several = True
    _TRIES = 200  # mutants of the parent, then random ones: then the space counts as used up

    def __init__(self, space: SearchSpace[Any], config: EvolutionConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self._living: deque[tuple[tuple[float, ...], int, Genotype]] = deque(maxlen=config.population)
        self._used_up = False

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if k >= self.config.population and self._living:
            _, parent, genotype = self._parent(rng)
            for _ in range(self._TRIES):
                child = self.space.mutate(genotype, rng)
                if child.key not in self.visited:
                    return Proposal(genotype=child, source_trial_id=parent)
        fresh = self.unasked(rng)
        self._used_up = fresh is None
        return None if fresh is None else Proposal(genotype=fresh)

    def observe(self, trial: Trial) -> None:
        if (values := self.values_of(trial)) is not None:
            self._living.append((values, trial.trial_id, trial.genotype))  # the oldest falls out

    def observe_retry(self, trial: Trial) -> None:
        self.observe(trial)

    @property
    def unguided(self) -> int:
        return self.config.population

    @property
    def done(self) -> bool:
        return self._used_up

    def _parent(self, rng: np.random.Generator) -> tuple[tuple[float, ...], int, Genotype]:
        size = min(self.config.sample, len(self._living))
        drawn = rng.choice(len(self._living), size=size, replace=False)
        if not self.objectives:
            return max((self._living[i] for i in drawn), key=lambda living: (living[0], -living[1]))
        found = [self._living[i] for i in drawn]  # of several objectives by rank and crowding, as NSGA-II
        return found[int(pareto.crowded_order(np.array([values for values, _, _ in found]))[0])]
