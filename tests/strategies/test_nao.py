"""The NAO strategy: rounds and steady, what it records, and how it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nao_ray import registry
from nao_ray.controllers.descriptors import num_live_params
from nao_ray.search.retries import FailedTrials
from nao_ray.spaces.base import SearchSpace
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.nao_config import PRESETS, NaoConfig
from nao_ray.trial import Diagnostics, FailureKind, Fidelity, Measurement, Proposal, Trial

QUICK: dict[str, Any] = {"pretraining": {"steps": 20, "genotypes": 60}, "fit": {"epochs": 5}}


def make(space: SearchSpace[Any] | None = None, **settings: Any) -> Nao:
    space = space or registry.load("space", "nao_cnn_small")()
    return Nao(space, NaoConfig(**{**QUICK, **settings}), seed=0, fidelity=Fidelity())


def finish(proposal: Proposal, log_index: int) -> Trial:
    text = proposal.genotype.key
    value = 0.5 + 0.01 * (text.split()[1::2].count("1") if "|" not in text else text.count("nor_conv_3x3"))
    return Trial(proposal=proposal, attempt=1).complete(Measurement(valid_accuracy=value), log_index=log_index)


def search(strategy: Nao, trials: int) -> tuple[list[Proposal], list[Diagnostics]]:
    proposals: list[Proposal] = []
    rows: list[Diagnostics] = []
    while len(proposals) < trials and (asked := strategy.ask(1)):
        proposals += asked
        strategy.tell([finish(asked[0], len(proposals) - 1)])
        rows += strategy.diagnostics()
    return proposals, rows


@pytest.mark.parametrize("predictor", ["gp", "mlp"])
def test_a_round_waits_for_every_trial_of_the_last(predictor: str) -> None:
    strategy = make(mode="rounds", seeds=6, round_size=4, rounds=2, predictor=predictor)
    seeds = strategy.ask(100)
    assert [p.round for p in seeds] == [0] * 6
    assert strategy.ask(1) == []
    strategy.tell([finish(proposal, k) for k, proposal in enumerate(seeds[:5])])
    assert strategy.ask(1) == [], "one seed is still out"
    strategy.tell([finish(seeds[5], 5)])
    first = strategy.ask(100)
    assert [p.round for p in first] == [1] * 4
    assert strategy.ask(1) == []
    strategy.tell([finish(proposal, 6 + k) for k, proposal in enumerate(first)])
    assert [p.round for p in strategy.ask(100)] == [2] * 4
    assert strategy.done


def test_beyond_the_seeds_large_ones_go_first() -> None:
    space = NasBench201()

    def sizes(largest_of: int) -> list[int]:
        asked = make(space, seeds=20, largest_of=largest_of, predictor="mlp").ask(60)
        return [num_live_params(space.lower(proposal.genotype)) for proposal in asked]

    plain, large = sizes(1), sizes(32)
    assert large[:20] == plain[:20], "seeds are random ones"
    assert np.mean(large[20:]) > 1.5 * np.mean(plain[20:])


@pytest.mark.parametrize("predictor", ["gp", "mlp"])
def test_steady_workers_never_wait(predictor: str) -> None:
    strategy = make(mode="steady", seeds=6, round_size=5, predictor=predictor)
    out = strategy.ask(40)
    assert len(out) == 40
    assert len({p.genotype.key for p in out}) == 40
    strategy.tell([finish(proposal, k) for k, proposal in enumerate(out[:20])])
    more = strategy.ask(8)
    assert all(p.round for p in more)
    assert len({p.genotype.key for p in out + more}) == 48


@pytest.mark.parametrize("predictor", ["gp", "mlp"])
def test_where_a_proposal_came_from_is_recorded(predictor: str) -> None:
    proposals, rows = search(make(seeds=8, round_size=4, refit_every=4, predictor=predictor), 28)
    later = [p for p in proposals if p.round]
    scores = {p.trial_id: finish(p, 0).score for p in proposals}
    stepped = [p for p in later if p.source_step_size is not None]
    assert stepped, "nothing came from a step in embedding space"
    for proposal in stepped:
        assert proposal.source_step_size in strategy_steps()
        assert proposal.source_trial_id in scores
    for proposal in later:
        assert proposal.embedding is not None
        assert np.isclose(np.linalg.norm(proposal.embedding), 1, atol=1e-5)
        assert proposal.predicted_score is not None
        assert 0.2 < proposal.predicted_score < 1.0, "in the unit of the scores"
        assert proposal.predicted_spread is not None
        assert proposal.predicted_spread >= 0
    for row in rows:
        assert row["round"]
        assert {"num_trials", "reconstruction", "pairwise_accuracy", "heldout_rank_correlation"} <= set(row)
        assert {"share_legal", "share_unique", "share_new", "predicted_gain", "previous_realised_gain"} <= set(row)
        assert row["share_legal"] == 1.0
        assert isinstance(row["num_scored"], int)
        assert row["num_scored"] <= 200
    assert [row["round"] for row in rows] == sorted({int(str(row["round"])) for row in rows})


def strategy_steps() -> tuple[float, ...]:
    return NaoConfig().schedule


def test_it_learns() -> None:
    """150 steps: as good as 600; of 60 some searches that are told noise come as far."""
    proposals, _ = search(make(seeds=10, pretraining={"steps": 150}), 40)
    scores = [finish(p, 0).score or 0.0 for p in proposals]
    assert np.mean(scores[-10:]) > np.mean(scores[:10]) + 0.08, "eight 5x5 separable convolutions more than at random"


def test_a_space_that_is_used_up_ends_the_search() -> None:
    space = NasBench201(NasBench201Config(ops=("none", "nor_conv_3x3")))
    strategy = make(space, seeds=4, round_size=4)
    proposals, _ = search(strategy, 1000)
    assert strategy.done
    assert len({p.genotype.key for p in proposals}) == len(proposals)
    assert len(proposals) == space.num_architectures


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_whole(preset: str) -> None:
    config = NaoConfig.model_validate({"preset": preset})
    assert NaoConfig.model_validate(config.model_dump()) == config, "a manifest reads back"
    if preset != "default":
        assert (config.predictor, config.mode, config.select, config.top_k) == ("mlp", "rounds", "order", 100)
        assert config.fit.epochs == 1000
        assert config.fit.learning_rate == 1e-3


def test_published_schedules() -> None:
    assert NaoConfig.model_validate({"preset": "paper"}).schedule == (10.0, 20.0, 30.0)
    assert NaoConfig.model_validate({"preset": "nao_ws_v1"}).schedule[:3] == (1.0, 2.0, 3.0)
    assert len(NaoConfig.model_validate({"preset": "v2"}).schedule) == 51
    with pytest.raises(ValueError, match="at least one step size"):
        NaoConfig(step_sizes=())
    with pytest.raises(ValueError, match="no size of this name"):
        NaoConfig.model_validate({"epd": "v9"})


@pytest.mark.parametrize("mode", ["rounds", "steady"])
def test_a_retry_is_in_the_next_fit_and_in_none_before(mode: str) -> None:
    """A round goes on from the fit it began with, also in a process that finds the retry in the log."""
    space = registry.load("space", "nao_cnn_small")()
    log: list[Trial] = []

    def told(strategy: Nao, proposal: Proposal, *, fails: bool = False) -> None:
        position = sum(trial.log_index is not None for trial in log)
        ended = finish(proposal, position)
        if fails:
            ended = Trial(proposal=proposal, attempt=1).fail(FailureKind.TIMEOUT, "late", log_index=position)
        log[:] = [trial for trial in log if trial.trial_id != proposal.trial_id] + [ended]
        strategy.tell([ended])

    def restored() -> Nao:
        strategy = make(space, mode=mode, seeds=6, round_size=4, refit_every=4, predictor="gp")
        strategy.restore(log)
        return strategy

    strategy = restored()
    for k, proposal in enumerate(strategy.ask(6)):
        told(strategy, proposal, fails=k == 2)
    failed = FailedTrials()
    list(failed.passing(log))
    (retry,) = failed.again(failed.of_kind(), seed=0)
    log.append(Trial(proposal=retry))
    strategy = restored()
    (first,) = strategy.ask(1)
    (row,) = strategy.diagnostics()
    told(strategy, retry)
    assert (first.trial_id, retry.trial_id, row["num_trials"]) == (7, 6, 5 if mode == "rounds" else 3)
    after = restored()
    log.append(Trial(proposal=first))
    again = restored().ask(3)
    assert again == strategy.ask(3), "the round goes on"
    assert after.ask(1)[0].round == first.round
    (row,) = after.diagnostics()
    assert row["num_trials"] == (6 if mode == "rounds" else 4), "nothing of the round had been asked yet"
