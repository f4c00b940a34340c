"""REINFORCE on an LSTM policy.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992, as in
ENAS (Pham et al., ICML 2018, arXiv 1802.03268, section 2.2 and the authors' code). For each sequence

    R  = score + entropy_weight * H                H has no gradient
    b <- b - (1 - decay) (b - R)
    loss = -log p * (R - b) + skip_weight * P      P the skip penalty, with its gradient

and one step of Adam on the mean over the batch. The baseline is the moved one: with the one before it every advantage
would be 1 / decay times as large, since R - b_new = decay (R - b_old).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nao_ray import optimisers
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.policy import LstmConfig, LstmPolicy
from nao_ray.spaces.base import Tokens

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """One update; means over its sequences."""

    num_sequences: int
    mean_score: float
    baseline: float
    """After the update."""
    entropy: float
    """Nats per sequence, before the update."""
    skip_penalty: float

    def row(self) -> dict[str, float | int]:
        """As a flat row."""
        return asdict(self)


class PolicyGradient:
    """Moves a policy; its state is Adam's moments and the baseline."""

    def __init__(self, policy: LstmPolicy, config: LstmConfig) -> None:
        self.policy, self.config = policy, config
        self.baseline: float | None = 0.0 if config.baseline_start == "zero" else None
        """b; None: the first reward."""
        self._num_updates = 0
        self._adam = optimisers.Adam(
            policy.parameters(), lr=config.learning_rate, betas=config.betas, eps=config.epsilon, foreach=True
        )

    def update(self, tokens: Tokens, scores: Floats) -> UpdateReport:
        """One step from ``[n, L]`` sequences the policy drew and their ``[n]`` scores, n >= 1, in the order drawn."""
        assert len(tokens) == len(scores) > 0, (len(tokens), len(scores))
        with one_thread():
            draws = self.policy.score(tokens)
            entropy = draws.entropy.detach()
            rewards = scores + self.config.entropy_weight * entropy.double().numpy()
            advantages = torch.tensor([self._advantage(reward) for reward in rewards.tolist()])
            loss = (self.config.skip_weight * draws.skip_penalty - draws.log_prob * advantages).mean()
            self._adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._step()
        assert self.baseline is not None
        return UpdateReport(
            num_sequences=len(scores),
            mean_score=float(scores.mean()),
            baseline=self.baseline,
            entropy=float(entropy.mean()),
            skip_penalty=float(draws.skip_penalty.detach().mean()),
        )

    def _advantage(self, reward: float) -> float:
        if self.baseline is None:
            self.baseline = reward
        self.baseline -= (1 - self.config.baseline_decay) * (self.baseline - reward)
        return reward - self.baseline

    def _step(self) -> None:
        """Adam's. TensorFlow adds epsilon before the second moment's bias is corrected, torch after it."""
        self._num_updates += 1
        corrected = self.config.epsilon / (1 - self.config.betas[1] ** self._num_updates) ** 0.5
        for group in self._adam.param_groups:
            group["eps"] = corrected
        self._adam.step()
