"""REINFORCE: a policy over tokens, moved along the gradient of the expected score.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992; for tables
as in Dong, Yang, "NAS-Bench-201", ICLR 2020, arXiv 2001.00326, section 5 and appendix: one softmax per token position,
each on its own, Adam, a moving average as baseline.

Legend: `L` tokens per genotype, `V` token ids.

Differs from the papers: an architecture is asked once, so a draw that was asked before is drawn again (up to `redraws`
times, then at random among the new ones); the gradient is taken at the canonical form of what was drawn.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray import rng as streams
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Fidelity, Proposal, Trial

Array = NDArray[np.float64]

_INIT_STD = 1e-3
"""Standard deviation of the first logits (NATS-algos/reinforce.py)."""
_BETAS, _EPS = (0.9, 0.999), 1e-8
"""Adam, as published (arXiv 1412.6980)."""


class ReinforceConfig(StrategyConfig):
    """Settings of `Reinforce`."""

    policy: Literal["independent"] = "independent"
    """`independent`: one softmax per token position."""
    learning_rate: float = Field(default=0.2, gt=0)
    """Of Adam. Of the paper's grid, 0.01 to 0.5, the one that needs fewest queries on NAS-Bench-201 CIFAR-10: 128 of
    at most 200, with 0.01, 0.05, 0.1 and 0.5: 195, 196, 167 and 156 (means over 40 seeds)."""
    baseline_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the moving average of the scores."""
    redraws: int = Field(default=100, ge=0)
    """Draws from the policy for one new architecture, after the first one."""


class Reinforce(Strategy[ReinforceConfig]):
    """The policy is a fold over the finished trials, in the order told."""

    Config = ReinforceConfig

    def __init__(self, space: SearchSpace[Any], config: ReinforceConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self._mask = space.token_mask
        draw = streams.child(seed, "policy").normal(0.0, _INIT_STD, size=self._mask.shape)
        self._logits: Array = np.where(self._mask, draw, -np.inf)
        self._moments: tuple[Array, Array] = (np.zeros(self._mask.shape), np.zeros(self._mask.shape))
        self._steps = 0
        self._sum, self._weight = 0.0, 0.0  # of the moving average, and of its bias correction
        self._used_up = False

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        for _ in range(1 + self.config.redraws):
            genotype = self._draw(rng)
            if genotype.key not in self.visited:
                return Proposal(genotype=genotype)
        fresh = self.unasked(rng)
        self._used_up = fresh is None
        return None if fresh is None else Proposal(genotype=fresh)

    def observe(self, trial: Trial) -> None:
        if (score := trial.score) is None:
            return
        decay = self.config.baseline_decay
        self._sum = decay * self._sum + (1 - decay) * score
        self._weight = decay * self._weight + (1 - decay)
        chosen = np.zeros(self._mask.shape)
        chosen[np.arange(len(chosen)), self.space.encode(trial.genotype)] = 1.0
        self._ascend((score - self._sum / self._weight) * (chosen - self.probabilities))

    @property
    def probabilities(self) -> Array:
        """``[L, V]``, the policy; 0 where a token is illegal."""
        powers = np.exp(self._logits - self._logits.max(axis=1, keepdims=True))
        normalised: Array = powers / powers.sum(axis=1, keepdims=True)
        return normalised

    @property
    def done(self) -> bool:
        return self._used_up

    def _draw(self, rng: np.random.Generator) -> Genotype:
        bounds = self.probabilities.cumsum(axis=1)
        tokens = (rng.random((len(bounds), 1)) * bounds[:, -1:] >= bounds).sum(axis=1)
        return self.space.canonical(self.space.decode(tokens))

    def _ascend(self, gradient: Array) -> None:
        """One step of Adam on the logits; illegal tokens have no gradient."""
        self._steps += 1
        (first, second), (b1, b2) = self._moments, _BETAS
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        self._moments = (first, second)
        change = first / (1 - b1**self._steps) / (np.sqrt(second / (1 - b2**self._steps)) + _EPS)
        self._logits = self._logits + self.config.learning_rate * change
