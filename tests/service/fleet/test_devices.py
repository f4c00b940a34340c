"""Devices that break trials, trials that break devices, and nodes whose memory ends, on fake devices."""

import logging
from collections import Counter
from types import SimpleNamespace

import pytest
from _misbehaving import GENOTYPE
from ray.exceptions import OutOfMemoryError

from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.breaker import Breaker, Device
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Measurement, Proposal

BROKEN = Failure(FailureKind.LOST, "RuntimeError: CUDA error: uncorrectable ECC error encountered", is_of_device=True)
GOOD = Measurement(valid_accuracy=0.5)


class Search:
    """Trials over an executor, those lost tried again, up to three attempts each. A turn is a minute."""

    def __init__(self, outcome, nodes=13, gpus=4, is_quick=lambda actor: False, **plan):
        self.quick = is_quick
        self.cluster = StubCluster(
            {f"n{number}": {"CPU": 8, "GPU": gpus} for number in range(nodes)}, outcome=outcome, fault=self.fault
        )
        self.clock = VirtualClock()
        self.executor = RayExecutor(None, WorkerPlan(gpus=1, **plan), clock=self.clock, remote=self.cluster)
        self.attempts, self.ended = Counter(), {}
        self.where = {}  # trial -> devices, in order
        self.faults = {}
        self.asked = 0

    def fault(self, actor):
        return self.faults.get((actor.node_id, actor.device))

    def submit(self, number):
        self.attempts[number] += 1
        self.executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=self.attempts[number]))

    def turn(self, take=None):
        self.clock.sleep(60)
        self.executor.wait(0)  # idle ones are given what waits
        self.cluster.finish(where=self.quick)
        self.cluster.finish(take)
        for completion in self.executor.wait(0):
            number, outcome = completion.trial_id, completion.outcome
            self.where.setdefault(number, []).append((completion.node, completion.device))
            if isinstance(outcome, Failure) and outcome.kind is FailureKind.LOST and self.attempts[number] < 3:
                self.submit(number)
            elif isinstance(outcome, Failure) and outcome.kind is FailureKind.ENVIRONMENT:
                self.attempts[number] -= 1
                self.submit(number)
            else:
                self.ended[number] = outcome

    def run(self, trials):
        """As many at a time as there are places; of the healthy ones a fifth ends in a turn."""
        while len(self.ended) < trials:
            running = self.asked - len(self.ended)
            for _ in range(min(trials - self.asked, self.executor.capacity - running)):
                self.submit(self.asked)
                self.asked += 1
            self.turn(take=max(1, self.executor.capacity // 5))
            assert self.clock.seconds() < 1e6


def broken_on(*devices):
    return lambda actor: (actor.node_id, actor.device) in devices


def test_one_broken_device_of_fifty_eats_a_handful_of_a_thousand_trials():
    is_broken = broken_on(("n3", "gpu:2"))
    search = Search(lambda actor, _: BROKEN if is_broken(actor) else GOOD, is_quick=is_broken)
    search.run(1000)
    assert set(search.ended.values()) == {GOOD}
    assert sum(search.attempts.values()) - 1000 <= 12  # the first three, then one each 1, 2, 4, ... 60 minutes
    assert not any(search.where[number][1:].count(("host-n3", "gpu:2")) for number in range(1000)), "not there again"


def test_a_device_that_is_set_aside_is_said_kept_from_others_and_tried_again_later(caplog):
    bad, is_repaired = ("n0", "gpu:1"), []
    search = Search(
        lambda actor, _: BROKEN if broken_on(bad)(actor) and not is_repaired else GOOD,
        nodes=1,
        gpus=2,
        is_quick=broken_on(bad),
    )
    with caplog.at_level(logging.WARNING):
        search.run(6)
    assert "gpu:1 of host-n0 is set aside for 60 s: RuntimeError: CUDA error: uncorrectable ECC" in caplog.text
    assert set(search.ended.values()) == {GOOD}
    is_repaired.append(1)
    search.run(40)
    assert search.executor.aside == []
    assert ("host-n0", "gpu:1") in search.where[39] + search.where[38]


def test_what_is_set_aside_is_no_capacity():
    is_broken = broken_on(("n0", "gpu:0"))
    search = Search(lambda actor, _: BROKEN if is_broken(actor) else GOOD, nodes=1, gpus=4, is_quick=is_broken)
    while not search.executor.aside:
        search.run(search.asked + 20)
    assert search.executor.capacity == 3
    assert [text.split(" for ")[0] for text in search.executor.aside] == ["gpu:0 of host-n0"]


def test_a_trial_that_breaks_several_devices_is_its_own_fault_and_they_are_not_set_aside():
    search = Search(lambda _, proposal: BROKEN if proposal.trial_id == 20 else GOOD, nodes=2)
    search.run(60)
    failure = search.ended.pop(20)
    assert failure.kind is FailureKind.ERROR
    assert "(the same on 3 devices: gpu:" in failure.message
    assert len(set(search.where[20])) == 3
    assert set(search.ended.values()) == {GOOD}
    assert search.executor.aside == []


def test_a_node_on_which_several_devices_fail_is_set_aside_as_a_whole(caplog):
    def is_broken(actor):
        return actor.node_id == "n1"

    search = Search(lambda actor, _: BROKEN if is_broken(actor) else GOOD, nodes=3, gpus=8, is_quick=is_broken)
    with caplog.at_level(logging.WARNING):
        search.run(200)
    assert set(search.ended.values()) == {GOOD}
    assert "node host-n1 is set aside for 60 s" in caplog.text
    assert sum(search.attempts.values()) - 200 <= 8 * 4 + 12


def test_a_device_that_is_found_broken_as_a_worker_starts_costs_no_trial_anything():
    search = Search(lambda *_: GOOD, nodes=1, gpus=2)
    search.faults["n0", "gpu:0"] = "RuntimeError: No CUDA GPUs are available"
    search.run(30)
    assert set(search.attempts.values()) == {1}
    assert search.executor.aside


@pytest.mark.parametrize("at_start", [True, False])
def test_where_no_device_works_it_is_the_environment(at_start):
    search = Search(lambda *_: BROKEN, nodes=1, gpus=2)
    if at_start:
        search.faults |= {("n0", f"gpu:{k}"): BROKEN.message for k in range(2)}
    for number in range(2):
        search.submit(number)
    ended = []
    for _ in range(40):
        search.clock.sleep(10)
        search.cluster.finish()
        for completion in search.executor.wait(0):
            ended.append(completion.outcome.kind)
            search.submit(completion.trial_id)
    assert FailureKind.ERROR not in ended
    assert ended.count(FailureKind.LOST) <= 2
    assert ended.count(FailureKind.ENVIRONMENT) > 2


def test_set_aside_for_growing_times_and_forgiven_after_one_success():
    breaker, device, now, times = Breaker(), Device("n", "gpu:0"), 0.0, []
    for number in range(12):
        breaker.judge(device, number, BROKEN, now, others=[Device("n", "gpu:1")])
        if breaker.is_aside(device, now):
            begin = now
            while breaker.is_aside(device, now):
                now += 1
            times.append(now - begin)
    assert times == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    breaker.worked(device, 99)
    breaker.judge(device, 100, BROKEN, now, others=[Device("n", "gpu:1")])
    assert not breaker.is_aside(device, now)


# -- memory of the host -------------------------------------------------------------------------------------


def kill(executor, cluster, actor):
    """Ray's memory monitor ends the actor's process."""
    cluster.begun.remove(actor)
    actor.call.end(OutOfMemoryError("Task was killed due to the node running low on memory"))
    return executor.wait(0)


@pytest.fixture
def crowded():
    """Two nodes with three trials each."""
    cluster = StubCluster({"a": {"CPU": 3}, "b": {"CPU": 3}})
    executor = RayExecutor(None, WorkerPlan(), clock=VirtualClock(), remote=cluster)
    for number in range(6):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))
    while len(cluster.begun) < 6:
        executor.wait(0)
    clock = executor._fleet.now._clock

    def again():
        """Trials at work on node a."""
        clock.sleep(2)
        executor.wait(0)
        return sorted(p.trial_id for actor in cluster.begun if actor.node_id == "a" for p in actor.proposals)

    return SimpleNamespace(executor=executor, cluster=cluster, clock=clock, at_work=again)


def test_what_is_killed_for_memory_beside_others_is_tried_once_more_alone(crowded):
    executor, cluster = crowded.executor, crowded.cluster
    victim, *others = [actor for actor in cluster.begun if actor.node_id == "a"]
    (number,) = (proposal.trial_id for proposal in victim.proposals)
    assert kill(executor, cluster, victim) == []
    for k in range(10, 13):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=k), attempt=1))
    assert len(crowded.at_work()) == 2, "nothing new begins there"
    cluster.finish(where=lambda actor: actor in others)
    assert crowded.at_work() == [number]
    assert crowded.at_work() == [number]
    cluster.finish(where=lambda actor: actor.node_id == "a")
    assert [completion.outcome for completion in executor.wait(0)] == [GOOD]
    assert len(crowded.at_work()) == 3


def test_what_is_killed_for_memory_alone_is_out_of_memory(crowded):
    executor, cluster = crowded.executor, crowded.cluster
    victim, *others = [actor for actor in cluster.begun if actor.node_id == "a"]
    kill(executor, cluster, victim)
    cluster.finish(where=lambda actor: actor in others)
    crowded.at_work()
    (alone,) = (actor for actor in cluster.begun if actor.node_id == "a")
    (ended,) = kill(executor, cluster, alone)
    assert ended.outcome.kind is FailureKind.OUT_OF_MEMORY


def test_a_node_kept_for_a_trial_that_is_cancelled_is_given_others(crowded):
    executor, cluster = crowded.executor, crowded.cluster
    victim = next(actor for actor in cluster.begun if actor.node_id == "a")
    kill(executor, cluster, victim)
    executor.cancel(victim.proposals[0].trial_id)
    for k in range(10, 13):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=k), attempt=1))
    assert len(crowded.at_work()) == 3


def test_a_node_kept_for_a_trial_that_dies_keeps_nothing(crowded):
    executor, cluster = crowded.executor, crowded.cluster
    victim = next(actor for actor in cluster.begun if actor.node_id == "a")
    (number,) = (proposal.trial_id for proposal in victim.proposals)
    kill(executor, cluster, victim)
    cluster.dead.add("a")
    ended = []
    for _ in range(5):
        crowded.clock.sleep(2)
        ended += executor.wait(0)
        cluster.finish(where=lambda actor: actor.node_id == "b")
        ended += executor.wait(0)
    assert {completion.trial_id for completion in ended if completion.outcome == GOOD} == {number, 3, 4, 5}
