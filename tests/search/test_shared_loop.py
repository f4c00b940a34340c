"""Searches with shared weights under the loop: versions are kept before they count, whatever happens to the disk."""

import pytest
from _stand_in import MemoryPool, SharedForm, shared_search, simulate

from nao_ray.errors import PoolError, PoolWriteError, RunError
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.executor import SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.writing import Patience
from nao_ray.trial import TrialState


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
        SearchLoop(pool, LocalProposer(shared_search(), log), executor, Budget(trials=1000), stop=stop).run(log)

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
