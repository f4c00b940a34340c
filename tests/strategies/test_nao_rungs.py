"""NAO on a ladder: which rung its process stands on, when a lower one helps, when it is left alone, who goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from _quick import ON_GRAPHS
from _search import check_restored

from nao_ray import registry
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.ladder import Ladder
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_rungs import ENOUGH, FEWEST
from nao_ray.trial import Diagnostics, Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nao_cnn_small")()
Scores = Callable[[str, int], float]


def noise(key: str) -> float:
    """Of the architecture, in [0, 1]."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def truth(key: str) -> float:
    return 0.5 + 0.01 * key.split()[1::2].count("1") + 0.002 * noise(key)


def helps(key: str, epochs: int) -> float:
    """Lower, and in the order of the truth."""
    return truth(key) - 0.4 / epochs


def misleads(key: str, epochs: int) -> float:
    """Fewer epochs say nothing."""
    return truth(key) if epochs == 9 else noise(key)


def make(rungs: tuple[int, ...] = (1, 9), seed: int = 0, keep: float = 0.5, **settings: Any) -> Ladder:
    inner = Nao(SPACE, NaoConfig(**ON_GRAPHS | settings), seed=seed, fidelity=Fidelity(epochs=rungs[0]))
    return Ladder(inner, rungs, keep)


def search(
    strategy: Ladder, trials: int, scores: Scores, log: Sequence[Trial] = ()
) -> tuple[list[Trial], list[Diagnostics]]:
    """One at a time, from a log whose trials have all ended."""
    done, rows = list(log), list[Diagnostics]()
    strategy.restore(done)
    while len(done) < trials:
        (proposal,) = strategy.ask(1)
        measured = Measurement(valid_accuracy=scores(proposal.genotype.key, proposal.fidelity.epochs or 0))
        done.append(Trial(proposal=proposal).complete(measured, log_index=len(done)))
        strategy.tell(done[-1:])
        rows += strategy.diagnostics()
    return done, rows


@cache
def searched(scores: Scores) -> tuple[Ladder, list[Trial], list[Diagnostics]]:
    """40 trials, done once; neither is changed."""
    return (strategy := make(), *search(strategy, 40, scores))


def of(trials: list[Trial], epochs: int) -> list[Trial]:
    return [trial for trial in trials if trial.proposal.fidelity.epochs == epochs]


def test_the_process_stands_on_the_highest_rung_with_enough_results() -> None:
    _, trials, rows = searched(helps)
    told = [row for row in rows if "rung" in row]
    assert {row["rung"] for row in told} == {1, 9}
    for row in told:
        counts = {
            int(rung): int(count) for rung, _, count in (w.partition(":") for w in str(row["rung_trials"]).split())
        }
        assert row["rung"] == (9 if counts.get(9, 0) >= ENOUGH else 1)
        assert row["num_trials"] == counts[int(row["rung"] or 0)], "rungs are never mixed"
    assert not any("rung" in row for row in rows if row not in told), "as long as there is one rung alone"
    assert len(of(trials, 9)) > ENOUGH


def test_a_rung_that_helps_is_used_and_one_that_misleads_is_left_alone() -> None:
    told = searched(helps)[2], search(make(), 60, misleads)[1]
    on, off = ([row for row in rows if row.get("rung") == 9] for rows in told)
    weights = [[float(str(row["rung_weights"]).removeprefix("1>9:")) for row in rows] for rows in (on, off)]
    assert min(weights[0]) >= 0.5, "on in every fit, by more where its own results say less"
    assert max(weights[1][len(weights[1]) // 2 :]) <= 0.5, "it has the least say that there is"
    assert weights[1][-1] == 0, "and none once its own results have spoken"
    assert float(str(on[-1]["rung_correlations"]).removeprefix("1>9:")) == 1.0
    assert all("warm_start" not in row for row in on), "there is no earlier pool"


def test_who_goes_on_is_foretold_where_the_process_predicts_and_by_the_score_where_it_does_not() -> None:
    strategy, trials, _ = searched(helps)
    assert strategy.inner.foretell(of(trials, 1)) is None, "nothing ranks better than scores in the order of the truth"
    strategy, trials, _ = searched(misleads)
    paused = of(trials, 1)
    foretold = strategy.inner.foretell(paused)
    assert foretold is not None
    best = sorted(zip(foretold, paused, strict=True), key=lambda pair: -pair[0])[:10]
    mean = sum(truth(trial.genotype.key) for trial in paused) / len(paused)
    assert sum(truth(trial.genotype.key) for _, trial in best) / 10 > mean + 0.005
    assert strategy.inner.foretell(of(trials, 9)) is None, "they are at the top"
    few, _ = search(strategy := make(), 6, misleads)
    assert strategy.inner.foretell(of(few, 1)) is None, "nothing is known of the higher rung yet"


@pytest.mark.parametrize(("spread_weight", "goes_on"), [(0.0, True), (100.0, False)])
def test_one_that_may_be_better_than_anything_new_goes_on_at_once(spread_weight: float, goes_on: bool) -> None:
    trials, _ = search(make(keep=0.01, spread_weight=spread_weight), 12, helps)
    assert of(trials[:FEWEST], 9) == [], "a few results say nothing of who is to go on"
    assert bool(of(trials, 9)) == goes_on, "where doubt counts, something new may always be better"


def test_three_rungs_are_a_chain() -> None:
    _, rows = search(make((1, 3, 9), keep=0.6), 44, helps)
    last = [row for row in rows if row.get("rung") == 9][-1]
    assert [step.partition(":")[0] for step in str(last["rung_weights"]).split()] == ["1>3", "3>9"]
    assert [step.partition(":")[2] for step in str(last["rung_correlations"]).split()] == ["1.00", "1.00"]


@pytest.mark.parametrize("scores", [helps, misleads])
def test_the_same_log_gives_the_same_proposals_anywhere(scores: Scores) -> None:
    _, whole, _ = searched(scores)
    for finished in (13, 27):
        assert search(make(), 32, scores, whole[:finished])[0] == whole[:32], finished


def test_a_search_of_several_workers_that_dies_anywhere_goes_on_as_it_would_have() -> None:
    check_restored(lambda: make(keep=0.6), 34, range(18, 34, 5), in_flight=3)


def test_an_mlp_knows_the_first_rung_alone() -> None:
    small = {"predictor": "mlp", "refit_every": 4, "epd": {"hidden": 4, "embedding": 4}, "fit": {"epochs": 1}}
    trials, rows = search(make(**small), 14, helps)
    assert of(trials, 9)
    assert not any("rung" in row for row in rows)
    assert rows[-1]["num_trials"] <= len(of(trials, 1))


def test_what_is_predicted_is_compared_at_its_own_rung() -> None:
    _, trials, rows = searched(helps)
    gains = [float(row["predicted_gain"] or 0) for row in rows if row.get("rung") == 9]
    assert max(abs(gain) for gain in gains) < 0.2, "a rung apart is 0.36"
    proposals: list[Proposal] = [trial.proposal for trial in of(trials, 1)[-5:]]
    assert all((proposal.predicted_score or 0) > 0.45 for proposal in proposals), "of the top rung"
