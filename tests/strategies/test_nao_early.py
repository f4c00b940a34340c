"""What is said of trainings under way by how finished ones stood, and what a search makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from _quick import ON_GRAPHS

from nao_ray import registry
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.ladder import Ladder
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_early import MOST, Early, early
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.trial import Fidelity, Interim, Measurement, Proposal, Trial

SPACE = registry.load("space", "nao_cnn_small")()
GENOTYPES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(400)]
ENDS = [0.5, 0.6, 0.7, 0.8]


def finished(ends: Sequence[float] = ENDS) -> list[Observation]:
    return [Observation(k, GENOTYPES[k], end, 0, None, None, epochs=9) for k, end in enumerate(ends)]


def said(heard: Mapping[int, Mapping[int, float]], ends: Sequence[float] = ENDS) -> Early | None:
    """Of all that is heard of trials beyond the finished ones."""
    pending = {trial_id: GENOTYPES[trial_id % 400] for trial_id in sorted(heard) if trial_id >= len(ends)}
    return early(finished(ends), pending, heard)


def in_order(done: int = 3) -> dict[int, dict[int, float]]:
    """The finished ones stood, after so many epochs, in the order in which they ended."""
    return {k: {done: end / 2} for k, end in enumerate(ENDS)}


def test_its_place_among_early_scores_is_its_place_among_the_ends() -> None:
    found = said({**in_order(), 10: {3: 0.325}, 11: {3: 0.45}, 12: {3: 0.2}})
    assert found is not None
    assert [seen.trial_id for seen in found.trials] == [10, 11, 12]
    scores = [seen.score for seen in found.trials]
    assert scores == pytest.approx([0.65, 0.9, 0.4]), "in between linearly, beyond with the mean slope"
    assert found.rest({10: GENOTYPES[0], 20: GENOTYPES[1]}) == {20: GENOTYPES[1]}
    assert found.doubt == pytest.approx([0.5 * 3 / 7] * 3), "none of four missed its place"
    assert found.row() == {"num_early": 3, "early_doubt": pytest.approx(1.5 / 7)}


def test_what_tells_nothing_of_the_end_is_doubted() -> None:
    inverted = {k: {3: 1 - end} for k, end in enumerate(ENDS)}
    found, other = said({**inverted, 10: {3: 0.35}}), said({**in_order(), 10: {3: 0.35}})
    assert found is not None
    assert other is not None
    assert found.doubt[0] > 4 * other.doubt[0]


def test_they_are_compared_as_they_stood_after_as_many_epochs() -> None:
    course = {k: {2: 0.1 + 0.1 * k, 6: 0.3 + 0.1 * k} for k in range(4)}  # after four epochs 0.2, 0.3, 0.4, 0.5
    found = said({**course, 10: {2: 0.0, 4: 0.4}})
    assert found is not None
    assert found.trials[0].score == pytest.approx(0.7), "of what was heard the latest counts"
    assert said({**course, 10: {1: 0.4}}) is None, "nobody knows how they stood after one epoch"
    late = said({**course, 10: {9: 0.65}})
    assert late is not None
    assert late.trials[0].score == pytest.approx(0.65), "at the end they stood where they ended"


def test_the_curves_of_finished_ones_are_what_is_compared_with() -> None:
    log = search(make(), 8, tell=False, curve=True)
    strategy = make()
    strategy.restore(log)
    (under_way,) = [trial for trial in log if trial.log_index is None][:1]
    strategy.hear([Interim(under_way.trial_id, 20, 0.3)])
    strategy.ask(1)
    assert strategy.diagnostics()[-1]["num_early"] == 1, "though no other was ever heard of"
    seen = strategy._memory.told[0]
    assert [done for done, _ in seen.course] == [1, 4, 8, 11, 14, 17, 21, 24, 27, 30, 34, 37, 40, 43, 47, 50]
    assert seen.course[-1][1] == seen.score


@pytest.mark.parametrize(
    ("measured", "course"),
    [
        (Measurement(valid_accuracy=0.5, curve=(0.25, 0.5)), {1: 0.25, 2: 0.5}),
        (Measurement(valid_perplexity=8.0, curve=(16.0, float("nan"), 8.0)), {1: -16.0, 3: -8.0}),
        (Measurement(valid_score=8.0, goal="minimize", curve=(16.0, 8.0)), {1: -16.0, 2: -8.0}),
        (Measurement(valid_score=8.0, goal="maximize", curve=(4.0,)), {1: 4.0}),
        (Measurement(valid_accuracy=0.5), {}),
    ],
)
def test_a_course_is_a_curve_in_scores(measured: Measurement, course: dict[int, float]) -> None:
    assert measured.course == course


def test_nothing_is_said_without_two_to_compare_with() -> None:
    assert said({0: {3: 0.2}, 10: {3: 0.3}}) is None
    assert said({0: {3: 0.2}, 1: {3: 0.3}, 10: {3: 0.3}}) is not None
    assert said(in_order()) is None, "nothing is under way"
    assert said({}) is None


def test_of_many_under_way_some_are_taken_in() -> None:
    found = said({**in_order(), **{100 + k: {3: 0.2 + k / 1000} for k in range(300)}})
    assert found is not None
    assert len(found.trials) == len(found.doubt) == MOST
    best = [399 - k for k in range(MOST // 2)]
    assert set(best) <= {seen.trial_id for seen in found.trials}


# -- in a search ------------------------------------------------------------------------------------------


def make(**settings: Any) -> Nao:
    return Nao(SPACE, NaoConfig(**ON_GRAPHS | settings), seed=0, fidelity=Fidelity(epochs=9))


def truth(proposal: Proposal) -> float:
    return 0.5 + 0.01 * proposal.genotype.key.split()[1::2].count("1")


def search(strategy: Nao, trials: int, under_way: int = 4, tell: bool = True, curve: bool = False) -> list[Trial]:
    """One ends at a time, of which it was heard before; of those under way it is heard when the next one is asked."""
    done, running = list[Trial](), list[Proposal]()
    while len(done) < trials:
        if tell:
            strategy.hear([Interim(proposal.trial_id, 3, truth(proposal) / 2) for proposal in running])
        running += strategy.ask(under_way - len(running))
        proposal = running.pop(0)
        value = truth(proposal)
        course = tuple(value * min(1.0, k / 50) for k in range(1, 51)) if curve else None
        measured = Measurement(valid_accuracy=value, curve=course)
        done.append(Trial(proposal=proposal).complete(measured, log_index=len(done)))
        strategy.tell(done[-1:])
    return [*done, *(Trial(proposal=proposal) for proposal in running)]


def test_a_proposal_keeps_what_was_heard_and_replay_gives_the_same() -> None:
    strategy = make()
    log = search(strategy, 14)
    assert all(not trial.proposal.heard for trial in log[:4])
    assert {interim.trial_id for trial in log for interim in trial.proposal.heard} == set(range(1, 16))
    assert all(
        interim.trial_id in range(trial.trial_id - 3, trial.trial_id)
        for trial in log
        for interim in trial.proposal.heard
    ), "of those under way alone"
    again = make()
    again.restore(log)
    assert again.heard == strategy.heard
    assert [again.ask(1) for _ in range(3)] == [strategy.ask(1) for _ in range(3)]


def test_it_goes_by_what_it_hears() -> None:
    heard, deaf, alone = (
        [trial.genotype.key for trial in search(make(**settings), 14, tell=tell)]
        for settings, tell in (({}, True), ({"early": False}, True), ({}, False))
    )
    assert deaf == alone
    assert heard[:4] == deaf[:4]
    assert heard != deaf


def test_a_fit_says_how_much_it_heard() -> None:
    strategy = make()
    search(strategy, 10)
    rows = strategy.diagnostics()
    assert [row.get("num_early") for row in rows[-2:]] == [3, 3]
    assert all(0 < float(row["early_doubt"] or 0) < 0.5 for row in rows[-2:])


def test_what_is_told_again_is_heard_once_and_a_round_fits_once() -> None:
    strategy = make()
    search(strategy, 8)
    running = [trial_id for trial_id in strategy._memory.asked if trial_id >= 8]
    strategy.diagnostics()
    strategy.hear([Interim(trial_id, 5, 0.25) for trial_id in running])
    asked = strategy.ask(3)
    assert [len(proposal.heard) for proposal in asked] == [3, 0, 0]
    assert len(strategy.diagnostics()) == 1
    strategy.hear([Interim(trial_id, 5, 0.25) for trial_id in running])
    assert strategy.ask(1)[0].heard == ()
    assert strategy.diagnostics() == []


def test_what_ended_before_the_next_proposal_was_never_heard() -> None:
    strategy = make()
    first, *_ = strategy.ask(3)
    strategy.hear([Interim(0, 1, 0.2), Interim(1, 1, 0.2), Interim(2, 1, float("nan"))])
    strategy.hear([Interim(1, 2, 0.3)])
    strategy.tell([Trial(proposal=first).complete(Measurement(valid_accuracy=0.5), log_index=0)])
    (proposal,) = strategy.ask(1)
    assert proposal.heard == (Interim(1, 2, 0.3),)
    assert strategy.heard == {0: {}, 1: {2: 0.3}}, "as whoever replays the log has it"


def test_on_a_ladder_the_rungs_tell() -> None:
    ladder = Ladder(make(), (1, 9), 0.5)
    ladder.ask(2)
    ladder.hear([Interim(0, 1, 0.2)])
    assert ladder.ask(1)[0].heard == ()


@pytest.mark.parametrize("settings", [{"predictor": "mlp"}, {"mode": "rounds"}, {"early": False}])
def test_others_do_not_hear(settings: dict[str, Any]) -> None:
    assert not NaoConfig(**settings).hears
    assert NaoConfig().hears
