"""Searches beside others: capacity is what is free or ours, and who waits with nothing is given a place."""

import pytest
from _misbehaving import GENOTYPE

from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.nodes import HeadAwayError
from nao_ray.service.fleet.worker import Slot, WorkerPlan
from nao_ray.trial import Proposal


class Beside:
    """An executor on a cluster of 8 places, in turns of 4 seconds."""

    def __init__(self, **plan):
        self.cluster = StubCluster({"a": {"CPU": 4}, "b": {"CPU": 4}})
        self.clock = VirtualClock()
        self.plan, self.executor, self.asked = plan, None, 0

    def start(self):
        self.executor = RayExecutor(None, WorkerPlan(**self.plan), clock=self.clock, remote=self.cluster)
        return self.executor

    def others(self, count):
        return [self.cluster.create(Slot()) for _ in range(count)]

    def turn(self, times=1, finish=0):
        for _ in range(times):
            self.clock.sleep(4)
            self.executor.wait(0)
            self.cluster.finish(finish)
            self.executor.wait(0)

    def submit(self, count):
        for _ in range(count):
            self.executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=self.asked), attempt=1))
            self.asked += 1


@pytest.mark.parametrize(("used", "capacity"), [(0, 8), (3, 5), (7, 1), (8, 1)])
def test_capacity_is_what_others_leave(used, capacity):
    beside = Beside()
    beside.others(used)
    assert beside.start().capacity == capacity


def test_our_own_workers_are_capacity_too_while_they_start_as_well():
    beside = Beside()
    beside.others(2)
    executor = beside.start()
    beside.submit(6)
    for _ in range(4):
        beside.turn()
        assert executor.capacity == 6
    assert len(executor._fleet.busy) == 6


def test_what_others_give_back_is_taken_up():
    beside = Beside()
    neighbours = beside.others(8)
    executor = beside.start()
    beside.submit(1)
    beside.turn(3)
    assert executor.capacity == 1
    for actor in neighbours[:5]:
        beside.cluster.kill(actor)
    beside.turn(2)
    assert executor.capacity == 5


def test_a_fixed_number_is_no_more_than_there_is_room_for():
    beside = Beside(count=6)
    beside.others(4)
    assert beside.start().capacity == 4


def test_a_head_that_does_not_say_is_taken_to_have_all_free(monkeypatch):
    beside = Beside()
    beside.others(4)

    def load():
        raise HeadAwayError("no answer")

    monkeypatch.setattr(beside.cluster, "load", load)
    assert beside.start().capacity == 8


def test_one_worker_is_given_back_between_trials_to_somebody_who_waits_with_nothing():
    beside = Beside()
    executor = beside.start()
    executor.expect(None)
    beside.submit(8)
    beside.turn(2)
    (waiting,) = beside.others(1)
    beside.turn(5)
    assert waiting.node_id is None, "no trial is ended for it"
    beside.submit(4)
    beside.turn(1, finish=1)
    assert waiting.node_id is not None
    beside.turn(2)
    assert executor.capacity == 7
    assert len(executor._fleet.busy) == 7
    beside.turn(10, finish=1)
    assert executor.capacity == 7, "one for each who waits, and it has not come back for more"


@pytest.mark.parametrize("plan", [{"count": 8}, {}])
def test_no_more_than_half_is_given_back_and_nothing_of_a_number_that_was_set(plan):
    beside = Beside(**plan)
    executor = beside.start()
    executor.expect(None)
    beside.submit(1000)
    beside.turn(2)
    beside.others(50)
    beside.turn(100, finish=1)
    assert len(executor._fleet.busy) == (8 if plan else 4)


def test_nobody_is_given_room_that_would_not_do():
    beside = Beside()
    executor = beside.start()
    executor.expect(None)
    beside.submit(1000)
    beside.turn(2)
    beside.cluster.create(Slot(1.0))  # wants a GPU, too
    beside.turn(30, finish=1)
    assert len(executor._fleet.busy) == 8
