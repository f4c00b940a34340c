"""Random search with shared weights: the control of every search that learns from shared scores.

Li, Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, arXiv 1902.07638: every
step trains a random genotype; at the end random ones are scored, and the best of them trained alone.
"""

from __future__ import annotations

from collections.abc import Generator

from pydantic import Field

from nao_ray import rng as streams
from nao_ray.strategies.parts.shared_search import (
    RandomSampling,
    Scored,
    SharedConfig,
    SharedSearch,
    random_genotypes,
)
from nao_ray.trial import Proposal, Trial


class SharedRandomSearchConfig(SharedConfig):
    """Settings of `SharedRandomSearch`."""

    paths: int = Field(default=1000, ge=1)
    """Random genotypes whose paths a round trains, anew in each round."""
    sampling: RandomSampling = "uniform"
    """How a step draws one of them: evenly; `size`: in proportion to their parameters; `fair`: in turn, where every
    choice of a place, such as an operation of an edge, comes once before any comes again."""
    scored: int = Field(default=1000, ge=1)
    """Random genotypes scored after each round."""


class SharedRandomSearch(SharedSearch[SharedRandomSearchConfig]):
    """Learns nothing but the weights."""

    Config = SharedRandomSearchConfig

    def scored_in(self, round_: int) -> int:
        return self.config.scored

    def script(self) -> Generator[list[Proposal], list[Trial], Scored]:
        scored: Scored = {}
        for index in range(self.config.rounds):
            generator = streams.child(self.seed, "random round", index)
            yield from self.train_random(self.config.paths, self.config.sampling, generator)
            scored = yield from self.score(random_genotypes(self.space, self.config.scored, generator), index)
            values = [value for _, value in scored.values()]
            self.note(index, num_scored=len(values), mean_score=_mean(values), best_score=max(values, default=None))
        return scored


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
