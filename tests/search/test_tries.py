"""Attempts count over all drivers of a pool: a trial that ends every driver is not tried for ever."""

from collections import deque
from contextlib import suppress
from datetime import timedelta

import pytest
from _stand_in import Greedy, MemoryPool, beside, closed_form

from nao_ray.errors import PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.tries import Entry, Retry, choose, summary, take_up
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Attempt, FailureKind, Proposal, Trial, TrialState

WITH_DRIVER = "the death of their driver"
WORKERS = 4


class Death(BaseException):
    """Of a driver, as by SIGKILL: it does nothing more."""


class Mortal:
    """A pool, until its driver is dead."""

    def __init__(self, pool):
        self.pool, self.is_dead = pool, False

    def __getattr__(self, name):
        if self.is_dead and name.startswith("record"):
            raise PoolWriteError("dead")
        return getattr(self.pool, name)


class Deadly(SimulatedExecutor):
    """A trial that ends the driver's node when it has run for a while."""

    def __init__(self, killer, pool, *rest, **options):
        super().__init__(*rest, **options)
        self.killer, self.mortal, self.submitted = killer, pool, []

    def submit(self, job):
        self.submitted.append(job.proposal.trial_id)
        super().submit(job)

    def wait(self, timeout=None, wake=()):
        ended = super().wait(timeout, wake)
        if any(completion.trial_id == self.killer for completion in ended):
            self.mortal.is_dead = True
            raise Death
        return ended


def drive(path, killer=None, trials=40, stop=lambda: False, fault=lambda _: None, **options):
    """A driver of the pool, until it ends or dies; the trials it tried, in order."""
    if PoolReader.exists(str(path)):
        pool = PoolWriter.open(str(path))
    else:
        pool = PoolWriter.create(str(path), {"config": {"name": "t"}})
    with pool.acquire():
        log = pool.log()
        clock = VirtualClock(max((t.finished_at for t in log if t.finished_at), default=VirtualClock.START))
        mortal = Mortal(pool)
        executor = Deadly(killer, mortal, closed_form(noise=0.05), clock, WORKERS, fault=fault)
        proposer = LocalProposer(Greedy(), log)
        loop = SearchLoop(
            mortal, proposer, executor, Budget(trials=trials), clock=clock, **beside(stop=stop, **options)
        )
        with suppress(Death, KeyboardInterrupt):
            loop.run(log)
    return executor.submitted


def test_a_trial_that_ends_every_driver_is_failed_after_three_and_the_others_are_not(tmp_path):
    tried = [drive(tmp_path / "p", killer=9) for _ in range(4)]
    trials = {trial.trial_id: trial for trial in PoolReader.open(str(tmp_path / "p")).log()}
    assert len(trials) == 40
    assert {trial.state for key, trial in trials.items() if key != 9} == {TrialState.COMPLETED}
    assert (trials[9].failure_kind, trials[9].failure_message) == (
        FailureKind.LOST,
        f"3 attempts ended with {WITH_DRIVER}",
    )
    assert [9 in numbers for numbers in tried] == [True, True, True, False]


def test_what_may_have_ended_a_driver_comes_last_and_in_the_end_alone(tmp_path):
    drive(tmp_path / "p", killer=9)
    again = drive(tmp_path / "p", killer=9)
    open_trials = [trial for trial in PoolReader.open(str(tmp_path / "p")).log() if trial.state is TrialState.RUNNING]
    assert len([trial for trial in open_trials if len(trial.ends) == 2]) <= WORKERS
    assert len(again) >= WORKERS
    last = drive(tmp_path / "p", killer=9)
    suspects = {trial.trial_id for trial in open_trials if len(trial.ends) == 2}
    others = [number for number in last if number not in suspects]
    assert 9 in suspects
    assert others, "while the suspects are tried one at a time others go on"


def test_a_driver_that_ends_in_order_blames_no_trial(tmp_path):
    for turns in range(3, 9):
        left = iter(range(turns))
        drive(tmp_path / "p", stop=lambda left=left: next(left, None) is None)
        log = PoolReader.open(str(tmp_path / "p")).log()
        assert all(trial.ends == () for trial in log)
    assert max(trial.attempt for trial in log) >= 1
    drive(tmp_path / "p")
    log = PoolReader.open(str(tmp_path / "p")).log()
    assert {trial.state for trial in log} == {TrialState.COMPLETED}


def test_losses_and_deaths_are_counted_together(tmp_path):
    def lost(job):
        return Failure(FailureKind.LOST, "ActorDiedError") if job.proposal.trial_id == 9 else None

    drive(tmp_path / "p", killer=9)
    drive(tmp_path / "p", fault=lost, retry=Retry(max_attempts=3))
    failed = next(trial for trial in PoolReader.open(str(tmp_path / "p")).log() if trial.trial_id == 9)
    assert failed.state is TrialState.FAILED
    assert failed.attempt == 3
    assert failed.failure_message == f"3 attempts ended with lost: ActorDiedError (2); {WITH_DRIVER} (1)"


def test_attempts_of_earlier_versions_say_nothing(tmp_path):
    pool = PoolWriter.create(str(tmp_path / "p"), {"config": {}})
    with pool.acquire():
        pool.record_asked([proposal(0)], VirtualClock.START)
        for number in (1, 2, 3):
            pool.record_attempts([Attempt(0, number, None, VirtualClock.START + timedelta(hours=number), None)])
        (trial,) = pool.log()
    assert (trial.attempt, trial.ends) == (3, ())


def proposal(number):
    return Proposal(genotype=Genotype("nao_cnn_small", "0"), trial_id=number)


def pending(number, *ends, phase=None):
    return Trial(proposal=proposal(number), attempt=len(ends), ends=ends)


def test_order_and_suspects_after_a_restart():
    entries, over = take_up([pending(0, "a", "b"), pending(1), pending(2, "a"), pending(3, "a", "b", "c")], 3)
    assert [entry.trial.trial_id for entry in entries] == [1, 2, 0]
    assert [trial.trial_id for trial in over] == [3]
    assert [entry.is_suspect for entry in entries] == [False, False, True]
    entries, over = take_up([pending(0, "a", "b", "c")], 5)
    assert not over, "as many as a worker's loss allows"


@pytest.mark.parametrize(("beside", "chosen"), [(False, [0, 1, 3]), (True, [0, 3])])
def test_suspects_are_tried_one_at_a_time(beside, chosen):
    queue = [Entry(pending(number), is_suspect=number in (1, 2)) for number in range(4)]
    assert [entry.trial.trial_id for entry in choose(queue, 9, beside_suspect=beside)] == chosen
    assert len(choose(queue, 1, beside_suspect=beside)) == 1


def test_what_is_said_of_attempts():
    assert summary(["x", "x"]) == "2 attempts ended with x"
    assert summary(["x", "y", "x"]) == "3 attempts ended with x (2); y (1)"


class Counted(deque):
    """Counts the entries that are looked at."""

    looked = 0

    def __iter__(self):
        for entry in super().__iter__():
            self.looked += 1
            yield entry


def test_a_turn_looks_at_a_queue_only_as_far_as_there_is_room():
    """It was copied at each."""
    clock = VirtualClock()
    proposals = [Proposal(genotype=Genotype("s", f"{k}"), trial_id=k, seed=k) for k in range(1000)]
    pool = MemoryPool()
    pool.record_asked(proposals, clock.now())
    executor = SimulatedExecutor(closed_form(), clock, WORKERS, duration=lambda *_: 1.0)
    loop = SearchLoop(pool, LocalProposer(Greedy()), executor, Budget(trials=1000), clock=clock)
    loop._queue = Counted(Entry(Trial(proposal=proposal)) for proposal in proposals)
    loop._submit()
    assert (loop._queue.looked, len(loop._queue)) == (WORKERS, 1000 - WORKERS)
    loop._submit()
    assert loop._queue.looked == WORKERS, "no room"
    assert sorted(loop._running) == list(range(WORKERS))
