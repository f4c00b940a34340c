"""Searches with shared weights under the loop: versions are kept before they count, whatever happens to the disk."""

import zlib
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
from _stand_in import MemoryPool, SharedForm, beside, shared_search, simulate

from nao_ray import rng
from nao_ray.errors import GenotypeError, PoolError, PoolWriteError, RunError
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.executor import SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.writing import Patience
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.parts.shared_search import SharedConfig, SharedSearch
from nao_ray.trial import Fidelity, Measurement, Trial, TrialState


def run(pool, **options):
    settings = {"strategy": shared_search(), "evaluator": SharedForm(), "trials": 1000}
    return simulate(pool, **{**settings, **options})[1]()


def facts(pool):
    return [
        (trial.log_index, trial.state, trial.score, trial.proposal)
        for trial in sorted(pool.finished, key=lambda trial: trial.trial_id)
    ]


@pytest.fixture(scope="module")
def unbroken():
    pool = MemoryPool()
    run(pool)
    return pool


class Full:
    """No room for the n-th version, for a number of tries."""

    def __init__(self, start, length):
        self.start, self.stop, self.count = start, start + length, 0

    def __call__(self, name):
        self.count += name == "weights"
        return name == "weights" and self.start <= self.count < self.stop


def test_a_version_is_kept_before_its_training_counts(unbroken):
    kept = [index for index, name in enumerate(unbroken.calls) if name == "weights"]
    assert len(kept) == 4
    assert all(unbroken.calls[index + 1] == "finished" for index in kept)
    assert [trial.proposal.phase.version for trial in unbroken.finished if trial.proposal.phase] == list(
        unbroken.weights
    )


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", [1, 2, 4])
def test_a_version_that_cannot_be_written_is_written_when_there_is_room(unbroken, start, workers):
    pool, warned = MemoryPool(), []
    pool.broken = Full(start, 5)
    run(pool, workers=workers, listener=lambda snapshot: warned.append(snapshot.write_error))
    assert "no space left" in next(filter(None, warned))
    assert warned[-1] is None
    assert pool.weights == unbroken.weights
    assert {trial.trial_id: trial.score for trial in pool.finished} == {
        trial.trial_id: trial.score for trial in unbroken.finished
    }
    assert all(attempt == 1 for _, attempt in pool.attempts), "trained once"


def test_when_patience_ends_the_training_is_done_again(unbroken):
    pool = MemoryPool()
    pool.broken = Full(2, 10**6)
    with pytest.raises(PoolWriteError, match="no space left"):
        run(pool, patience=Patience(seconds=60, pause=5))
    assert list(pool.weights) == list(unbroken.weights)[:1]
    assert [trial.proposal.phase.version for trial in pool.finished] == list(pool.weights)
    pool.broken = lambda _: False
    run(pool)
    assert facts(pool) == facts(unbroken)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kill_at", range(1, 40, 5))
def test_a_driver_killed_at_any_write_resumes_to_the_unbroken_search(unbroken, kill_at):
    pool, left = MemoryPool(), kill_at

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
    assert facts(pool) == facts(unbroken)
    assert pool.weights == unbroken.weights


def test_a_version_that_is_gone_stops_the_resume_and_fails_nothing(tmp_path, unbroken):
    """The pool keeps the last versions; what a user removed is named, and put back the search goes on."""
    pool = PoolWriter.create(tmp_path / "pool", {"config": {"name": "t", "strategy": "shared_random_search"}})

    def search(stop_after=None):
        log = pool.log()
        executor = SerialExecutor(SharedForm(), weights=pool)
        stop = (lambda: False) if stop_after is None else (lambda: pool.counts().finished >= stop_after)
        proposer, budget = LocalProposer(shared_search(), log), Budget(trials=1000)
        SearchLoop(pool, proposer, executor, budget, **beside(stop=stop)).run(log)

    with pool.acquire():
        for stop_after, version in ((1, "e00002"), (4, "e00002"), (6, "e00003")):  # next: scores, scores, training
            with pytest.raises(KeyboardInterrupt):
                search(stop_after)
            file = tmp_path / "pool" / "weights" / f"{version}.safetensors"
            weights, finished = file.read_bytes(), pool.counts().finished
            file.unlink()
            for _ in range(2):
                with pytest.raises(
                    PoolError, match=rf"has no weights of version {version}, it has .* put weights/{version}"
                ):
                    search()
            assert (pool.counts().finished, pool.counts().failed) == (finished, 0)
            file.write_bytes(weights)
        search()
    assert [(trial.state, trial.score) for trial in pool.log()] == [
        (TrialState.COMPLETED, trial.score) for trial in sorted(unbroken.finished, key=lambda trial: trial.trial_id)
    ]
    assert sorted(path.name for path in (tmp_path / "pool" / "weights").iterdir()) == [
        "e00002.safetensors", "e00003.safetensors", "e00004.safetensors", "versions.json"
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 4])
def test_progress_counts_what_the_strategy_plans_not_what_the_budget_allows(workers):
    seen = []
    run(MemoryPool(), workers=workers, listener=seen.append)
    most = 2 * (2 + 4) + 2 + 3
    totals = [snapshot.total for snapshot in seen if snapshot.asked]
    assert max(totals) == most
    assert totals[-1] == seen[-1].done <= most
    half = next(snapshot for snapshot in seen if snapshot.done >= 8)
    assert half.eta_seconds < 60, "1000 trials would take a quarter of an hour"
    seen.clear()
    run(MemoryPool(), workers=workers, listener=seen.append, trials=5)
    assert seen[-1].total == 5


class Deriving(SharedSearch):
    """Rounds of a phase that comes to an architecture, which is scored, and from which the next phase begins."""

    def __init__(self):
        given = SharedConfig(rounds=3, epochs=2, epochs_per_version=1, finalists=1, audited=0)
        super().__init__(NaoCnnSmall(), given, 3, Fidelity())

    def scored_in(self, round_):
        return 1

    def script(self):
        scored, derived = {}, None
        for index in range(self.config.rounds):
            derived = yield from self.train([] if derived is None else [derived], kind="alphas")
            scored |= yield from self.score([derived], index)
        return scored


class Derives(SharedForm):
    """The last phase of a round comes to an architecture that follows from all phases before."""

    def train(self, proposal, source, group):
        assert proposal.phase.kind == "alphas"
        measurement, weights = super().train(proposal, source, group)
        number = zlib.crc32(b" ".join([weights, *(text.encode() for text in proposal.phase.genotypes)]))
        found = self.space.sample(rng.child(number, "derived"))
        return replace(measurement, derived_genotype=None if proposal.phase.last_epoch % 2 else found.key), weights


def derive(pool, kill_at=None, **options):
    executor = SerialExecutor(Derives(), weights=pool)
    stop = (lambda: False) if kill_at is None else (lambda: len(pool.log()) >= kill_at)
    log = pool.log()
    given = beside(stop=stop, **options)
    SearchLoop(pool, LocalProposer(Deriving(), log), executor, Budget(trials=100), **given).run(log)


def test_what_a_phase_came_to_is_recorded_and_told_again_on_resume(tmp_path):
    """In a pool of files, with the driver killed after every trial."""

    def create(name):
        return PoolWriter.create(tmp_path / name, {"config": {"name": "t", "strategy": "deriving"}})

    whole, broken = create("whole"), create("broken")
    with whole.acquire():
        derive(whole)
    with broken.acquire():
        for kill_at in range(1, 10):
            with suppress(KeyboardInterrupt):
                derive(broken, kill_at)
        derive(broken)
    logs = [[(trial.proposal, trial.score, trial.derived) for trial in pool.log()] for pool in (whole, broken)]
    assert logs[0] == logs[1]
    derived = [found for proposal, _, found in logs[0] if proposal.phase]
    assert [found is None for found in derived] == [True, False] * 3
    assert len({found.key for found in derived if found}) == 3
    assert [p.genotype for p, *_ in logs[0] if p.fidelity.weights_version] == [found for found in derived if found]
    assert [p.phase.genotypes for p, *_ in logs[0] if p.phase][2] == (derived[1].key,), "the next phase begins from it"


def test_an_architecture_that_is_none_of_the_space_is_refused():
    strategy = Deriving()
    for last, text in ((False, None), (True, "1 2 3")):
        (proposal,) = strategy.ask(1)
        found = Measurement(train_loss=1.0, derived_genotype=text)
        trial = Trial(proposal=proposal).complete(found, log_index=strategy.num_told)
        with pytest.raises(GenotypeError, match="space nao_cnn_small") if last else nullcontext():
            strategy.tell([trial])


def test_a_pool_from_before_the_seed_of_a_training_goes_on_as_it_began():
    """Its phases have none: each is named by its proposal."""
    old, new = shared_search(), shared_search()
    (first,) = new.ask(1)
    assert first.phase.seed is not None
    before = replace(first, phase=replace(first.phase, seed=None))
    old.restore([Trial(proposal=before).complete(Measurement(train_loss=1.0), log_index=0)])
    assert old.ask(1)[0].phase.seed is None
    new.tell([Trial(proposal=first).complete(Measurement(train_loss=1.0), log_index=0)])
    assert new.ask(1)[0].phase.seed == first.phase.seed


def test_a_phase_that_fails_stops_the_run_and_is_done_again_on_resume(unbroken):
    class Unlucky(SharedForm):
        def train(self, proposal, source, group):
            if proposal.phase.first_epoch == 2:
                raise FloatingPointError("the loss is not finite")
            return super().train(proposal, source, group)

    pool = MemoryPool()
    with pytest.raises(RunError, match=r"shared weights e00003 failed \(nan\): .*not finite.*; nao-ray resume"):
        run(pool, evaluator=Unlucky())
    assert not [trial for trial in pool.finished if trial.state is TrialState.FAILED]
    assert list(pool.weights) == list(unbroken.weights)[:2]
    run(pool)
    assert facts(pool) == facts(unbroken)
