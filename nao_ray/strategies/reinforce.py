"""REINFORCE: a policy over tokens, moved along the gradient of the expected score.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992; for tables
as in Dong, Yang, "NAS-Bench-201", ICLR 2020, arXiv 2001.00326, section 5 and appendix: one softmax per token position,
each on its own, Adam, a moving average as baseline. With `policy: lstm` the policy of ENAS (Pham et al., ICML 2018,
arXiv 1802.03268; `controllers/lstm.py`).

Differs from the papers: an architecture is asked once. `independent` draws again what was asked before, up to `redraws`
times, then at random among the new ones, learns from each result as it comes, and takes the gradient at the canonical
form of what was drawn. `lstm` draws `num_aggregate` sequences, asks for the new ones among them, waits for all of those
and makes one update at what was drawn, repeated draws with the score they have; more than `redraws` draws without
anything new, and random new architectures are measured, which the policy does not learn from before it draws them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy
from nao_ray.strategies.parts.independent_policy import IndependentPolicy
from nao_ray.strategies.parts.lstm_batches import LstmBatches
from nao_ray.strategies.parts.reinforce_config import ReinforceConfig
from nao_ray.trial import Diagnostics, Fidelity, Proposal, Trial


class _Policy(Protocol):
    """A fold over the finished trials, in the order told."""

    @property
    def waits(self) -> bool:
        """True: where it proposes nothing it has to be told more first; false: it knows nothing new."""
        ...

    def propose(self, visited: set[str], rng: np.random.Generator) -> Proposal | None:
        """An architecture that is not `visited`."""
        ...

    def observe(self, genotype: Genotype, reward: float | None) -> None:
        """Learn from a finished trial; None: it failed."""
        ...

    def take_rows(self) -> list[Diagnostics]:
        """Rows about the updates since the last call."""
        ...


class Reinforce(Strategy[ReinforceConfig]):
    """Asks for what the policy draws."""

    Config = ReinforceConfig

    def __init__(self, space: SearchSpace[Any], config: ReinforceConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self.policy: _Policy
        if config.policy == "lstm":
            self.policy = LstmBatches(space, config.lstm, config.redraws, seed)
        else:
            self.policy = IndependentPolicy(space, config, seed)
        self._used_up = False

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        draft = self.policy.propose(self.visited, rng)
        if draft is not None or self.policy.waits:
            return draft
        fresh = self.unasked(rng)
        self._used_up = fresh is None
        return None if fresh is None else Proposal(genotype=fresh)

    def observe(self, trial: Trial) -> None:
        self.policy.observe(trial.genotype, self.config.reward_of(trial))

    def observe_retry(self, trial: Trial) -> None:
        self.observe(trial)

    @property
    def done(self) -> bool:
        return self._used_up

    def diagnostics(self) -> list[Diagnostics]:
        return self.policy.take_rows()
