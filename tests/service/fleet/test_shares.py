"""Searches beside each other get what is theirs by priority, weight and limit, and no trial is ended for it."""

import json

import pytest
from _misbehaving import GENOTYPE

from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.nodes import HeadAwayError
from nao_ray.service.fleet.shares import STALE_SECONDS, Claim, Share, Shares, allot
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import Proposal


def claim(wants=100, holds=0, gpus=0.0, **given):
    return Claim(cpus=1.0, gpus=gpus, wants=wants, holds=holds, **given)


@pytest.mark.parametrize(
    ("claims", "free", "given"),
    [
        ({"a": claim()}, {"CPU": 8}, {"a": 8}),
        ({"a": claim(holds=8), "b": claim()}, {"CPU": 0}, {"a": 4, "b": 4}),
        ({"a": claim(holds=8, weight=3.0), "b": claim()}, {"CPU": 0}, {"a": 6, "b": 2}),
        ({"a": claim(wants=1), "b": claim(), "c": claim()}, {"CPU": 9}, {"a": 1, "b": 4, "c": 4}),
        ({"a": claim(priority=1, wants=5), "b": claim(), "c": claim()}, {"CPU": 9}, {"a": 5, "b": 2, "c": 2}),
        ({"a": claim(priority=1), "b": claim(holds=8)}, {"CPU": 0}, {"a": 8, "b": 0}),
        ({"a": claim(gpus=1.0), "b": claim(gpus=0.25)}, {"CPU": 64, "GPU": 4}, {"a": 2, "b": 8}),
        ({"a": claim(gpus=1.0), "b": claim()}, {"CPU": 6, "GPU": 4}, {"a": 4, "b": 6}),
        ({"a": claim(used=3600.0), "b": claim(), "c": claim()}, {"CPU": 2}, {"a": 0, "b": 1, "c": 1}),
        ({"a": claim(used=500.0), "b": claim()}, {"CPU": 1}, {"a": 1, "b": 0}),
    ],
)
def test_what_is_whose(claims, free, given):
    assert allot(claims, free) == given


class Board(dict):
    def claims(self, search, mine):
        self[search] = mine
        return dict(self)


def test_a_claim_that_does_not_change_is_of_a_dead_driver_and_strange_ones_are_passed_over():
    board = Board(strange=b"{}", odd=b"\xff", other=json.dumps(vars_of(claim(holds=4))).encode())
    shares = Shares(Share(search="mine"), board)
    assert shares.look(0.0, claim(holds=0), {"CPU": 0}) == 2
    assert shares.look(STALE_SECONDS - 1, claim(holds=0), {"CPU": 0}) == 2
    assert shares.look(STALE_SECONDS + 1, claim(holds=0), {"CPU": 4}) is None


def vars_of(each):
    from dataclasses import asdict

    return asdict(each)


def test_a_limit_on_gpus_holds_alone_too_and_without_the_head():
    class Away(Board):
        def claims(self, search, mine):
            raise HeadAwayError("no answer")

    shares = Shares(Share(search="mine", max_gpus=2.5), Away())
    assert shares.look(0.0, claim(gpus=0.5), {"GPU": 8}) == 5
    assert Shares(Share(max_gpus=3.0), Board()).look(0.0, claim(gpus=1.0), {"GPU": 8}) == 3
    assert Shares(Share(max_gpus=3.0), Board()).look(0.0, claim(), {"CPU": 8}) is None


class Together:
    """Searches on a cluster of 8 places, in turns of 4 seconds; each has work without end."""

    def __init__(self):
        self.cluster, self.clock, self.searches, self.asked = StubCluster({"a": {"CPU": 8}}), VirtualClock(), {}, 0

    def start(self, name, **share):
        plan = WorkerPlan(share=Share(search=name, **share))
        self.searches[name] = RayExecutor(None, plan, clock=self.clock, remote=self.cluster)
        self.searches[name].expect(None)

    def end(self, name):
        self.searches.pop(name).close()

    def kill(self, name):
        """Its driver, and with it its workers; its claim stays."""
        self.searches.pop(name)._fleet.close()

    def turn(self, times=1, finish=1):
        ended = 0
        for _ in range(times):
            self.clock.sleep(4)
            for executor in self.searches.values():
                while len(executor._queue) < 8:
                    executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=self.asked), attempt=1))
                    self.asked += 1
                ended += len(executor.wait(0))
            self.cluster.finish(finish)
            for executor in self.searches.values():
                ended += sum(done.outcome.valid_accuracy == 0.5 for done in executor.wait(0))
        return ended

    @property
    def busy(self):
        return {name: len(executor._fleet.busy) for name, executor in self.searches.items()}


@pytest.mark.parametrize("turns", [1, 5, 20])
def test_a_second_search_gets_its_share_as_trials_end_and_no_trial_is_lost(turns):
    """However long its first worker has waited for room."""
    together = Together()
    together.start("first")
    together.turn(3, finish=0)
    assert together.busy == {"first": 8}
    together.start("second", weight=3.0)
    together.turn(turns, finish=0)
    assert together.busy == {"first": 8, "second": 0}, "nothing that runs is ended"
    assert together.turn(30) == 30
    assert together.busy == {"first": 2, "second": 6}
    together.end("second")
    together.turn(3)
    assert together.busy == {"first": 8}, "within seconds"


def test_a_search_of_a_higher_priority_gets_all_and_what_it_leaves_comes_back():
    together = Together()
    together.start("first")
    together.turn(3, finish=0)
    together.start("urgent", priority=1)
    together.turn(30)
    assert together.busy == {"first": 0, "urgent": 8}
    together.kill("urgent")
    together.turn(3)
    assert together.busy == {"first": 8}, "what is free is, whatever a dead driver's claim says"
