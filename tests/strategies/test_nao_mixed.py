"""Shared scores and networks trained alone as two fidelities of one predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.strategies.nao_mixed import NaoMixed, NaoMixedConfig
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nas_bench_201")()
NAO = {"pretraining": {"steps": 20, "genotypes": 50}, "candidates": 60, "neighbours": 4}
WORTH = {"nor_conv_3x3": 1.0, "nor_conv_1x1": 0.6, "skip_connect": 0.3, "avg_pool_3x3": 0.1, "none": 0.0}


def worth(proposal: Proposal) -> float:
    """Of a cell trained alone: more for later edges."""
    ops = [edge.split("~")[0] for edge in proposal.genotype.key.replace("+", "").split("|") if edge]
    return float(sum(WORTH[op] * (1 + 0.2 * place) for place, op in enumerate(ops))) / 10


def shared(proposal: Proposal, kind: str) -> float:
    if kind == "true":
        return worth(proposal) / 3 + 0.1
    return rng.child(0, proposal.genotype.key).random()


def make(seed: int = 3, **settings: Any) -> NaoMixed:
    given = {"paths": 5, "epochs": 2, "scored": 60, "alone": 6, "at_once": 3, "audited": 4, "nao": NAO, **settings}
    return NaoMixed(SPACE, NaoMixedConfig(**given), seed, Fidelity(epochs=7))


def run(strategy: NaoMixed, kind: str = "true") -> tuple[list[Trial], list[dict[str, Any]]]:
    """The whole search, what may be done at once asked at once and told backwards."""
    log: list[Trial] = []
    while not strategy.done:
        proposals = strategy.ask(10_000)
        assert proposals, "stuck"
        for proposal in reversed(proposals):
            if proposal.phase:
                told = Measurement(train_loss=1.0)
            else:
                is_shared = proposal.fidelity.weights_version is not None
                value = shared(proposal, kind) if is_shared else worth(proposal)
                told = Measurement(valid_accuracy=value, num_params=1000 - round(1000 * worth(proposal)))
            log.append(Trial(proposal=proposal, attempt=1).complete(told, log_index=strategy.num_told))
            strategy.tell(log[-1:])
    return sorted(log, key=lambda trial: trial.trial_id), [dict(row) for row in strategy.diagnostics()]


def kinds(log: list[Trial]) -> list[str]:
    def kind(trial: Trial) -> str:
        if trial.proposal.phase:
            return "phase"
        return "alone" if trial.proposal.fidelity.weights_version is None else "scored"

    return [kind(trial) for trial in log]


def alone(log: list[Trial]) -> list[Trial]:
    return [trial for trial, kind in zip(log, kinds(log), strict=True) if kind == "alone"]


@pytest.fixture(scope="module")
def searched() -> tuple[list[Trial], list[dict[str, Any]], NaoMixed]:
    strategy = make(rounds=2)
    return *run(strategy), strategy


def test_each_round_trains_scores_and_trains_some_alone(searched: Any) -> None:
    log, _, strategy = searched
    assert kinds(log) == ["phase", *["scored"] * 60, *["alone"] * 10, "phase", *["scored"] * 70, *["alone"] * 6]
    assert strategy.planned == len(log)
    assert make(rounds=2).planned == len(log)
    assert all(trial.proposal.fidelity == Fidelity(epochs=7) for trial in alone(log))
    assert len({trial.genotype.key for trial in alone(log)}) == 16
    second = [trial for trial in log if trial.proposal.fidelity.weights_version == "e00004"]
    assert {trial.genotype.key for trial in alone(log)[:10]} <= {trial.genotype.key for trial in second}
    known = {trial.trial_id for trial in alone(log)}
    origins = [trial.proposal.source_trial_id for trial in alone(log)[4:]]
    assert all(origin is None or (origin in known) for origin in origins)
    assert any(origin is not None for origin in origins)


def test_the_first_are_a_random_sample_of_the_scored_and_are_the_audit(searched: Any) -> None:
    log, rows, _ = searched
    sample = alone(log)[:4]
    first = {trial.genotype.key for trial in log if trial.proposal.fidelity.weights_version == "e00002"}
    assert {trial.genotype.key for trial in sample} <= first
    (audit,) = [row for row in rows if "audited" in row]
    assert (audit["audited"], audit["audit_tau"], audit["audit_tau_params"]) == (4, 1.0, -1.0)
    assert audit["audit_trials"] == " ".join(str(trial.trial_id) for trial in sample)


def test_scores_that_rank_are_used_and_lead_where_random_ones_are_left_alone() -> None:
    used, chosen = {}, {}
    for kind in ("true", "random"):
        logs = [run(make(seed), kind) for seed in range(3)]
        fits = [row for _, rows in logs for row in rows if "warm_start" in row]
        assert {row["warm_start_source"] for row in fits} == {"shared weights of round 0"}
        used[kind] = np.mean([row["warm_start"] == "on" for row in fits])
        chosen[kind] = np.mean([trial.score for log, _ in logs for trial in alone(log)[4:7]])
    assert used["true"] > 0.8
    assert used["random"] < used["true"] - 0.3
    assert chosen["true"] > chosen["random"], "by the first fit, after four results"


def test_a_replay_goes_on_as_the_search_would_have(searched: Any) -> None:
    whole, _, _ = searched
    for cut in (1, 61, 68, len(whole) - 2):
        again = make(rounds=2)
        again.restore(whole[:cut])
        if again.num_asked == len(whole) or not (proposals := again.ask(1)):
            continue
        expected = whole[again.num_asked - 1].proposal
        assert (proposals[0].genotype, proposals[0].fidelity) == (expected.genotype, expected.fidelity)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"finalists": 2}, "chosen by the predictor; give alone"),
        ({"nao": {"predictor": "mlp"}}, "prior of the steady gp"),
        ({"nao": {"warm_start": ["pool"]}}, "what the search fills in"),
    ],
)
def test_what_has_no_meaning_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NaoMixedConfig(**settings)
