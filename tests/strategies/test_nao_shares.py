"""The share of proposals that does not go by the process."""

from __future__ import annotations

import math

import pytest

from nao_ray import registry, rng
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.strategies.parts.nao_shares import MOST, RECENT, blind_share, reached_share, unpaid_share, with_blind
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


def observed(score: float | None, predicted: float | None) -> Observation:
    return Observation(0, SPACE.sample(rng.child(0, "any")), score, 0, predicted, source_score=None)


def test_a_process_is_paid_by_what_its_last_proposals_reached() -> None:
    kept, broken, failed, blind = observed(0.9, 0.9), observed(0.8, 0.9), observed(None, 0.9), observed(0.1, None)
    assert reached_share([broken] * (RECENT - 1) + [failed, blind]) is None
    assert reached_share([kept, failed, broken, blind] * RECENT) == 0.5
    assert reached_share([broken] * 50 + [kept] * RECENT) == 1.0
    assert reached_share([kept] * 50 + [broken] * RECENT) == 0.0
    shares = [unpaid_share(reached) for reached in (None, 1.0, 0.5, 0.4, 0.3, 0.1, 0.0)]
    assert shares[:4] == [0.0] * 4
    assert 0 < shares[4] < shares[5] < shares[6] < MOST


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
    keys, rows = searched(shuffled, unpaid=False)
    shares = [float(row["blind_share"] or 0.0) for row in rows]
    assert shares[:5] == [0.0] * 5
    assert (max(shares) > 0.1) == shuffled
    assert (keys != searched(shuffled, blind=False, unpaid=False)[0]) == shuffled
    assert keys == searched(shuffled, unpaid=False)[0], "the same seed, the same proposals"


def test_a_search_asks_without_a_process_that_never_comes_to_what_it_predicts() -> None:
    strategy = Nao(SPACE, NaoConfig.model_validate({**QUICK, "blind": False}), seed=0, fidelity=Fidelity())
    rows: list[Diagnostics] = []
    for k in range(26):
        (proposal,) = strategy.ask(1)
        score = 0.1 * proposal.genotype.key.count("nor_conv_3x3")
        if proposal.predicted_score is not None:
            score = min(score, proposal.predicted_score - 0.001)
        strategy.tell([Trial(proposal=proposal).complete(Measurement(valid_accuracy=score), log_index=k)])
        rows += strategy.diagnostics()
    assert (rows[0]["reached_share"], rows[0]["blind_share"]) == (None, 0.0)
    assert (rows[-1]["reached_share"], rows[-1]["blind_share"]) == (0.0, unpaid_share(0.0))
