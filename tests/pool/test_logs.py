"""Logs of failed attempts: kept with the pool, few and small, for people to read."""

import pytest

from nao_ray._pool import logs as kept
from nao_ray.errors import FencedError
from nao_ray.pool import PoolReader, PoolWriter


def test_logs_are_kept_by_attempt_and_the_newest_only(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_LOGS", 3)
    pool = PoolWriter.create(tmp_path / "p", {"config": {}})
    with pytest.raises(FencedError):
        pool.record_log(0, 1, "no lease")
    with pool.acquire():
        for trial_id, attempt in [(7, 1), (1, 1), (1, 2)]:
            pool.record_log(trial_id, attempt, f"trial {trial_id}, attempt {attempt}: \udcff")
    again = PoolWriter.open(tmp_path / "p")
    with again.acquire():
        again.record_log(2, 1, "x" * 10**6)
    reader = PoolReader.open(tmp_path / "p")
    assert [len(reader.logs(number)) for number in (7, 1, 2)] == [1, 1, 1]
    assert reader.logs(1) == ["trial 1, attempt 2: ?"]
    assert len(reader.logs(2)[0]) < 110_000
    assert reader.logs(70) == []
    assert sorted(path.name for path in (tmp_path / "p" / "logs").iterdir()) == [
        "00000001-002.txt",
        "00000002-001.txt",
        "00000007-001.txt",
    ]
