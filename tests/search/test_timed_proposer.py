"""A strategy whose thinking takes virtual time, and workers that go on meanwhile."""

from itertools import pairwise

import pytest
from _stand_in import Greedy, MemoryPool, closed_form, facts, simulate

from nao_ray.search.budget import Budget
from nao_ray.search.clock import Moment, VirtualClock
from nao_ray.search.executor import Job
from nao_ray.search.loop import SearchLoop
from nao_ray.search.simulated import SimulatedExecutor, TimedProposer, reported_seconds


def ticking(step: float):
    """A stopwatch on which a request takes `step` seconds."""
    now = 0.0

    def watch() -> float:
        nonlocal now
        now += step
        return now

    return watch


def search(pool: MemoryPool, think: float, workers: int, trials: int = 60, duration=lambda job, _: 10.0):
    clock = VirtualClock()
    proposer = TimedProposer(Greedy(), clock, stopwatch=ticking(think))
    executor = SimulatedExecutor(closed_form(noise=0.05), clock, workers, duration)
    SearchLoop(pool, proposer, executor, Budget(trials=trials), clock=clock).run()
    return clock, proposer


def test_an_answer_is_there_exactly_when_it_is_due():
    clock = VirtualClock()
    proposer = TimedProposer(Greedy(), clock, stopwatch=ticking(3.0))
    assert (proposer.poll(5.0), clock.seconds(), proposer.pending) == (None, 0.0, ()), "nothing was asked"
    clock.advance_to(100.0)
    proposer.request(2, [])
    assert proposer.pending == (Moment(103.0),)
    assert proposer.poll(0) is None
    assert proposer.poll(1.0) is None
    assert clock.seconds() == 101.0
    clock.advance_to(102.999)
    assert proposer.poll(0) is None
    given = proposer.poll(1.0)
    assert clock.seconds() == 103.0, "no later than due"
    assert given is not None
    assert [proposal.trial_id for proposal in given.proposals] == [0, 1]
    assert (proposer.poll(0), proposer.pending) == (None, ())
    proposer.request(1, [])
    assert proposer.poll() is not None
    assert clock.seconds() == 106.0
    assert proposer.seconds == [3.0, 3.0]


def test_an_executor_wakes_at_a_moment_and_not_before_what_ends_earlier():
    clock, strategy = VirtualClock(), Greedy()
    executor = SimulatedExecutor(closed_form(), clock, 3, duration=lambda job, _: 10.0 * (1 + job.proposal.trial_id))
    for proposal in strategy.ask(3):
        executor.submit(Job(proposal=proposal, attempt=1))
    assert [done.trial_id for done in executor.wait(None, (Moment(15.0), object()))] == [0]
    assert clock.seconds() == 10.0
    assert executor.wait(None, (Moment(15.0),)) == []
    assert clock.seconds() == 15.0
    assert executor.wait(2.0, (Moment(19.0),)) == []
    assert clock.seconds() == 17.0, "the earlier of timeout and moment"
    assert [done.trial_id for done in executor.wait(None, (Moment(20.0),))] == [1], "both at once: what has ended"
    clock.advance_to(1000.0)
    (late,) = executor.wait(None, (Moment(5.0),))
    assert (late.trial_id, late.finished_at) == (2, clock.at(30.0)), "it ended while the caller was busy"
    assert clock.seconds() == 1000.0


def test_workers_go_on_while_the_strategy_thinks():
    pool = MemoryPool()
    lasting = {"duration": lambda job, _: 20.0 + 7.0 * (job.proposal.trial_id % 4)}
    clock, proposer = search(pool, think=2.0, workers=4, **lasting)
    assert min(trial.started_at for trial in pool.finished) == clock.at(2.0), "the first answer"
    gaps = []
    for worker in range(4):
        mine = sorted((t for t in pool.finished if t.node == f"worker-{worker}"), key=lambda t: t.started_at)
        gaps += [(b.started_at - a.finished_at).total_seconds() for a, b in pairwise(mine)]
    assert len(gaps) > 50
    assert sum(gap == 0 for gap in gaps) > len(gaps) / 2, "asked ahead"
    assert max(gaps) <= 2 * 2.0, "at most for the ask under way and the next"
    assert len(proposer.seconds) > 10
    answered = {trial.asked_at for trial in pool.finished}
    assert all(
        any(a.started_at < moment < a.finished_at for a in pool.finished) for moment in answered - {clock.at(2.0)}
    ), "answers come while trainings run"


def test_one_worker_waits_for_every_answer():
    pool = MemoryPool()
    clock, _ = search(pool, think=2.0, workers=1, trials=5)
    assert clock.seconds() == pytest.approx(5 * 12.0 + 2.0)  # the last results are told, too
    assert [trial.proposal.asked_after for trial in pool.finished] == list(range(5))


def test_with_a_given_stopwatch_a_search_repeats():
    pools = [MemoryPool(), MemoryPool()]
    for pool in pools:
        search(pool, think=3.5, workers=7)
    assert pools[0].finished == pools[1].finished


def test_thinking_that_takes_no_time_changes_nothing():
    timed, plain = MemoryPool(), MemoryPool()
    search(timed, think=0.0, workers=4, trials=30, duration=reported_seconds)
    simulate(plain, workers=4, trials=30)[1]()
    assert facts(timed) == facts(plain)


def test_a_proposer_takes_up_a_log():
    pool = MemoryPool()
    search(pool, think=1.0, workers=1, trials=6)
    proposer = TimedProposer(Greedy(), VirtualClock(), pool.log(), stopwatch=ticking(1.0))
    proposer.request(1, [])
    (proposal,) = proposer.poll().proposals
    assert (proposal.trial_id, proposal.asked_after) == (6, 6)
