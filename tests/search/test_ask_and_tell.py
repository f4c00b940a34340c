"""Ask and tell by hand, and proposals that are there before they are asked for; over a pool in memory."""

import threading
from datetime import UTC, datetime

import pytest
from _stand_in import Greedy, MemoryPool

from nao_ray.errors import RunError, StuckSearchError
from nao_ray.search.ahead import Ahead
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Completion, Failure
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.session import Session
from nao_ray.trial import FailureKind, Fidelity, Measurement, TrialState

LIMIT = 300.0  # of what hangs


def study_of(pool, strategy=None, trials=None, **settings):
    log = pool.log()
    strategy = strategy or Greedy()
    return Session(pool, LocalProposer(strategy, log), Budget(trials=trials), log=log, **settings)


def completed(trial, score):
    at = datetime.now(UTC)
    return Completion(
        trial_id=trial.trial_id,
        attempt=trial.attempt,
        outcome=Measurement(valid_accuracy=score),
        started_at=trial.started_at,
        finished_at=at,
    )


def score_of(trial):
    return (sum(trial.proposal.tokens) % 97) / 97


def test_what_is_asked_and_told_is_what_a_loop_with_one_worker_records():
    pool, other = MemoryPool(), MemoryPool()
    study = study_of(pool, trials=12)
    while trials := study.ask(1):
        study.tell(completed(study.begin(trials[0].trial_id), score_of(trials[0])))
    assert [trial.proposal.asked_after for trial in pool.log()] == list(range(12))
    for _ in range(12):  # a driver for each
        study = study_of(other, trials=12)
        (trial,) = study.ask(1)
        study.tell(completed(study.begin(trial.trial_id), score_of(trial)))
    assert [trial.proposal for trial in other.log()] == [trial.proposal for trial in pool.log()]
    assert study.ask(1) == []


def test_a_result_is_recorded_once_with_the_fidelity_that_was_reached():
    pool = MemoryPool()
    study = study_of(pool, trials=2)
    first, second = [study.begin(trial.trial_id) for trial in study.ask(5)]
    ended = study.tell(completed(first, 0.5), Fidelity(epochs=3))
    assert (ended.proposal.fidelity.epochs, pool.finished[0].proposal.fidelity.epochs) == (3, 3)
    assert study.tell(completed(first, 0.9)) is None
    failure = Failure(FailureKind.ERROR, "broken", log="Traceback ...")
    study.tell(Completion(trial_id=second.trial_id, attempt=second.attempt, outcome=failure))
    assert [trial.state for trial in pool.finished] == [TrialState.COMPLETED, TrialState.FAILED]
    assert "Traceback" in pool.logs[1, 1]
    assert study.open == []


def test_a_result_that_cannot_be_written_is_kept_until_it_can():
    pool = MemoryPool()
    study = study_of(pool, trials=1)
    trial = study.begin(study.ask(1)[0].trial_id)
    pool.broken = lambda name: name == "finished"
    study.tell(completed(trial, 0.5))
    assert study.is_unwritten
    pool.broken = lambda _: False
    study._writer._next_try = None  # the pause is over
    study.record()
    assert [trial.score for trial in pool.finished] == [0.5]
    assert not study.is_unwritten


def test_a_driver_that_leaves_is_not_to_blame_for_what_it_has_begun():
    pool = MemoryPool()
    study = study_of(pool)
    first, _ = study.ask(2)
    study.begin(first.trial_id)
    study.leave()
    assert [(row.trial_id, row.number) for row in pool.left] == [(first.trial_id, 1)]


class Slow(Greedy):
    """Thinks until it is let."""

    def __init__(self):
        super().__init__()
        self.let = threading.Semaphore(0)
        self.asks = []

    def ask(self, n):
        assert self.let.acquire(timeout=LIMIT)
        self.asks.append(n)
        return super().ask(n)


def wait_for(condition):
    """Without a limit of our own: what hangs is ended by whoever runs the tests."""
    tick = threading.Event()
    while not condition():
        tick.wait(0.002)


def test_proposals_are_ready_before_they_are_asked_for():
    """Of a strategy that takes long as many as run at a time: while they run it thinks, and nobody waits for it."""
    pool, strategy = MemoryPool(), Slow()
    study = study_of(pool, strategy, trials=16)
    ahead = Ahead(study, width=4)
    assert ahead.take() is None  # at once: it thinks
    study._dialogue.seconds = 1.0
    strategy.let.release()
    running = [ahead.take(wait=LIMIT) for _ in range(4)]
    strategy.let.release(4)
    wait_for(lambda: ahead.ready == 4)
    while running:
        ahead.tell(completed(running.pop(0), 0.5))
        if not ahead.is_exhausted:
            wait_for(lambda: ahead.ready or ahead.is_exhausted)  # the strategy is let, and comes in time
            strategy.let.release()
            running += [trial] if (trial := ahead.take()) is not None else []
    assert len(pool.finished) == len(pool.asked) == 16
    assert strategy.asks[0] == 4
    assert max(strategy.asks) <= 4
    assert ahead.is_over
    ahead.close()


def test_a_quick_strategy_is_asked_for_one_more_than_runs():
    pool = MemoryPool()
    ahead = Ahead(study_of(pool), width=3)
    running = [ahead.take(wait=LIMIT)]
    for _ in range(5):
        wait_for(lambda: ahead.ready >= 1)
        running.append(ahead.take())
    wait_for(lambda: ahead.ready >= 1)
    assert len(pool.asked) == 7
    ahead.close()


def test_what_was_left_open_comes_first_and_what_runs_is_not_given_twice():
    pool = MemoryPool()
    study = study_of(pool)
    trials = study.ask(3)
    study.begin(trials[0].trial_id, "a")
    again = study_of(pool, trials=4)
    assert [trial.trial_id for trial in again.open] == [0, 1, 2]
    ahead = Ahead(again, 2, again.open[1:], [0])
    taken = [ahead.take(wait=LIMIT) for _ in range(2)]
    wait_for(lambda: ahead.ready or ahead.is_exhausted)
    taken.append(ahead.take())
    assert [trial.trial_id for trial in taken] == [1, 2, 3]
    assert ahead.take(wait=LIMIT) is None
    assert ahead.is_exhausted
    assert not ahead.is_over
    ahead.close()


class Waits(Greedy):
    """Proposes nothing before it was told of everything; nothing at all, if it is stubborn."""

    def __init__(self, stubborn=False):
        super().__init__()
        self.stubborn = stubborn

    def propose(self, k, rng):
        return None if k and (self.stubborn or self.num_told < k) else super().propose(k, rng)


def test_a_strategy_that_wants_to_be_told_more_is_asked_again_when_it_was():
    pool = MemoryPool()
    ahead = Ahead(study_of(pool, Waits(), trials=3), width=2)
    for _ in range(3):
        trial = ahead.take(wait=LIMIT)
        assert ahead.take() is None
        ahead.tell(completed(trial, 0.5))
    assert ahead.is_over
    ahead.close()


def test_a_strategy_that_proposes_nothing_any_more_is_an_error():
    ahead = Ahead(study_of(MemoryPool(), Waits(stubborn=True), trials=3), width=1)
    trial = ahead.take(wait=LIMIT)

    def until_stuck():
        ahead.tell(completed(trial, 0.5))
        while True:
            ahead.take(wait=0.01)

    with pytest.raises(StuckSearchError, match="proposes nothing after 1 finished trials"):
        until_stuck()
    ahead.close()


def test_what_the_strategy_raises_is_raised_where_it_is_asked():
    class Broken(Greedy):
        def propose(self, k, rng):
            raise RunError("no idea")

    ahead = Ahead(study_of(MemoryPool(), Broken()), width=1)
    with pytest.raises(RunError, match="no idea"):
        ahead.take(wait=LIMIT)
    ahead.close()
