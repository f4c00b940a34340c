"""Pools on object storage, in memory: one PUT per file, no renames, no locks."""

import os
import uuid

import boto3
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record

from nao_ray._pool import holder as holders
from nao_ray._pool import lease as leases
from nao_ray._pool import stores
from nao_ray._pool.objects import ObjectStorage
from nao_ray._pool.storage import open_storage
from nao_ray.addresses import has_credentials
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import Counts, PoolReader, PoolWriter


@pytest.fixture
def url():
    return f"memory://{uuid.uuid4().hex}/pool"


def test_a_pool_by_url_does_what_a_local_one_does(url):
    assert not PoolReader.exists(url)
    made = PoolWriter.create(url, MANIFEST)
    assert PoolReader.exists(url)
    with made.acquire():
        finished = record(made, 0, 5)
        made.record_asked([make_proposal(5)], START)
        made.record_fits([{"round": 0, "loss": 1.0}])
        made.record_fits([{"round": 1, "loss": 0.5}])
        assert made.record_finished([make_trial(2)]) == []
    again = PoolWriter.open(url)
    assert again.manifest == MANIFEST
    assert again.url == url
    assert again.log()[:5] == finished
    assert again.counts() == Counts(asked=6, completed=4, failed=1, best_score=finished[2].score, best_trial_id=2)
    assert again.best(1)["trial_id"].tolist() == [2]
    assert again.fits()["loss"].tolist() == [1.0, 0.5]
    assert again.sql("SELECT count(*) AS n FROM trials")["n"].tolist() == [5]
    assert again.check() == ["1 trials were asked and have no final row (resume to finish them): 5"]
    with pytest.raises(PoolError, match="is a pool already"):
        PoolWriter.create(url, MANIFEST)


def test_numbers_follow_from_the_parts_where_the_lease_is_lost(url):
    """Merged ones, too: no name is used again."""
    made = PoolWriter.create(url, MANIFEST)
    for first in (0, 3):
        with made.acquire():
            record(made, first, 3)
            made.compact()
    made._storage.remove("lease/holder.json")
    again = PoolWriter.open(url)
    with again.acquire() as lease:
        assert lease.epoch == 3
        record(again, 6, 1)
        again.compact()
    assert again.trials()["trial_id"].tolist() == list(range(7))
    assert again.check() == []


def test_a_place_that_holds_something_else_is_refused(url):
    open_storage(url).write("notes.txt", b"mine")
    with pytest.raises(PoolError, match=r"holds other files \(notes.txt\)"):
        PoolWriter.create(url, MANIFEST)
    open_storage(url).remove("notes.txt")
    open_storage(url).write("trials/mine.parquet", b"mine")
    with pytest.raises(PoolError, match=r"holds other files \(trials/mine.parquet\)"):
        PoolWriter.create(url, MANIFEST)


def test_the_lease_fences(url, monkeypatch):
    made = PoolWriter.create(url, MANIFEST)
    lease = made.acquire()
    other = PoolWriter.open(url)
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


def test_of_two_that_claim_at_once_one_has_the_lease(url, monkeypatch):
    """There is no lock: both see the pool free, and both write their claim."""
    made = PoolWriter.create(url, MANIFEST)
    swap, rivals = ObjectStorage.swap, []

    def after_a_rival(self, name, data, tag):
        if name == holders.HOLDER and not rivals:
            rivals.append(swap(self, name, holders.Holder(**rival).to_bytes(), tag))
        return swap(self, name, data, tag)

    rival = {
        "epoch": 1,
        "token": "rival",
        "host": "h",
        "place": "p",
        "pid": 1,
        "started": 0.0,
        "beat": 0.0,
        "expiry": 30.0,
    }
    monkeypatch.setattr(ObjectStorage, "swap", after_a_rival)
    with pytest.raises(PoolError, match="has a driver: pid 1 on h"):
        made.acquire()
    with pytest.raises(FencedError):
        made.record_finished([make_trial(0)])


def test_a_truncated_part_is_moved_out(url, caplog):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 2)
    storage = made._storage
    name = storage.parts("trials")[-1]
    storage.write(f"trials/{name}", b"PAR1")
    again = PoolWriter.open(url)
    with again.acquire():
        pass
    assert "moved to quarantine/" in caplog.text
    assert again.trials()["trial_id"].tolist() == [0]
    assert storage.entries("quarantine") == [f"trials-{name}"]


def test_a_put_that_fails_is_a_write_error(url, monkeypatch):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        with monkeypatch.context() as patch:

            def fail(self, name, data, tag):
                raise self.failed(name, OSError("SlowDown: reduce your request rate"))

            patch.setattr(ObjectStorage, "swap", fail)
            with pytest.raises(PoolWriteError):
                made.record_finished([make_trial(0)])
        assert made.record_finished([make_trial(0)]) == [make_trial(0)]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://bucket/pool", "pools live in a folder or at s3://"),
        ("hdfs://bucket/pool", "can be mounted"),
        ("s3:///pool", "names no bucket"),
        ("s3://bucket/pool?endpoint=here", "its query has 'endpoint'; known are endpoint_override"),
        ("s3://bucket/pool?tls_ca_file_path=/nowhere", "No such file"),
        ("az://container/pool", "ccount must be specified"),
    ],
)
def test_a_url_that_cannot_be_opened_is_named(url, says):
    with pytest.raises(PoolError, match=r"cannot open .*") as caught:
        PoolReader.open(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_has_no_credentials_is_told_so_at_once(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(PoolError, match=r"cannot open s3://bucket/pool.*: no credentials were found"):
        PoolReader.open("s3://bucket/pool?region=eu-west-1")


@pytest.mark.parametrize(
    ("url", "place", "settings"),
    [
        ("s3://b/a/pool?region=eu-west-1", "b/a/pool", {"region": "eu-west-1", "bucket": "b"}),
        ("s3://b?endpoint_override=localhost:9000&scheme=http", "b", {"endpoint": "http://localhost:9000"}),
        ("s3://b/p?endpoint_override=https://minio", "b/p", {"endpoint": "https://minio"}),
        ("az://c/p?endpoint_override=127.0.0.1:1/me&scheme=http", "c/p", {"endpoint": "http://127.0.0.1:1/me"}),
        ("abfs://c@me.dfs.core.windows.net/p", "c/p", {"account_name": "me", "container_name": "c"}),
        ("abfss://c@me/p", "c/p", {"account_name": "me", "container_name": "c"}),
        ("gs://b/p", "b/p", {"bucket": "b"}),
    ],
)
def test_an_address_says_where_a_pool_is(url, place, settings, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert not has_credentials(url)
    storage = open_storage(url)
    assert storage.path("run.yaml") == f"{url.partition('?')[0]}/run.yaml"
    opener, path = stores.parse(url)
    assert path == place.partition("/")[2]
    config = opener(60.0, 3).config
    assert {key: config.get(key) for key in settings} == settings


def test_stores_share_a_session_until_the_credentials_are_others(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = tmp_path / ".aws" / "credentials"
    keys.parent.mkdir()
    made = []

    class Counted(boto3.Session):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(boto3, "Session", Counted)

    def key_of_a_store():
        opener, _ = stores.parse(f"s3://b/{len(made)}?region=eu-west-1")
        opener(60.0, 3)
        return opener(1.0, 0).credential_provider()["access_key_id"]

    for count, key in enumerate(("first", "second-key"), start=1):
        keys.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
        assert [key_of_a_store() for _ in range(2)] == [key] * 2
        assert len(made) == count
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "third")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert key_of_a_store() == "third"
    assert len(made) == 3
