"""A driver on object storage dies between any two of its requests, also of those that remove one file each."""

import uuid
from contextlib import suppress

import pytest
from _made_up_trials import MANIFEST, record
from _s3_drivers import take_over, vanish
from obstore.exceptions import PermissionDeniedError
from obstore.store import MemoryStore

from nao_ray._pool import stores
from nao_ray.errors import NaoRayError
from nao_ray.pool import PoolReader, PoolWriter

LONG = 3600.0  # seconds; no heartbeat comes between the requests that are counted


class Mortal:
    """A store whose client dies: after so many requests none is sent any more."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self.sent = 0
        self.last: int | None = None

    def _send(self, name, *words, **options):
        if self.last is not None and self.sent >= self.last:
            raise PermissionDeniedError("its client is dead")
        self.sent += 1
        return getattr(self._store, name)(*words, **options)

    def __getattr__(self, name):
        return lambda *words, **options: self._send(name, *words, **options)

    def delete(self, paths):
        """As Google has it: a request each."""
        for path in [paths] if isinstance(paths, str) else paths:
            self._send("delete", path)


@pytest.fixture
def store(monkeypatch):
    store = Mortal()
    monkeypatch.setattr(stores, "_memory", lambda _bucket: store)
    return store


def new_url() -> str:
    return f"memory://bucket/{uuid.uuid4().hex}"


def seen_once(url: str, count: int) -> None:
    reader = PoolReader.open(url)
    assert reader.trials(["trial_id"])["trial_id"].tolist() == list(range(count))
    assert [trial.trial_id for trial in reader.log()] == list(range(count))
    assert reader.check() == []


def files_once(url: str, count: int) -> None:
    """The folder's files themselves, as anybody else reads them."""
    storage = PoolReader.open(url)._storage
    ids = []
    for name in storage.entries("trials"):
        ids += storage.catalogue.tables("trials", [name])[0]["trial_id"].to_pylist()
    assert sorted(ids) == list(range(count))


def merging(url: str) -> PoolWriter:
    made = PoolWriter.create(url, MANIFEST)
    made.acquire(expiry=LONG)
    record(made, 0, 2)
    made.compact()
    record(made, 2, 2)
    return made


def requests_of(store, what) -> int:
    before = store.sent
    what()
    return store.sent - before


def killed_at(store, k: int, what) -> None:
    store.last = store.sent + k
    with pytest.raises((NaoRayError, OSError)):
        what()
    store.last = None


@pytest.mark.slow
def test_a_merge(store):
    made = merging(new_url())
    whole = requests_of(store, made.compact)
    vanish(made)
    assert whole > 10
    for k in range(whole):
        url = new_url()
        made = merging(url)
        killed_at(store, k, made.compact)
        vanish(made)
        seen_once(url, 4)
        other = take_over(url)
        files_once(url, 4)
        record(other, 4, 1)
        other.compact()
        seen_once(url, 5)
        files_once(url, 5)
        other._lease.release()


@pytest.mark.slow
def test_a_takeover_after_a_merge_that_removed_nothing(store):
    origin = new_url()
    made = merging(origin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made._storage), "remove", lambda *_: None)
        made.compact()
    vanish(made)

    def left() -> str:
        url = new_url()
        start = origin.removeprefix("memory://bucket/")
        for item in store.list(start).collect():
            target = item["path"].replace(start, url.removeprefix("memory://bucket/"))
            store.put(target, store.get(item["path"]).bytes())
        return url

    url = left()
    taken = []
    whole = requests_of(store, lambda: taken.append(take_over(url)))
    taken[0]._lease.release()
    assert whole > 10
    for k in range(whole):
        url = left()
        store.last = store.sent + k
        with suppress(NaoRayError, OSError):  # what only saves requests later may fail unseen
            vanish(take_over(url))
        store.last = None
        seen_once(url, 4)
        take_over(url)._lease.release()
        seen_once(url, 4)
        files_once(url, 4)


def test_a_record(store):
    """What was not recorded is missing whole, and the next driver records it; what was is there."""
    url = new_url()
    made = merging(url)
    whole = requests_of(store, lambda: record(made, 4, 3))
    vanish(made)
    for k in range(whole):
        url = new_url()
        made = merging(url)
        killed_at(store, k, lambda made=made: record(made, 4, 3))
        vanish(made)
        other = take_over(url)
        known = {trial.trial_id for trial in other.log() if trial.state != "RUNNING"}
        assert set(range(4)) <= known
        record(other, 4, 3)
        seen_once(url, 7)
        files_once(url, 7)
        other._lease.release()
