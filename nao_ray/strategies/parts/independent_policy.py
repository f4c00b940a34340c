"""The policy with one softmax per token position, each on its own (see `reinforce.py`).

Legend: `L` tokens per genotype, `V` token ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng as streams
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.reinforce_config import ReinforceConfig
from nao_ray.trial import Diagnostics, Proposal

Array = NDArray[np.float64]

_INIT_STD = 1e-3
"""Standard deviation of the first logits (NATS-algos/reinforce.py)."""
_BETAS, _EPS = (0.9, 0.999), 1e-8
"""Adam, as published (arXiv 1412.6980)."""


class IndependentPolicy:
    """Learns from each result as it comes; failed trials teach nothing."""

    waits = False

    def __init__(self, space: SearchSpace[Any], config: ReinforceConfig, seed: int) -> None:
        self._space, self._config = space, config
        self._mask = space.token_mask
        draw = streams.child(seed, "policy").normal(0.0, _INIT_STD, size=self._mask.shape)
        self.logits: Array = np.where(self._mask, draw, -np.inf)
        """``[L, V]``."""
        self._moments: tuple[Array, Array] = (np.zeros(self._mask.shape), np.zeros(self._mask.shape))
        self._steps = 0
        self._sum, self._weight = 0.0, 0.0  # of the moving average, and of its bias correction

    def propose(self, visited: set[str], rng: np.random.Generator) -> Proposal | None:
        """The first new one of `1 + redraws` draws."""
        for _ in range(1 + self._config.redraws):
            genotype = self._draw(rng)
            if genotype.key not in visited and not self._space.refusal(genotype):
                return Proposal(genotype=genotype)
        return None

    def observe(self, genotype: Genotype, reward: float | None) -> None:
        """One update."""
        if reward is None:
            return
        decay = self._config.baseline_decay
        self._sum = decay * self._sum + (1 - decay) * reward
        self._weight = decay * self._weight + (1 - decay)
        chosen = np.zeros(self._mask.shape)
        chosen[np.arange(len(chosen)), self._space.encode(genotype)] = 1.0
        self._ascend((reward - self._sum / self._weight) * (chosen - self.probabilities))

    def take_rows(self) -> list[Diagnostics]:
        """None."""
        return []

    @property
    def probabilities(self) -> Array:
        """``[L, V]``, the policy; 0 where a token is illegal."""
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        normalised: Array = powers / powers.sum(axis=1, keepdims=True)
        return normalised

    def _draw(self, rng: np.random.Generator) -> Genotype:
        bounds = self.probabilities.cumsum(axis=1)
        tokens = (rng.random((len(bounds), 1)) * bounds[:, -1:] >= bounds).sum(axis=1)
        return self._space.canonical(self._space.decode(tokens))

    def _ascend(self, gradient: Array) -> None:
        """One step of Adam on the logits; illegal tokens have no gradient."""
        self._steps += 1
        (first, second), (b1, b2) = self._moments, _BETAS
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        self._moments = (first, second)
        change = first / (1 - b1**self._steps) / (np.sqrt(second / (1 - b2**self._steps)) + _EPS)
        self.logits = self.logits + self._config.learning_rate * change
