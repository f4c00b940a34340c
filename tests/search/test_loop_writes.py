"""A loop whose pool cannot be written: a full disk, and another driver that has taken over."""

from collections import Counter

import pytest
from _stand_in import MemoryPool, facts, simulate

from nao_ray.errors import FencedError, PoolWriteError
from nao_ray.search.clock import VirtualClock
from nao_ray.search.writing import Patience


class Full:
    """A disk that is full from the n-th write on, for a number of writes."""

    def __init__(self, start: int, length: int, name: str | None = None):
        self.start, self.stop, self.name, self.count = start, start + length, name, 0

    def __call__(self, name: str) -> bool:
        if self.name in (None, name):
            self.count += 1
        return self.name in (None, name) and self.start <= self.count < self.stop


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", range(1, 12))
def test_a_disk_that_is_full_for_a_while_loses_nothing(start, workers):
    pool = MemoryPool()
    pool.broken = Full(start, 5)
    warned = []
    snapshot = simulate(pool, workers=workers, trials=20, listener=lambda s: warned.append(s.write_error))[1]()
    assert snapshot.done == 20
    assert "no space left" in next(filter(None, warned))
    assert warned[-1] is None
    if workers == 1:
        unbroken = MemoryPool()
        simulate(unbroken, trials=20)[1]()
        assert facts(pool) == facts(unbroken)


def test_running_trials_go_on_while_the_disk_is_full():
    pool = MemoryPool()
    pool.broken = Full(4, 2, "finished")
    _, run = simulate(pool, workers=4, trials=24, patience=Patience(pause=10.0))
    run()
    batches = Counter(trial.trial_id for trial in pool.finished)
    assert batches == Counter(range(24))


def test_patience_ends_with_the_error_and_the_pool_resumes():
    pool = MemoryPool()
    pool.broken = Full(20, 10**6)
    loop, run = simulate(pool, trials=20, patience=Patience(seconds=60, pause=5))
    with pytest.raises(PoolWriteError, match="no space left"):
        run()
    full_since = (pool.finished[-1].finished_at - VirtualClock.START).total_seconds()
    assert 60 <= loop.snapshot().seconds - full_since < 70
    assert len(pool.finished) == 9
    pool.broken = lambda _: False
    simulate(pool, trials=20)[1]()
    unbroken = MemoryPool()
    simulate(unbroken, trials=20)[1]()
    assert facts(pool) == facts(unbroken)


def test_a_fenced_driver_stops_at_once():
    pool = MemoryPool()

    def fenced(_: str) -> bool:
        if len(pool.finished) == 3:
            raise FencedError("another driver holds the lease")
        return False

    pool.broken = fenced
    with pytest.raises(FencedError):
        simulate(pool)[1]()
    assert len(pool.finished) == 3
