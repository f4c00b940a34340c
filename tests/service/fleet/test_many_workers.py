"""The real executor over hundreds of workers that are no processes: what a turn does, counted, not timed."""

import sys
from functools import partial
from types import FrameType

import pytest
from _misbehaving import GENOTYPE
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayTaskError

from nao_ray.bench._stub_cluster import StubCall, StubCluster
from nao_ray.errors import PoolError
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.nodes import HeadAwayError
from nao_ray.service.fleet.worker import Slot, WorkerPlan
from nao_ray.trial import FailureKind, Proposal


def submit(executor, numbers):
    for number in numbers:
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))


def fleet(workers, **plan):
    """An executor with so many workers at work on trials 0 to workers - 1, and its cluster."""
    cluster = StubCluster({f"n{number}": {"CPU": 8, "GPU": 8} for number in range(workers // 8)})
    executor = RayExecutor(None, WorkerPlan(**plan), clock=VirtualClock(), remote=cluster)
    assert executor.capacity == workers
    submit(executor, range(workers))
    while len(cluster.begun) < workers:
        executor.wait(0)
    return executor, cluster


def operations(work):
    """Lines that the fleet's modules execute in `work`, a pass of a loop counted each time."""
    count = 0

    def trace(frame: FrameType, event: str, _: object):
        nonlocal count
        if "/service/fleet/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def turn(executor, cluster, ending):
    """So many trials end, and as many come."""
    cluster.finish(ending)
    ended = executor.wait(0)
    assert len(ended) == ending
    submit(executor, range(10_000, 10_000 + ending))
    executor.wait(0)


@pytest.mark.parametrize("plan", [{"gpus": 0}, {"gpus": None, "timeout_seconds": 1e6}])
@pytest.mark.parametrize("ending", [0, 1, 20])
def test_a_turn_does_as_much_as_has_changed_however_many_workers_there_are(plan, ending):
    few, many = (operations(partial(turn, *fleet(n, **plan), ending)) for n in (80, 800))
    assert 0 < many <= 1.1 * few + 20


@pytest.mark.parametrize("plan", [{"gpus": 0}, {"gpus": None}])
def test_a_round_is_handed_out_in_proportion_to_its_size(plan):
    def hand_out(workers):
        executor, cluster = fleet(workers, **plan)
        cluster.finish()
        assert len(executor.wait(0)) == workers

        def work():
            submit(executor, range(workers, 2 * workers))
            executor.wait(0)

        count = operations(work) / workers
        assert len(cluster.begun) == workers
        return count

    assert hand_out(800) <= 1.1 * hand_out(80)


def test_pings_are_for_those_whose_time_has_come():
    def ask(workers):
        executor, cluster = fleet(workers, ping_seconds=30)
        pings = []
        for actor in cluster.actors:
            actor.ping.remote = lambda ask=actor.ping.remote: pings.append(1) or ask()
        executor._fleet.now._clock.sleep(4)
        turn(executor, cluster, 10)  # ten are heard now
        for _ in range(7):
            executor._fleet.now._clock.sleep(4)
            executor.wait(0)
        return len(pings)

    assert ask(80) == 70
    assert ask(400) == 390


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemoryError("Task was killed due to the node running low on memory"), FailureKind.OUT_OF_MEMORY),
        (ActorUnavailableError("the actor is temporarily unavailable", b"0" * 16), FailureKind.LOST),
    ],
)
def test_what_ray_raises_becomes_a_kind_and_costs_the_worker(error, kind):
    cluster = StubCluster({"n": {"CPU": 1}}, outcome=lambda *_: error)
    executor = RayExecutor(None, WorkerPlan(), clock=VirtualClock(), remote=cluster)
    submit(executor, [1])
    executor.wait(0)
    (actor,) = cluster.finish()
    (ended,) = executor.wait(0)
    assert ended.outcome.kind is kind
    assert actor.is_dead


def test_what_had_ended_is_reported_before_an_error_ends_the_search():
    executor, cluster = fleet(16)
    cluster.begun[3].call.end(RayTaskError("evaluate", "trace", PoolError("weights v3 are gone")))
    del cluster.begun[3]
    cluster.finish(9)
    assert len(executor.wait(0)) == 9
    with pytest.raises(PoolError, match="weights v3 are gone"):
        executor.wait(0)


def test_a_worker_that_waits_for_room_may_be_silent_also_while_the_head_is_away():
    cluster, clock = StubCluster({"n": {"CPU": 1}}), VirtualClock()
    cluster.create(Slot())  # another's
    executor = RayExecutor(None, WorkerPlan(ping_seconds=10, silent_seconds=30), clock=clock, remote=cluster)
    submit(executor, [0])
    asked = []
    cluster.with_process = lambda actors: asked.append(len(actors)) or _away()
    for _ in range(60):
        clock.sleep(4)
        assert executor.wait(0) == []
    assert asked == [1] * 19, "every 12 s: a turn is 4"
    assert len(executor._fleet.starting) == 1


def _away():
    raise HeadAwayError("no answer")


def test_a_driver_that_stood_still_has_not_heard_silence():
    cluster, clock = StubCluster({"n": {"CPU": 1}}, is_silent=lambda actor: bool(actor.call)), VirtualClock()
    executor = RayExecutor(None, WorkerPlan(ping_seconds=10, silent_seconds=30), clock=clock, remote=cluster)
    submit(executor, [0])
    executor.wait(0)
    executor.wait(0)
    clock.sleep(3600)
    assert executor.wait(0) == []
    ended, end = [], clock.seconds() + 60
    while not ended and clock.seconds() < end:
        clock.sleep(4)
        ended = executor.wait(0)
    assert ended[0].outcome == Failure(FailureKind.LOST, "no sign of life for 33 s, see workers.silent_seconds")


def test_what_else_the_caller_waits_for_wakes_it_until_it_is_taken():
    executor, cluster = fleet(8)
    handle = StubCall()
    assert executor.wait(0, [handle]) == []
    handle.end(1)
    for _ in range(3):
        assert executor.wait(600, [handle]) == []  # else it waits a second
    cluster.finish(1)
    assert len(executor.wait(600, [handle])) == 1


def test_jobs_wait_until_their_workers_have_started():
    cluster = StubCluster({"n0": {"CPU": 8, "GPU": 8}})
    executor = RayExecutor(None, WorkerPlan(), clock=VirtualClock(), remote=cluster)
    submit(executor, range(8))
    assert executor.waiting == 8
    while len(cluster.begun) < 8:
        assert executor.waiting == 8 - len(cluster.begun)
        executor.wait(0)
    assert executor.waiting == 0


@pytest.mark.parametrize("number", [3, 20])
def test_a_cancelled_job_ends_with_its_worker_alone_begun_or_not(number):
    executor, cluster = fleet(16)
    submit(executor, [20, 21])
    executor.cancel(number)
    executor.cancel(number)  # it has ended already
    assert sum(actor.is_dead for actor in cluster.actors) == (number == 3)
    ended = []
    for _ in range(20):
        cluster.finish()
        ended += executor.wait(0)
    assert sorted(completion.trial_id for completion in ended) == sorted({*range(16), 20, 21} - {number})
