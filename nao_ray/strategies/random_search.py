"""Random search: every architecture at most once, uniformly. The control that every other strategy has to beat."""

from __future__ import annotations

import numpy as np

from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Proposal, Trial


class RandomSearch(Strategy[StrategyConfig]):
    """Uniform samples, new ones while they can be found."""

    _TRIES = 1000  # then repeat one: a space this well covered is better searched by another strategy

    ranks_several = True  # as well as anything that learns nothing
    _used_up = False

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self.done:
            return None
        for _ in range(self._TRIES):
            genotype = self.space.sample(rng)
            if genotype.key not in self.visited:
                break
        else:  # within limits there may be few, of a number that nobody knows
            if self.space.whole is not self.space:
                self._used_up = True
                return None
        return Proposal(genotype=genotype)

    def observe(self, trial: Trial) -> None:
        pass

    @property
    def done(self) -> bool:
        return self._used_up or len(self.visited) >= self.space.num_architectures
