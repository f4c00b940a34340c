"""A strategy that tells as much of itself as one with a controller, and made-up scores."""

from nao_ray.strategies.base import Strategy
from nao_ray.trial import Proposal

SEEDS = 4


class Guided(Strategy):
    """Four seeds; once they are told a round of guesses with embeddings and predictions, and a fit."""

    told = 0
    fits = 0

    def propose(self, k, rng):
        genotype = self.unasked(rng)
        if k < SEEDS:
            return Proposal(genotype=genotype, round=0)
        if self.told < SEEDS:
            return None
        point = tuple(rng.normal(size=3).tolist())
        return Proposal(genotype=genotype, round=1, embedding=point, predicted_score=0.4 + 0.2 * rng.random())

    def observe(self, trial):
        self.told += 1

    def diagnostics(self):
        if self.told < SEEDS or self.fits:
            return []
        self.fits = 1
        return [{"round": 1, "pairwise_accuracy": 0.75}]


def value_of(trial):
    """A made-up accuracy."""
    return (sum(map(ord, trial.genotype.key)) % 97) / 97
