"""What is said of the time left: nothing before a trial has ended, and it does not climb while one is waited for."""

import itertools
from dataclasses import replace

import pytest
from _stand_in import MemoryPool, SharedForm, beside, closed_form, shared_search

from nao_ray import rng
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.base import StrategyConfig
from nao_ray.strategies.darts import Darts, DartsConfig
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Fidelity, Measurement

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
    SearchLoop(
        MemoryPool(), LocalProposer(strategy), executor, budget, clock=clock, **beside(listener=seen.append)
    ).run()
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


EPOCH = 60.0  # seconds of a phase, in the mean


class Alphas(SharedForm):
    """Made-up alphas; a phase takes a minute and a network alone `alone` seconds, each up to a tenth more or less."""

    def __init__(self, alone):
        super().__init__()
        self.space, self.alone = NasBench201(), alone

    def took(self, seconds, seed):
        seconds *= rng.child(seed, "took").uniform(0.9, 1.1)
        return {"wall_seconds": seconds, "device_seconds": 0.8 * seconds}

    def train(self, proposal, source, group):
        alphas = rng.child(proposal.seed, "alphas").normal(size=(6, 5))
        measured = Measurement(
            train_loss=1.0,
            derived_genotype=self.space.derive([alphas]).key,
            alphas=tuple(alphas.ravel().tolist()),
            **self.took(EPOCH, proposal.seed),
        )
        return measured, proposal.phase.version.encode()

    def evaluate(self, proposal):
        return Measurement(valid_accuracy=0.5, **self.took(self.alone, proposal.seed))


@pytest.mark.parametrize(
    ("alone", "workers", "low", "high"), [(6, 1, 0.95, 1.1), (6, 2, 0.95, 1.1), (240, 1, 0.8, 1.1), (240, 2, 0.8, 1.1)]
)
def test_the_time_left_of_a_darts_search_is_right_before_a_cell_has_cost_anything(alone, workers, low, high):
    """It was trials at the rate of phases: the end was said to be up to 5.5 times as far as it was, or 0.6 times.

    What a cell costs is a guess at first, and a part of the whole as small as the cells found are.
    """
    clock, seen, pool = VirtualClock(), [], MemoryPool()
    settings = DartsConfig(seeds=2, epochs=12, alarm_at_skips=6, alarm_at_none=None)
    strategy = Darts(NasBench201(), settings, 3, Fidelity())
    executor = SimulatedExecutor(Alphas(alone), clock, workers, weights=pool)
    SearchLoop(
        pool,
        LocalProposer(strategy),
        executor,
        Budget(trials=1000),
        clock=clock,
        **beside(listener=seen.append),
    ).run()
    told = [snapshot for snapshot in seen if snapshot.eta_seconds is not None]
    assert len(told) >= len(pool.finished) > 24
    ends = [(snapshot.seconds + snapshot.eta_seconds) / seen[-1].seconds for snapshot in told]
    assert low < min(ends) <= max(ends) < high
    lows = itertools.accumulate(ends, min)
    assert max(end - least for end, least in zip(ends, lows, strict=True)) < 0.25, "what it climbs by"
    assert told[-1].eta_seconds == 0


class Shared(SharedForm):
    """A phase takes a minute, a score a second, a network of its own `alone` seconds, each a tenth more or less."""

    def __init__(self, alone):
        super().__init__()
        self.alone = alone

    def took(self, seconds, seed):
        seconds *= rng.child(seed, "took").uniform(0.9, 1.1)
        return {"wall_seconds": seconds, "device_seconds": seconds}

    def train(self, proposal, source, group):
        measured, weights = super().train(proposal, source, group)
        return replace(measured, **self.took(EPOCH, proposal.seed)), weights

    def evaluate(self, proposal):
        seconds = self.alone if proposal.fidelity.weights_version is None else 1
        return replace(super().evaluate(proposal), **self.took(seconds, proposal.seed))


@pytest.mark.parametrize(
    ("alone", "workers", "low", "high"), [(60, 1, 0.7, 1.1), (60, 2, 0.7, 1.5), (20, 1, 0.9, 1.6), (200, 1, 0.3, 1.1)]
)
def test_the_time_left_with_shared_weights_is_by_work(alone, workers, low, high):
    """It was by trials, at the rate of those that ended: 5.4 to 18.6 times the truth at first, 0.22 to 0.76 later.

    What a network of its own costs is as many epochs of the weights, until one has been trained.
    """
    clock, seen, pool = VirtualClock(), [], MemoryPool()
    settings = {"rounds": 4, "epochs": 2, "epochs_per_version": None, "scored": 40, "finalists": 4, "audited": 3}
    strategy = shared_search(**settings)
    strategy.fidelity = Fidelity(epochs=2)
    executor = SimulatedExecutor(Shared(alone), clock, workers, weights=pool)
    SearchLoop(
        pool,
        LocalProposer(strategy),
        executor,
        Budget(trials=1000),
        clock=clock,
        **beside(listener=seen.append),
    ).run()
    told = [snapshot for snapshot in seen if snapshot.eta_seconds is not None]
    assert len(told) >= len(pool.finished) > 160
    ends = [(snapshot.seconds + snapshot.eta_seconds) / seen[-1].seconds for snapshot in told]
    assert low < min(ends) <= max(ends) < high
    assert told[-1].eta_seconds == 0


class SetBack(SimulatedExecutor):
    """Of each trial the device's time is known, and the clock of its worker was set back to where the trial began."""

    def wait(self, timeout=None, wake=()):
        return [
            replace(one, finished_at=one.started_at, outcome=replace(one.outcome, device_seconds=3.0))
            for one in super().wait(timeout, wake)
        ]


def test_a_clock_that_is_set_back_costs_the_time_left_alone():
    """It ended the search: a division by no time at all."""
    clock, seen = VirtualClock(), []
    strategy = RandomSearch(NaoCnnSmall(), StrategyConfig(), 0, Fidelity())
    executor = SetBack(closed_form(), clock, 1)
    SearchLoop(
        MemoryPool(),
        LocalProposer(strategy),
        executor,
        Budget(trials=4),
        clock=clock,
        **beside(listener=seen.append),
    ).run()
    assert seen[-1].done == 4
    assert {snapshot.eta_seconds for snapshot in seen} == {None}
