"""Searches with several trainings of shared weights side by side: each goes on from its own versions."""

from collections import Counter
from dataclasses import replace

import pytest
from _stand_in import MemoryPool, SharedForm, simulate

from nao_ray.errors import Drained, RunError
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.requests import Request
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import FailureKind, Fidelity, Phase, Proposal, TrialState

TRAININGS, EPOCHS, SCORED = 4, 5, 3


class SideBySide(Strategy[StrategyConfig]):
    """Trainings that do not wait for one another; when all are over, their last versions score genotypes."""

    shares_weights = True

    def __init__(self):
        super().__init__(NaoCnnSmall(), StrategyConfig(), 3, Fidelity())
        self.agenda = [self.phase(training, 0) for training in range(TRAININGS)]
        self.trained, self.finished = Counter(), 0

    def phase(self, training, epoch):
        name = f"s{training}e{epoch + 1}"
        source = f"s{training}e{epoch}" if epoch else None
        given = Phase(
            version=name, source=source, first_epoch=epoch, last_epoch=epoch + 1, genotypes=(), seed=100 + training
        )
        return Proposal(genotype=Genotype(self.space.name, f"shared weights {name}"), phase=given)

    def propose(self, k, rng):
        if not self.agenda:
            return None
        draft = self.agenda[0]
        return draft if draft.phase else replace(draft, genotype=self.space.sample(rng))

    def note_asked(self, proposal):
        self.agenda.pop(0)

    def observe(self, trial):
        phase = trial.proposal.phase
        if phase is None:
            self.finished += 1
            return
        training = phase.seed - 100
        self.trained[training] = phase.last_epoch
        if phase.last_epoch < EPOCHS:
            self.agenda.append(self.phase(training, phase.last_epoch))
        elif all(self.trained[each] == EPOCHS for each in range(TRAININGS)):
            versions = [f"s{each}e{EPOCHS}" for _ in range(SCORED) for each in range(TRAININGS)]
            stand_in = Genotype(self.space.name, "")
            self.agenda += [
                Proposal(genotype=stand_in, fidelity=Fidelity(weights_version=version)) for version in versions
            ]

    @property
    def done(self):
        return self.finished == TRAININGS * SCORED


def run(pool, **options):
    given = {"strategy": SideBySide(), "evaluator": SharedForm(), "trials": 1000, "workers": TRAININGS}
    return simulate(pool, **{**given, **options})[1]()


def by_name(pool):
    """Versions and scores; in which order trainings end is the workers' affair."""
    scores = {
        (trial.proposal.fidelity.weights_version, trial.genotype.key): trial.score
        for trial in pool.finished
        if trial.proposal.phase is None
    }
    assert len(scores) == TRAININGS * SCORED
    return {name: weights.split()[1::2] for name, weights in pool.weights.items()}, scores


@pytest.fixture(scope="module")
def unbroken():
    pool = MemoryPool()
    run(pool)
    return pool


def test_trainings_overlap_and_each_goes_on_from_its_own_version(unbroken):
    spans = [(t.started_at, t.finished_at) for t in unbroken.finished if t.proposal.phase and t.proposal.phase.seed]
    last = max(end for _, end in spans) - min(start for start, _ in spans)
    assert last.total_seconds() == EPOCHS * 5.0, "as long as one of them"
    assert unbroken.weights[f"s2e{EPOCHS}"].split()[1::2] == [b"s2e%d" % epoch for epoch in range(1, EPOCHS + 1)]
    assert len({trial.score for trial in unbroken.finished if trial.score is not None}) == TRAININGS * SCORED


def test_a_worker_that_is_lost_costs_an_attempt_of_one_phase(unbroken):
    def fault(job):
        phase = job.proposal.phase
        if phase and phase.version == "s1e3" and job.attempt < 3:
            return Failure(FailureKind.LOST, "worker gone")
        return None

    pool = MemoryPool()
    run(pool, fault=fault)
    attempts = Counter(trial.attempt for trial in pool.finished)
    assert attempts == {1: len(pool.finished) - 1, 3: 1}
    assert pool.weights.keys() == unbroken.weights.keys()
    assert by_name(pool)[0] == by_name(unbroken)[0]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_a_driver_killed_at_any_write_resumes_to_the_unbroken_search(unbroken, share):
    pool, left = MemoryPool(), int(share * len(unbroken.calls))

    def broken(_):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return False

    pool.broken = broken
    with pytest.raises(Killed):
        run(pool)
    pool.broken = lambda _: False
    run(pool)
    assert by_name(pool)[0] == by_name(unbroken)[0]
    assert all(trial.state is TrialState.COMPLETED for trial in pool.finished)


def test_a_pool_on_disk_has_what_each_training_goes_on_from(tmp_path):
    pool = PoolWriter.create(tmp_path / "pool", {"config": {"name": "t", "strategy": "own"}})
    with pool.acquire():
        clock = VirtualClock()
        executor = SimulatedExecutor(SharedForm(), clock, TRAININGS, weights=pool)
        SearchLoop(pool, LocalProposer(SideBySide(), []), executor, Budget(trials=1000), clock=clock).run([])
    scored = [trial for trial in PoolReader.open(tmp_path / "pool").log() if trial.proposal.phase is None]
    assert len(scored) == TRAININGS * SCORED


def test_a_training_that_fails_for_good_ends_the_search_once_what_ran_beside_it_is_recorded(unbroken):
    """The others' phases were given up with it."""

    def fault(job):
        is_broken = job.proposal.phase and job.proposal.phase.version == "s1e3"
        return Failure(FailureKind.ERROR, "out of luck") if is_broken else None

    pool = MemoryPool()
    with pytest.raises(RunError, match=r"s1e3 failed .error.: out of luck; nao-ray resume tries it again"):
        run(pool, fault=fault)
    assert pool.weights.keys() == {f"s{k}e{epoch}" for k in range(TRAININGS) for epoch in (1, 2, 3)} - {"s1e3"}
    assert all(trial.state is TrialState.COMPLETED for trial in pool.finished)
    run(pool)
    assert by_name(pool)[0] == by_name(unbroken)[0]


def test_a_second_training_that_fails_does_not_cut_short_the_others():
    """Formerly the search then ended at once."""

    def fault(job):
        is_broken = job.proposal.phase and job.proposal.phase.version in ("s0e3", "s1e3")
        return Failure(FailureKind.ERROR, "out of luck") if is_broken else None

    pool = MemoryPool()
    with pytest.raises(RunError, match=r"s[01]e3 failed .error.: out of luck"):
        run(pool, fault=fault)
    assert {"s2e3", "s3e3"} <= pool.weights.keys()


class DrainAfter:
    """Asks for a drain once."""

    def __init__(self, pool, finished):
        self.pool, self.finished = pool, finished

    def look(self):
        if len(self.pool.finished) < self.finished:
            return []
        self.finished = 10**6
        return [Request(what="drain")]

    def answer(self, request, text):
        assert text.startswith("no further trial begins")


def test_a_drain_lets_all_of_them_end_their_phases(unbroken):
    pool = MemoryPool()
    with pytest.raises(Drained):
        run(pool, requests=DrainAfter(pool, 5))
    assert pool.weights.keys() == {f"s{k}e{epoch}" for k in range(TRAININGS) for epoch in (1, 2)}
    run(pool)
    assert {attempt for _, attempt in pool.attempts} == {1}
    assert by_name(pool)[0] == by_name(unbroken)[0]
