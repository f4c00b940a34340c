"""Merging parts on a server that speaks S3, with readers, drivers and crashes in between."""

import threading

import pandas as pd
import pyarrow.fs as pafs
import pytest
from _made_up_trials import MANIFEST, record
from _s3_drivers import fenced, take_over, vanish

from nao_ray._pool import names, object_journal
from nao_ray.errors import NaoRayError, PoolError, StorageError
from nao_ray.pool import PoolReader, PoolWriter

LONG = 3600.0  # seconds; no heartbeat comes between the requests that are counted


def seen_once(url: str, count: int) -> None:
    """What our readers see is each trial and each event once, now."""
    reader = PoolReader.open(url)
    assert reader.trials(["trial_id"])["trial_id"].tolist() == list(range(count))
    assert [trial.trial_id for trial in reader.log()] == list(range(count))
    assert reader.check() == []
    assert reader.follow("events", ["seq"]).read()["seq"].to_pylist() == list(range(2 * count))


def plain(url: str) -> list[int]:
    """Trials as others read them."""
    return sorted(pd.read_parquet(url + "/trials")["trial_id"])


def test_merged_parts_hold_the_same_rows_and_nothing_else_is_left(url):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        finished = record(made, 0, 12)
        before = made.trials()
        made.compact()
        record(made, 12, 1)
        made.compact()
        assert len(made._storage.entries("trials")) == len(made._storage.entries("events")) == 1
        assert made.log()[:12] == finished
        pd.testing.assert_frame_equal(made.trials()[:12], before)
        made.compact()
        record(made, 13, 2)
    seen_once(url, 15)
    assert plain(url) == list(range(15))


def test_the_driver_merges_by_itself_and_rewrites_little(url, monkeypatch):
    monkeypatch.setattr(object_journal, "MERGE_AT", 6)
    made = PoolWriter.create(url, MANIFEST)
    created, recorded, create = [], [], type(made._storage).create

    def count(self, name, data):
        (created if names.merged(name.rpartition("/")[2]) else recorded).append(len(data))
        return create(self, name, data)

    monkeypatch.setattr(type(made._storage), "create", count)
    with made.acquire():
        record(made, 0, 60)
        assert len(made._storage.parts("events")) <= 6 + 3
    seen_once(url, 60)
    assert len(created) >= 15
    assert sum(created) < sum(recorded)


def merging_driver(url: str, each: int = 3) -> PoolWriter:
    """A driver with a merged part of `each` trials and as many small ones."""
    made = PoolWriter.create(url, MANIFEST)
    made.acquire(expiry=LONG)
    record(made, 0, each)
    made.compact()
    record(made, each, each)
    return made


def carried_out(server, what) -> int:
    """How many requests it takes."""
    server.requests.clear()
    what()
    return len(server.requests)


@pytest.mark.slow
def test_a_merge_that_is_killed_at_any_request_loses_and_doubles_nothing(url, server):
    made = merging_driver(url + "-whole", each=2)
    whole = carried_out(server, made.compact)
    made._lease.release()
    assert 8 <= whole <= 16
    for k in range(whole):
        place = f"{url}-{k}"
        made = merging_driver(place, each=2)
        server.left = k
        with pytest.raises(NaoRayError):
            made.compact()
        server.left = None
        vanish(made)
        seen_once(place, 4)
        assert set(plain(place)) == set(range(4)), "a plain reader may see rows twice, but none is missing"
        other = take_over(place)
        seen_once(place, 4)
        assert plain(place) == list(range(4)), "the next driver has removed what was left"
        record(other, 4, 1)
        other.compact()
        seen_once(place, 5)
        assert plain(place) == list(range(5))
        other._lease.release()


@pytest.mark.parametrize("lands", ["late", "never"])
def test_a_second_driver_takes_over_in_the_middle_of_a_merge(url, server, lands):
    """The merged part is on its way; the other driver records and merges too; then it lands."""
    made = merging_driver(url)
    server.hold("/trials/m000001-00000003")
    late, said = fenced(made.compact)
    server.wait_held()
    vanish(made)
    other = take_over(url)
    record(other, 6, 2)
    if lands == "never":
        other.compact()
    server.let_go()
    late.join()
    assert said == ["FencedError"]
    seen_once(url, 8)
    record(other, 8, 1)
    other.compact()
    seen_once(url, 9)
    other._lease.release()
    with PoolWriter.open(url).acquire():
        seen_once(url, 9)
    assert plain(url) == list(range(9))


def test_a_merge_that_a_server_refuses_is_tried_again_later(url, server, monkeypatch, caplog):
    monkeypatch.setattr(object_journal, "MERGE_AT", 4)
    made = PoolWriter.create(url, MANIFEST)
    create, refused = type(made._storage).create, []

    def refuse(self, name, data):
        if names.merged(name.rpartition("/")[2]) and len(refused) < 2:
            refused.append(name)
            raise self.failed(name, OSError("503 SlowDown"))
        return create(self, name, data)

    monkeypatch.setattr(type(made._storage), "create", refuse)
    with made.acquire():
        record(made, 0, 9)
        assert "was not compacted" in caplog.text
        assert refused[0] == refused[1], "what may land is what comes next"
        record(made, 9, 3)
    seen_once(url, 12)
    assert len(PoolReader.open(url)._storage.parts("events")) < 12


def test_readers_see_each_trial_once_while_a_driver_merges(url, monkeypatch):
    """Readers, a follower and a driver at once, on a server that carries out whatever comes whenever it comes."""
    monkeypatch.setattr(object_journal, "MERGE_AT", 5)
    made = PoolWriter.create(url, MANIFEST)
    over = threading.Event()
    wrong: list[object] = []
    looks = [0]

    def read() -> None:
        reader, seen = PoolReader.open(url), 0
        while not over.is_set():
            found = reader.trials(["trial_id"])["trial_id"].tolist()
            if found != list(range(len(found))) or len(found) < seen:
                wrong.append(found)
            seen = len(found)
            looks[0] += 1

    def follow() -> None:
        tail, ids = PoolReader.open(url).follow("trials", ["trial_id"]), set()
        while not over.is_set():
            ids |= set(tail.read()["trial_id"].to_pylist())
            if ids != set(range(len(ids))):
                wrong.append(ids)
            looks[0] += 1

    def guarded(what) -> None:
        try:
            what()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(what,)) for what in (read, read, follow)]
    with made.acquire():
        for thread in threads:
            thread.start()
        record(made, 0, 20)
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert looks[0] > 10
    assert made._journal._merges > 5
    seen_once(url, 20)


def test_two_drivers_that_claim_at_once_many_times(url):
    """One of them gets the pool each time, and what it writes is there once."""
    PoolWriter.create(url, MANIFEST)
    taken: list[int] = []
    for round_ in range(8):
        start = threading.Barrier(3)
        leases, refused = [], []

        def claim(start=start, leases=leases, refused=refused) -> None:
            pool = PoolWriter.open(url)
            start.wait()
            try:
                leases.append((pool, pool.acquire()))
            except (PoolError, StorageError) as error:
                refused.append(str(error))

        threads = [threading.Thread(target=claim) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(leases) == 1, refused
        assert all("has a driver" in why or "has just taken it" in why for why in refused)
        pool, lease = leases[0]
        taken.append(lease.epoch)
        record(pool, round_, 1)
        lease.release()
    assert taken == list(range(1, 9))
    seen_once(url, 8)


def test_a_part_is_created_by_one_of_many(url, server):
    """The server carries out at once what comes at once: of eight that create a file one does, and the others know."""
    storage = PoolWriter.create(url, MANIFEST)._storage
    for round_ in range(10):
        start, made = threading.Barrier(8), []

        def create(k: int, start=start, made=made, round_=round_) -> None:
            start.wait()
            if storage.create(f"final/{round_}", str(k).encode()):
                made.append(k)

        threads = [threading.Thread(target=create, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1
        assert storage.read(f"final/{round_}") == str(made[0]).encode()


def test_what_plain_readers_are_promised(url):
    """pandas, or anything that reads the folder: no row is ever missing, and none doubled but while a merge removes."""
    made = PoolWriter.create(url, MANIFEST)
    storage, seen = type(made._storage), []
    with made.acquire():
        record(made, 0, 6)
        filesystem, path = pafs.FileSystem.from_uri(url + "/trials")
        remove = storage.remove

        def look_first(self, *files) -> None:
            seen.append(sorted(pd.read_parquet(path, filesystem=filesystem)["trial_id"]))
            remove(self, *files)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "remove", look_first)
            made.compact()
        assert plain(url) == list(range(6))
    assert seen[0] == sorted([*range(6), *range(6)]), "that window is all"
