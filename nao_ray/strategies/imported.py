"""Stands in the manifest of a pool that was imported from a table: its trials are nobody's proposals."""

from __future__ import annotations

import numpy as np

from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Proposal, Trial


class Imported(Strategy[StrategyConfig]):
    """Proposes nothing."""

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        return None

    def observe(self, trial: Trial) -> None:
        pass

    @property
    def done(self) -> bool:
        return True
