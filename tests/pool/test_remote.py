"""Pools on object storage: one PUT per file, no renames, no locks."""

import time
import uuid

import fsspec
import pandas as pd
import pyarrow.fs as pafs
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record

from nao_ray import pool as pools
from nao_ray._pool import lease as leases
from nao_ray._pool import storage as storages
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import Counts, Pool


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leases, "_SETTLE", 0.0)


@pytest.fixture(params=["fsspec", "pyarrow"])
def url(request, tmp_path, monkeypatch):
    """A URL of fsspec's in-memory store, and one that pyarrow opens itself."""
    if request.param == "pyarrow":
        inner = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
        opened = storages.open_storage

        def open_storage(url):
            text = str(url)
            if not text.startswith("bucket://"):
                return opened(url)
            return storages.RemoteStorage(inner, text.removeprefix("bucket://"), text)

        monkeypatch.setattr(pools, "open_storage", open_storage)
        return "bucket://some/pool"
    return f"memory://{uuid.uuid4().hex}/pool"


def test_a_pool_by_url_does_what_a_local_one_does(url):
    assert not Pool.exists(url)
    made = Pool.create(url, MANIFEST)
    assert Pool.exists(url)
    with made.acquire():
        finished = record(made, 0, 5)
        made.record_asked([make_proposal(5)], START)
        made.record_fits([{"round": 0, "loss": 1.0}])
        made.record_fits([{"round": 1, "loss": 0.5}])
        assert made.record_finished([make_trial(2)]) == []
    again = Pool.open(url)
    assert again.manifest == MANIFEST
    assert again.url == url
    assert again.log()[:5] == finished
    assert again.counts() == Counts(asked=6, completed=4, failed=1, best_score=finished[2].score, best_trial_id=2)
    assert again.best(1)["trial_id"].tolist() == [2]
    assert again.fits()["loss"].tolist() == [1.0, 0.5]
    assert again.sql("SELECT count(*) AS n FROM trials")["n"].tolist() == [5]
    assert again.check() == ["1 trials were asked and have no final row (resume to finish them): 5"]
    with pytest.raises(PoolError, match="is a pool already"):
        Pool.create(url, MANIFEST)


def test_pandas_reads_it_by_url():
    url = f"memory://{uuid.uuid4().hex}/pool"
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 3)
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2]


def test_compaction_says_why_it_cannot(url):
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 3)
        with pytest.raises(PoolError, match="object storage has no rename"):
            made.compact()
        assert len(made.trials()) == 3


def test_the_lease_fences(url, monkeypatch):
    made = Pool.create(url, MANIFEST)
    lease = made.acquire()
    other = Pool.open(url)
    with pytest.raises(PoolError, match="has a driver"):
        other.acquire()
    monkeypatch.setattr(leases, "is_dead", lambda holder: True)
    with other.acquire() as second:
        assert second.epoch == 2
        with pytest.raises(FencedError):
            made.record_finished([make_trial(0)])
        record(other, 0, 1)
    lease.release()
    assert other.trials()["trial_id"].tolist() == [0]


def test_of_two_that_claim_at_once_the_last_put_has_the_lease(url, monkeypatch):
    """There is no lock: both see the pool free, both write their claim, and each looks again."""
    made = Pool.create(url, MANIFEST)
    rival = leases.Holder(
        epoch=1, token="rival", host="h", place="p", pid=1, started=0.0, beat=time.time(), expiry=30.0
    )
    monkeypatch.setattr(leases.time, "sleep", lambda _: made._storage.write(leases.HOLDER, rival.to_bytes()))
    with pytest.raises(PoolError, match="another driver has just taken it"):
        made.acquire()
    with pytest.raises(FencedError):
        made.record_finished([make_trial(0)])


def test_a_truncated_part_is_moved_out(url, caplog):
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 2)
    storage = made._storage
    name = storage.parts("trials")[-1]
    storage.write(f"trials/{name}", b"PAR1")
    again = Pool.open(url)
    assert "moved to quarantine/" in caplog.text
    assert again.trials()["trial_id"].tolist() == [0]
    assert storage.entries("quarantine") == [f"trials-{name}"]


def test_a_put_that_fails_is_a_write_error(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}/pool"
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        with monkeypatch.context() as patch:

            def fail(*args, **kwargs):
                raise OSError("SlowDown: reduce your request rate")

            patch.setattr(fsspec.implementations.memory.MemoryFileSystem, "_open", fail)
            with pytest.raises(PoolWriteError):
                made.record_finished([make_trial(0)])
        assert made.record_finished([make_trial(0)]) == [make_trial(0)]


@pytest.mark.parametrize("url", ["nosuch://bucket/pool", "s3a://bucket/pool"])
def test_a_url_that_cannot_be_opened_is_named(url):
    with pytest.raises(PoolError, match=f"cannot open {url}") as caught:
        Pool.open(url)
    assert "\n" not in str(caught.value)
