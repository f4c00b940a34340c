"""NAO against its controls on a noisy function of the cell, with the same budget: a search in small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.bench._landscape import UNIT, Landscape
from nao_ray.trial import Fidelity, Measurement, Trial

NOISE, BUDGET, SEEDS = 0.3, 60, 3
EMBEDDED = {
    "mode": "rounds",
    "seeds": 24,
    "rounds": 2,
    "round_size": 18,
    "pretraining": {"steps": 100, "genotypes": 400},
}


def search(name: str, settings: dict[str, Any], seed: int, space_name: str = "nao_cnn") -> tuple[float, float]:
    """Noise-free score, in deviations of the space, of the best measured trial; and the mean of the last 36 trials."""
    space = registry.load("space", space_name)()
    landscape = Landscape(space, seed)
    cls = registry.load("strategy", name)
    strategy = cls(space, cls.Config(**settings), seed, Fidelity())
    measured, truth = [], []
    for index in range(BUDGET):
        (proposal,) = strategy.ask(1)
        score = landscape.measure(proposal.genotype, rng.child(seed, "study", index), NOISE)
        strategy.tell([Trial(proposal=proposal).complete(Measurement(valid_accuracy=score), log_index=index)])
        measured.append(score)
        truth.append((landscape(proposal.genotype) - 0.9) / UNIT)
    return truth[int(np.argmax(measured))], float(np.mean(truth[-36:]))


@pytest.mark.slow
def test_nao_beats_random_search_and_evolution() -> None:
    nao = [search("nao", EMBEDDED, seed) for seed in range(SEEDS)]
    for name, settings in (("random_search", {}), ("regularized_evolution", {"population": 20, "sample": 5})):
        control = [search(name, settings, seed) for seed in range(SEEDS)]
        for ours, theirs in zip(nao, control, strict=True):
            assert ours[0] > theirs[0] + 1.0, f"{name}: a whole deviation better, with each seed"
            assert ours[1] > theirs[1], f"{name}: and the rounds are better on average, with each seed"
