"""What is no architecture's fault makes no trial FAILED, and a search in which nothing succeeds ends."""

import errno
import logging

import pytest
from _stand_in import MemoryPool, closed_form, facts, simulate

from nao_ray.errors import DataError, RunError
from nao_ray.evaluators.parts.wrappers import FlakyEvaluator
from nao_ray.search.executor import Failure, Job
from nao_ray.search.trouble import Limits
from nao_ray.trial import FailureKind, TrialState


class Away(FlakyEvaluator):
    """Raises `error` at the evaluations numbered in `when`, whatever is evaluated."""

    def __init__(self, error: Exception, when) -> None:
        super().__init__(closed_form(noise=0.05))
        self.what, self.when, self.calls = error, when, 0

    def evaluate(self, proposal):
        self.calls += 1
        if self.calls - 1 in self.when:
            raise self.what
        return super().evaluate(proposal)


@pytest.mark.parametrize(
    "error",
    [
        DataError("the data folder /data/x is missing"),
        PermissionError(errno.EACCES, "Permission denied", "/data/x"),
        OSError(errno.ENOSPC, "No space left on device"),
        ModuleNotFoundError("No module named 'torchvision'"),
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_data_that_is_away_for_a_while_fails_no_trial(error, workers, caplog):
    unbroken, pool = MemoryPool(), MemoryPool()
    simulate(unbroken, workers=workers)[1]()
    seen = []
    with caplog.at_level(logging.WARNING):
        evaluator = Away(error, range(5, 12))
        simulate(pool, evaluator=evaluator, workers=workers, listener=lambda s: seen.append(s.trouble))[1]()
    assert [trial.state for trial in pool.finished] == [TrialState.COMPLETED] * 30
    if workers == 1:
        assert facts(pool) == facts(unbroken)
    begins, *_, ends = caplog.messages
    assert "no architecture's fault" in begins
    assert str(error) in begins
    assert "trials can be evaluated again" in ends
    assert any(seen)
    assert seen[-1] is None


@pytest.mark.parametrize("workers", [1, 8])
def test_data_that_stays_away_ends_the_search_with_all_trials_open(workers):
    pool = MemoryPool()
    loop, run = simulate(
        pool,
        evaluator=Away(DataError("the data folder /data/x is missing"), range(5, 10**6)),
        workers=workers,
        limits=Limits(trouble_seconds=600),
    )
    with pytest.raises(
        RunError, match=r"no trial could be evaluated for \d+ s, .*trial \d+ on worker-0: DataError: the "
    ):
        run()
    assert 600 <= loop.snapshot().seconds < 600 + 2 * 120
    assert len(pool.finished) == 5
    assert len(pool.attempts) < 5 + 3 * 16 + workers  # waits grow, and few are tried at a time

    unbroken = MemoryPool()
    simulate(unbroken, workers=1)[1]()
    simulate(pool, workers=1)[1]()
    assert {trial.state for trial in pool.finished} == {TrialState.COMPLETED}
    if workers == 1:
        assert facts(pool) == facts(unbroken)


def test_before_the_first_trial_a_tenth_of_the_patience_is_enough():
    pool = MemoryPool()
    loop, run = simulate(pool, evaluator=Away(DataError("no device"), range(10**6)), limits=Limits(trouble_seconds=600))
    with pytest.raises(RunError, match="no device"):
        run()
    assert 60 <= loop.snapshot().seconds < 600


def failing(which):
    def fault(job: Job) -> Failure | None:
        number = job.proposal.trial_id
        return Failure(FailureKind.ERROR, f"RuntimeError: channel {number} is odd") if which(number) else None

    return fault


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_in_which_everything_fails_stops_with_the_commonest_message(workers):
    pool = MemoryPool()
    expected = r"the last 1\d trials failed, all alike; trial \d+: error: RuntimeError: channel \d+ is odd; "
    with pytest.raises(RunError, match=expected):
        simulate(pool, trials=1000, workers=workers, fault=failing(lambda _: True))[1]()
    assert 10 <= len(pool.finished) < 10 + workers
    simulate(pool, trials=1000, workers=workers, limits=Limits(failures=None))[1]()
    assert len(pool.finished) == 1000


def test_after_a_success_it_takes_more_failures():
    pool = MemoryPool()
    with pytest.raises(RunError, match="the last 50 trials failed"):
        simulate(pool, trials=1000, fault=failing(lambda number: number > 3))[1]()
    assert len(pool.finished) == 54


def test_quick_failures_wait_for_the_slow_ones_that_run():
    """With many workers the first to end are those that fail at once: they are no verdict."""
    pool = MemoryPool()
    simulate(pool, trials=200, workers=60, fault=failing(lambda number: number % 3 == 0))[1]()
    assert len(pool.finished) == 200
