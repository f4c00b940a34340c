"""What is said of the time left: nothing before a trial has ended, and it does not climb while one is waited for."""

import itertools

from _stand_in import MemoryPool, closed_form

from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import StrategyConfig
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Fidelity

STARTED = 180.0  # seconds until a worker is there


class Starved(SimulatedExecutor):
    """Two places, as the cluster says, and for three minutes no worker: another search has them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.held = []

    @property
    def waiting(self):
        return len(self.held) + super().waiting

    def submit(self, job):
        if self._clock.seconds() < STARTED:
            self.held.append(job)
        else:
            super().submit(job)

    def wait(self, timeout=None, wake=()):
        if self._clock.seconds() < STARTED:
            self._clock.sleep(20)
            return []
        for job in self.held:
            super().submit(job)
        self.held = []
        return super().wait(min(timeout or 0.25, 0.25), wake)  # often, as on Ray


def course(budget):
    clock, seen = VirtualClock(), []
    strategy = RandomSearch(NaoCnnSmall(), StrategyConfig(), 0, Fidelity())
    executor = Starved(closed_form(), clock, 2)
    SearchLoop(MemoryPool(), LocalProposer(strategy), executor, budget, clock=clock, listener=seen.append).run()
    return seen


def test_what_waits_for_a_worker_is_not_running_and_has_no_time_left():
    seen = course(Budget(trials=6, seconds=8 * 3600))
    early = [snapshot for snapshot in seen if snapshot.seconds < STARTED]
    assert len(early) >= 5
    assert {(snapshot.running, snapshot.eta_seconds) for snapshot in early} == {(0, None)}
    assert early[-1].queued == 2
    assert max(snapshot.running for snapshot in seen) == 2


def test_the_time_left_counts_down_between_two_ends():
    seen = course(Budget(trials=12))
    told = [(snapshot.done, snapshot.eta_seconds) for snapshot in seen]
    assert all(left is None for done, left in told if not done)
    assert sum(left is not None for _, left in told) > 20
    for (done, left), (later, after) in itertools.pairwise([pair for pair in told if pair[0]]):
        assert later > done or after <= left
    assert told[-1] == (12, 0)
