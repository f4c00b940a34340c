"""REINFORCE with an LSTM policy: batches of sequences, each drawn, measured where it is new, and learnt from.

ENAS draws with repetition and scores every draw; here a score is known once it was measured, so a repeated draw costs
no evaluation and counts in the update with the score it has. A batch without anything new is learnt from at once.

Legend: `n` sequences of a batch, `L` tokens per genotype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nao_ray import rng as streams
from nao_ray.controllers.lstm import make_policy
from nao_ray.controllers.policy import LstmConfig
from nao_ray.controllers.policy_gradient import PolicyGradient
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens
from nao_ray.trial import Diagnostics, Proposal


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the policy drew at once."""

    index: int
    tokens: Tokens
    """``[n, L]``, as drawn."""
    genotypes: tuple[Genotype, ...]
    """The canonical ones of the rows."""
    new: tuple[Genotype, ...]
    """Those of them to measure, each once."""


class LstmBatches:
    """The policy, and the batch whose new architectures are asked for now; failed trials teach nothing."""

    def __init__(self, space: SearchSpace[Any], config: LstmConfig, redraws: int, seed: int) -> None:
        self._space, self._config, self._redraws, self._seed = space, config, redraws, seed
        self.network = make_policy(space.name, space.token_mask, config, streams.torch_generator(seed, "policy"))
        self._gradient = PolicyGradient(self.network, config)
        self._scores: dict[str, float | None] = {}  # of every key told; None: failed
        self._rows: list[Diagnostics] = []
        self._batch = self._next_batch(0)

    @property
    def waits(self) -> bool:
        """True until every new architecture of the batch is finished."""
        return bool(self._batch.new)

    def propose(self, visited: set[str], rng: np.random.Generator) -> Proposal | None:
        """The next new one of the batch."""
        for genotype in self._batch.new:
            if genotype.key not in visited:
                return Proposal(genotype=genotype, round=self._batch.index)
        return None

    def observe(self, genotype: Genotype, reward: float | None) -> None:
        """With the last result of the batch: one update, and the next batch."""
        self._scores[genotype.key] = reward
        if all(genotype.key in self._scores for genotype in self._batch.new):
            self._learn(self._batch)
            self._batch = self._next_batch(self._batch.index + 1)

    def take_rows(self) -> list[Diagnostics]:
        """One row per update since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def _next_batch(self, index: int) -> _Batch:
        """The first batch from `index` on with something new in it; one without, after more than `redraws` draws."""
        draws = 0
        while True:
            batch = self._draw(index)
            draws += len(batch.tokens)
            if batch.new or draws > self._redraws:
                return batch
            self._learn(batch)
            index += 1

    def _draw(self, index: int) -> _Batch:
        tokens = self.network.sample(
            self._config.num_aggregate, streams.child(self._seed, "policy batch", index)
        ).tokens
        genotypes = tuple(self._space.canonical(self._space.decode(row)) for row in tokens)
        unknown = [genotype for genotype in dict.fromkeys(genotypes) if genotype.key not in self._scores]
        new = tuple(genotype for genotype in unknown if not self._space.refusal(genotype))
        return _Batch(index, tokens, genotypes, new)

    def _learn(self, batch: _Batch) -> None:
        """One update on the draws that have a score, in the order drawn."""
        scores = [self._scores.get(genotype.key) for genotype in batch.genotypes]
        rows = [row for row, score in enumerate(scores) if score is not None]
        if rows:
            report = self._gradient.update(
                batch.tokens[rows], np.array([scores[row] for row in rows], dtype=np.float64)
            )
            self._rows.append({"round": batch.index, "num_new": len(batch.new), **report.row()})
