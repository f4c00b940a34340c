"""What is asked of a search while it runs."""

from dataclasses import replace
from datetime import timedelta

import pytest
from _stand_in import MemoryPool, SharedForm, closed_form, facts, shared_search, simulate

from nao_ray.errors import Drained
from nao_ray.evaluators.parts.wrappers import NoisyEvaluator
from nao_ray.search.clock import VirtualClock
from nao_ray.search.requests import Request
from nao_ray.trial import FailureKind, TrialState


class SlowAfter(NoisyEvaluator):
    """Says that the proposals from the `first` on, to before the `last`, took an hour."""

    def __init__(self, first, last=1000):
        super().__init__(closed_form(), 0.0)
        self.slow = range(first, last)

    def evaluate(self, proposal):
        return replace(super().evaluate(proposal), wall_seconds=3600.0 if proposal.trial_id in self.slow else 1.0)


class Asked:
    """Requests, each once the search has so many finished trials (`when`)."""

    def __init__(self, pool, *requests):
        self.pool, self.requests = pool, list(requests)
        self.answers = []

    def look(self):
        return [request for when, request in self.requests if len(self.pool.finished) >= when]

    def answer(self, request, text):
        self.requests = [item for item in self.requests if item[1] is not request]
        self.answers.append(text)


def search(pool, *requests, **options):
    asked = Asked(pool, *requests)
    loop, run = simulate(pool, requests=asked, **options)
    return asked, loop, run


@pytest.mark.parametrize("workers", [1, 4])
def test_a_budget_is_raised_and_lowered_while_the_search_runs(workers):
    pool = MemoryPool()
    asked, _, run = search(
        pool,
        (20, Request(what="budget", trials=50)),
        (40, Request(what="budget", trials=3)),
        (41, Request(what="budget", trials=46)),
        workers=workers,
    )
    run()
    assert len(pool.finished) == 46
    assert pool.budgets == [(50, None), (46, None)]
    first, refused, last = asked.answers
    assert first == "the budget is now 50 trials"
    assert refused.startswith("refused: 4")
    assert last == "the budget is now 46 trials"
    if workers == 1:
        unbroken = MemoryPool()
        simulate(unbroken, trials=46)[1]()
        assert facts(pool) == facts(unbroken)


def test_a_budget_that_cannot_be_written_down_is_not_changed_before_it_can():
    pool = MemoryPool()
    tries = iter(range(100))
    pool.broken = lambda name: name == "budget" and next(tries) < 3
    asked, _, run = search(pool, (20, Request(what="budget", seconds=7200.0)))
    run()
    assert pool.budgets == [(30, 7200.0)]
    assert asked.answers == ["the budget is now 30 trials and 2 hours"]


def test_one_trial_is_cancelled_and_the_strategy_told():
    pool = MemoryPool()
    asked, _, run = search(pool, (20, Request(what="cancel", trial_id=13)), workers=4, evaluator=SlowAfter(13, 14))
    run()
    assert asked.answers == ["trial 13 is cancelled"]
    cancelled = [trial for trial in pool.finished if trial.state is TrialState.FAILED]
    assert [(trial.trial_id, trial.failure_kind) for trial in cancelled] == [(13, FailureKind.CANCELLED)]
    assert sorted(trial.trial_id for trial in pool.finished) == list(range(30))
    assert [trial.log_index for trial in pool.finished] == list(range(30))
    assert max(trial.finished_at for trial in pool.finished) < VirtualClock.START + timedelta(hours=1)


def test_what_cannot_be_cancelled_is_refused():
    pool = MemoryPool()
    requests = [(5, Request(what="cancel", trial_id=number)) for number in (3, 99)]
    asked, _, run = search(pool, *requests, workers=2)
    run()
    assert asked.answers == ["refused: trial 3 is not open", "refused: trial 99 is not open"]
    pool = MemoryPool()
    asked, _, run = search(
        pool, (0, Request(what="cancel", trial_id=0)), strategy=shared_search(), evaluator=SharedForm(), trials=None
    )
    run()
    assert "refused" in asked.answers[0]


@pytest.mark.parametrize("workers", [1, 4])
def test_drained_it_ends_what_runs_and_begins_nothing_and_goes_on_later(workers):
    unbroken, pool = MemoryPool(), MemoryPool()
    simulate(unbroken, workers=workers)[1]()
    asked, _, run = search(pool, (10, Request(what="drain")), workers=workers)
    with pytest.raises(Drained):
        run()
    begun = {trial_id for trial_id, _ in pool.attempts}
    assert begun == {trial.trial_id for trial in pool.finished}
    assert 10 <= len(begun) < 10 + 2 * workers
    assert "no further trial begins" in asked.answers[0]
    simulate(pool, workers=workers)[1]()
    assert sorted(trial.trial_id for trial in pool.finished) == list(range(30))
    assert {attempt for _, attempt in pool.attempts} == {1}
    if workers == 1:
        assert facts(pool) == facts(unbroken)


def test_drained_while_nothing_runs_it_ends_so_and_is_not_called_stuck():
    pool = MemoryPool()
    _, _, run = search(pool, (0, Request(what="drain")))
    with pytest.raises(Drained):
        run()
    assert pool.asked == {}
    simulate(pool, trials=3)[1]()
    assert len(pool.finished) == 3


def test_drained_with_a_notice_it_leaves_what_takes_longer():
    pool = MemoryPool()
    _, loop, run = search(pool, (3, Request(what="drain", seconds=30.0)), workers=4, evaluator=SlowAfter(3))
    with pytest.raises(Drained):
        run()
    assert 30 <= loop.snapshot().seconds < 40
    left = {trial.trial_id for trial in pool.log() if trial.state is TrialState.RUNNING}
    assert left >= {3}
    assert len(pool.attempts) == 4
    simulate(pool, workers=4)[1]()
    assert sorted(trial.trial_id for trial in pool.finished) == list(range(30))
