"""The share of proposals that does not go by the process."""

from __future__ import annotations

import math

import pytest

from nao_ray import registry, rng
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.strategies.parts.nao_shares import MOST, blind_share, with_blind
from nao_ray.trial import Diagnostics, Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nas_bench_201")()
QUICK = {"pretraining": {"steps": 10, "genotypes": 60}, "candidates": 40, "top_k": 4, "neighbours": 4}


def test_the_share_grows_as_less_is_predicted_and_not_by_a_few_results() -> None:
    shares = [blind_share(rho, 100) for rho in (0.9, 0.6, 0.2, 0.0, -0.3, -0.9)]
    assert shares[:2] == [0.0, 0.0]
    assert 0 < shares[2] < shares[3] < shares[4] == shares[5] == MOST
    assert [blind_share(-0.5, count) for count in (2, 5, 9)] == [0.0, 0.0, 0.0]
    assert blind_share(math.nan, 100) == blind_share(0.0, 100)
    assert blind_share(1.0, 100) == blind_share(1.0, 12) == 0.0


def test_blind_ones_are_neighbours_of_the_best_and_random_ones() -> None:
    draws = rng.child(0, "shares")
    best = SPACE.sample(draws)
    source = Observation(0, best, 0.9, round=0, predicted_score=None, source_score=None)
    found = dict.fromkeys(SPACE.sample(draws) for _ in range(450))
    queue = [Proposal(genotype=genotype, round=3) for genotype in found][:400]
    taken = {best.key} | {draft.genotype.key for draft in queue}
    mixed = with_blind(queue, 0.3, SPACE, [source], set(taken), draws)
    assert len(mixed) == len(queue)
    blind = [draft for draft in mixed if draft.genotype.key not in taken]
    assert [draft for draft in mixed if draft not in blind] == queue[: len(queue) - len(blind)], "in their order"
    assert len({draft.genotype.key for draft in mixed}) == len(mixed)
    assert 60 < len(blind) < 130, "three of thirteen places"
    near = sum((SPACE.encode(draft.genotype) != SPACE.encode(best)).sum() == 1 for draft in blind)
    assert 10 < near <= 24, "half of them ask for neighbours, of which there are few"
    assert with_blind(queue, 0.0, SPACE, [source], set(taken), draws) == queue


def searched(shuffled: bool, **settings: object) -> tuple[list[str], list[Diagnostics]]:
    strategy = Nao(SPACE, NaoConfig.model_validate({**QUICK, **settings}), seed=0, fidelity=Fidelity())
    rows: list[Diagnostics] = []
    keys: list[str] = []
    for k in range(36):
        (proposal,) = strategy.ask(1)
        keys.append(proposal.genotype.key)
        convolutions = proposal.genotype.key.count("nor_conv_3x3")
        score = rng.child(k, "noise").random() if shuffled else 0.1 * convolutions + 0.01 * len(keys[-1].split("none"))
        strategy.tell([Trial(proposal=proposal).complete(Measurement(valid_accuracy=score), log_index=k)])
        rows += strategy.diagnostics()
    return keys, rows


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_search_is_blind_where_scores_are_noise(shuffled: bool) -> None:
    keys, rows = searched(shuffled)
    shares = [float(row["blind_share"] or 0.0) for row in rows]
    assert shares[:5] == [0.0] * 5
    assert (max(shares) > 0.1) == shuffled
    assert (keys != searched(shuffled, blind=False)[0]) == shuffled
    assert keys == searched(shuffled)[0], "the same seed, the same proposals"
