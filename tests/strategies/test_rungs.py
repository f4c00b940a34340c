"""The ladder of fidelities around strategies: who goes on, what the strategy within sees, and that replay holds."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from _search import check_restored, search

from nao_ray import registry, rng
from nao_ray.contracts import strategies as contract
from nao_ray.evaluators.closed_form import ClosedForm, ClosedFormConfig
from nao_ray.pareto import Aim
from nao_ray.search.retries import FailedTrials
from nao_ray.strategies.parts.ladder import Ladder
from nao_ray.trial import FailureKind, Fidelity, Measurement, Trial

SPACE = registry.load("space", "nao_cnn_small")()
RUNGS = (1, 3, 9)
NINE = list(dict.fromkeys(SPACE.sample(rng.child(0, "given", k)).key for k in range(14)))[:9]
INNER: dict[str, dict[str, Any]] = {
    "random_search": {},
    "regularized_evolution": {"population": 8, "sample": 3},
    "local_search": {},
    "reinforce": {},
    "nao": {"seeds": 6, "top_k": 3, "neighbours": 4, "candidates": 24, "pretraining": {"steps": 2, "genotypes": 16}},
}


def ladder(name="random_search", keep=1 / 3, rungs=RUNGS, seed=3, **settings) -> Ladder:
    cls = registry.load("strategy", name)
    config = cls.Config(**INNER.get(name, {}) | settings)
    return Ladder(cls(SPACE, config, seed, Fidelity(epochs=rungs[0])), rungs, keep)


def scored(proposal, score, log_index):
    return Trial(proposal=proposal).complete(
        Measurement(valid_accuracy=score, device_seconds=2.0 * (proposal.fidelity.epochs or 0)), log_index=log_index
    )


def told(strategy, scores):
    """One trial after the other with these scores, in the order asked; the proposals."""
    asked = []
    for index, score in enumerate(scores):
        (proposal,) = strategy.ask(1)
        strategy.tell([scored(proposal, score, index)])
        asked.append(proposal)
    return asked


def test_the_best_third_goes_on_one_rung_at_a_time_the_highest_first():
    strategy = ladder()
    asked = told(strategy, [0.5, 0.7, 0.6, 0.8, 0.3, 0.2, 0.1])
    assert [(p.fidelity.epochs, p.parent_trial_id) for p in asked] == [
        (1, None),
        (1, None),
        (1, None),
        (3, 1),  # the best of three
        (1, None),
        (1, None),
        (1, None),
    ]
    (second,) = strategy.ask(1)
    assert (second.fidelity.epochs, second.parent_trial_id) == (3, 2), "the second best of six"
    strategy.tell([scored(second, 0.9, 7)])
    for index, score in enumerate([0.1, 0.1, 0.1], start=8):
        (fresh,) = strategy.ask(1)
        assert fresh.parent_trial_id is None
        strategy.tell([scored(fresh, score, index)])
    (third,) = strategy.ask(1)
    assert third.parent_trial_id == 0
    strategy.tell([scored(third, 0.4, 11)])
    (top,) = strategy.ask(1)
    assert (top.fidelity.epochs, top.parent_trial_id) == (9, second.trial_id), "the best of three at the second rung"


def test_a_promotion_is_its_parent_at_the_next_rung():
    strategy = ladder("regularized_evolution", population=2, sample=1)
    asked = told(strategy, [0.5, 0.6, 0.7, 0.8])
    parent, child = asked[2], asked[3]
    assert child == replace(
        parent, trial_id=3, parent_trial_id=2, asked_after=3, fidelity=replace(parent.fidelity, epochs=3)
    )
    assert child.seed == parent.seed, "its training goes on with the same draws"


class Watching(registry.load("strategy", "random_search")):
    """Notes what it is told."""

    def observe(self, trial):
        self.__dict__.setdefault("seen", []).append((trial.proposal.fidelity.epochs, trial.proposal.parent_trial_id))


class Ranking(Watching):
    """Wants all rungs."""

    ranks_rungs = True


@pytest.mark.parametrize(("cls", "seen"), [(Watching, {1}), (Ranking, {1, 3, 9})])
def test_the_strategy_within_is_told_of_the_first_rung_alone_unless_it_ranks_rungs(cls, seen):
    inner = cls(SPACE, cls.Config(), 3, Fidelity(epochs=1))
    strategy = Ladder(inner, RUNGS, 1 / 3)
    trials = search(strategy, 40, fails=lambda k: False)
    assert {epochs for epochs, _ in inner.seen} == seen
    own = [trial for trial in trials if trial.proposal.parent_trial_id is None]
    assert (inner.num_asked, inner.num_told, inner.log_position) == (len(own), len(own), 40)
    assert (strategy.num_asked, strategy.num_told, strategy.log_position) == (40, 40, 40)
    assert [inner.number_of(trial.trial_id) for trial in own] == list(range(len(own)))
    assert strategy.visited == {trial.genotype.key for trial in own}


def test_what_is_foretold_chooses_who_goes_on():
    class Foretelling(registry.load("strategy", "random_search")):
        def foretell(self, trials):
            return [-trial.score for trial in trials]

    strategy = Ladder(Foretelling(SPACE, Foretelling.Config(), 3, Fidelity(epochs=1)), RUNGS, 1 / 3)
    asked = told(strategy, [0.5, 0.7, 0.6, 0.8])
    assert asked[3].parent_trial_id == 0, "the worst now is to be the best"


def test_what_the_strategy_prefers_goes_on_before_anything_new_begins():
    class Preferring(Ranking):
        def prefers(self, paused, running):
            self.__dict__.setdefault("offered", []).append(
                ([t.trial_id for t in paused], [t.trial_id for t in running])
            )
            return next((trial for trial in paused if trial.score > 0.6), None)

    inner = Preferring(SPACE, Preferring.Config(), 3, Fidelity(epochs=1))
    strategy = Ladder(inner, (1, 3), keep=0.1)
    asked = told(strategy, [0.5, 0.7])
    assert inner.offered == [([0], [])], "nothing is offered of an empty rung"
    (preferred,) = strategy.ask(1)
    assert (preferred.parent_trial_id, preferred.fidelity.epochs) == (asked[1].trial_id, 3), "a tenth of two is none"
    (fresh,) = strategy.ask(1)
    assert fresh.parent_trial_id is None
    assert inner.offered[-1] == ([0], [1]), "it runs"
    strategy.tell([scored(preferred, 0.9, 2)])
    strategy.ask(1)
    assert inner.offered[-1] == ([0], []), "it has ended"


@pytest.mark.parametrize(("cls", "count"), [(Watching, 4), (Ranking, 2)])
def test_of_a_strategy_that_ranks_rungs_no_more_than_the_share_goes_on_while_it_climbs(cls, count):
    strategy = Ladder(cls(SPACE, cls.Config(), 3, Fidelity(epochs=1)), (1, 3), keep=0.25)
    best = 0.0
    gone_on = []
    for index in range(12):
        (proposal,) = strategy.ask(1)
        if proposal.parent_trial_id is None:
            best += 0.01  # each new one is the best
        else:
            gone_on.append(proposal)
        strategy.tell([scored(proposal, best, index)])
    assert len(gone_on) == count


def test_several_objectives_are_ranked_by_pareto():
    strategy = ladder(keep=0.5)
    strategy.inner.objectives = (Aim("macs", less_is_better=True),)
    asked = strategy.ask(4)
    figures = [(0.9, 90), (0.8, 95), (0.7, 10), (0.6, 5)]  # the second is beaten by the first
    measured = [Measurement(valid_accuracy=score, macs=macs) for score, macs in figures]
    ended = [Trial(proposal=p).complete(m, log_index=i) for i, (p, m) in enumerate(zip(asked, measured, strict=True))]
    strategy.tell(ended)
    assert {proposal.parent_trial_id for proposal in strategy.ask(2)} == {0, 3}, "the ends of the front"
    assert strategy.ask(1)[0].parent_trial_id is None


@pytest.mark.parametrize("name", INNER)
def test_a_restored_ladder_goes_on_as_if_nothing_had_happened(name):
    make = partial(ladder, name)
    contract.goes_on_after_a_break(make, (1, 3))
    contract.asks_the_same_again(make)


def test_it_is_restored_at_any_moment():
    check_restored(ladder, 40, range(0, 40, 3))


def test_failures_that_are_asked_again_have_their_place_on_the_ladder():
    strategy = ladder()
    first = told(strategy, [0.5, 0.7])
    (failed,) = strategy.ask(1)
    ended = Trial(proposal=failed).fail(FailureKind.ERROR, "out of luck", log_index=2)
    log = [scored(p, s, i) for i, (p, s) in enumerate(zip(first, [0.5, 0.7], strict=True))] + [ended]
    found = FailedTrials()
    list(found.passing(log))
    (again,) = found.again(found.of_kind(), 3)
    again_ended = scored(again, 0.9, 3)
    restored = ladder()
    restored.restore([*log, again_ended])
    (promoted,) = restored.ask(1)
    assert (promoted.parent_trial_id, promoted.retry_of, promoted.seed) == (3, None, again.seed)
    assert promoted.trial_id == 4
    restored.tell([Trial(proposal=promoted).fail(FailureKind.ERROR, "again", log_index=4)])
    (fresh,) = restored.ask(1)
    assert fresh.parent_trial_id is None, "what failed on a rung does not go on, and is not tried again by itself"
    assert (restored.num_asked, restored.inner.num_asked) == (5, 4)


def test_when_the_strategy_is_done_promotions_go_on_until_none_is_due():
    strategy = ladder("given", genotypes=NINE)
    assert strategy.planned == 9 + 3 + 1
    trials = search(strategy, 100, fails=lambda k: False)
    counts = Counter(trial.proposal.fidelity.epochs for trial in trials)
    assert strategy.done
    assert counts[1] == 9
    assert counts[3] >= 3
    assert counts[9] >= 1
    assert strategy.planned == len(trials)
    promoted = Counter(trial.proposal.parent_trial_id for trial in trials if trial.proposal.parent_trial_id is not None)
    assert set(promoted.values()) == {1}, "each goes on once"
    by_id = {trial.trial_id: trial for trial in trials}
    rungs = dict(pairwise((*RUNGS, None)))
    for child in trials:
        if child.proposal.parent_trial_id is not None:
            parent = by_id[child.proposal.parent_trial_id]
            assert child.genotype == parent.genotype
            assert child.proposal.fidelity.epochs == rungs[parent.proposal.fidelity.epochs]
            assert parent.log_index < child.proposal.asked_after


def test_the_time_to_come_counts_each_rung_by_its_own():
    strategy = ladder("given", genotypes=NINE)
    assert strategy.seconds_to_come is None, "nothing is known yet"
    told(strategy, [0.5])  # two seconds an epoch
    assert strategy.seconds_to_come == pytest.approx(8 * 2.0 + 3 * 2 * 2.0 + 1 * 6 * 2.0)


def test_a_rung_of_the_closed_form_takes_its_share_of_the_time():
    evaluator = ClosedForm(SPACE, None, ClosedFormConfig(epochs=9))
    (first,) = ladder().ask(1)
    whole = evaluator.evaluate(replace(first, fidelity=Fidelity(epochs=9)))
    evaluator.rungs = RUNGS
    found, parent = [], None
    for epochs in RUNGS:
        rung = replace(first, parent_trial_id=parent, fidelity=Fidelity(epochs=epochs))
        found.append(evaluator.evaluate(rung))
        parent = 0
    assert sum(each.device_seconds for each in found) == pytest.approx(whole.device_seconds)
    assert [len(each.curve) for each in found] == list(RUNGS)
    assert found[0].valid_accuracy < found[1].valid_accuracy < found[2].valid_accuracy
