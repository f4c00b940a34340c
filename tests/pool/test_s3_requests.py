"""How many requests a pool on object storage takes, counted at the server."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record
from _s3_drivers import take_over, vanish

from nao_ray._pool import objects, rows
from nao_ray._pool.catalogue import Digest
from nao_ray.pool import PoolReader, PoolWriter, Watch

LONG = 3600.0  # seconds; no heartbeat comes between the requests that are counted
FEW = 20


@pytest.fixture
def count(server):
    def count(what) -> int:
        server.requests.clear()
        what()
        return len(server.requests)

    return count


def opened(url: str) -> None:
    PoolReader.open(url).log()


@pytest.fixture
def large(url):
    """21,000 trials as a driver leaves them that has recorded them a few hundred at a time."""
    made = PoolWriter.create(url, MANIFEST)
    trials = [make_trial(k) for k in range(300)]
    asked = rows.table([rows.asked_row(k, trial.proposal, START) for k, trial in enumerate(trials)], rows.EVENTS)
    finished = rows.table([rows.trial_row(trial, "nao", "digits") for trial in trials], rows.TRIALS)
    with made.acquire(expiry=LONG):
        for first in range(0, 21_000, 300):
            made.record_tables(later(finished, first), later(asked, first))
            made._compact_if_due()
    return url


def later(data: pa.Table, by: int) -> pa.Table:
    """The same rows of trials that were asked later."""
    for name in {"trial_id", "log_index", "seq"} & set(data.column_names):
        place = data.column_names.index(name)
        data = data.set_column(place, data.schema.field(place), pc.add(data[name], by))
    return data


def test_sixty_trials(url, server, count):
    """Before, 200 trials took 1,611 requests to open, acquire and read."""
    made = PoolWriter.create(url, MANIFEST)
    made.acquire(expiry=LONG)
    assert count(lambda: record(made, 0, 60)) <= 60 * 3 * 9 / 8 + 12, "one a part, and a digest every eight"
    vanish(made)
    assert count(lambda: opened(url)) <= FEW
    assert count(lambda: PoolReader.open(url).best(3)) <= FEW
    assert count(lambda: PoolReader.open(url).counts()) <= FEW
    assert count(lambda: PoolReader.open(url).sql("SELECT count(*) FROM trials")) <= FEW
    assert count(lambda: take_over(url)._lease.release()) <= FEW, "the driver before died"
    assert count(lambda: PoolWriter.open(url).acquire().release()) <= FEW, "it gave the pool free"


def test_twenty_thousand_trials(large, count):
    limit = FEW + 21_000 // 5_000
    assert count(lambda: opened(large)) <= limit
    assert len(PoolReader.open(large).trials(["trial_id"])) == 21_000
    made = PoolWriter.open(large)
    assert count(lambda: made.acquire(expiry=LONG)) <= limit
    assert count(lambda: record(made, 21_000, 1)) == 3
    vanish(made)
    assert count(lambda: take_over(large)._lease.release()) <= limit


def test_who_watches_asks_for_what_has_changed(url, server, count):
    made = PoolWriter.create(url, MANIFEST)
    made.acquire(expiry=LONG)
    record(made, 0, 30)
    watch = Watch(url)
    assert watch.look().finished == 30
    assert count(watch.look) == 1, "one listing"
    made._lease._write(released=False)
    assert count(watch.look) == 2, "and the heartbeat"
    made.record_finished([make_trial(30)])
    assert count(watch.look) == 2, "or the new part"
    record(made, 31, 30)
    assert count(watch.look) <= 2 + 8, "or what is new and not yet in the digest"
    made.compact()
    assert count(watch.look) == 1, "merged parts that hold nothing new are not read"
    assert watch.look().finished == 61
    made._lease.release()


def test_the_loggers_tail_asks_for_what_has_changed(url, count):
    made = PoolWriter.create(url, MANIFEST)
    made.acquire(expiry=LONG)
    record(made, 0, 30)
    made.record_fits([{"round": 0, "loss": 1.0}])
    reader = PoolReader.open(url)
    tail = reader.follow("trials", ["trial_id"])

    def step() -> None:
        tail.read()
        reader.diagnostics()

    step()
    assert count(step) == 2
    made.record_finished([make_trial(30)])
    assert count(step) == 3
    made.record_asked([make_proposal(31)], START)
    assert count(step) == 2
    made._lease.release()


def test_a_query_lists_the_pool_once(url, server):
    """Before, up to four times."""
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire(expiry=LONG):
        record(made, 0, 2)
    reader = PoolReader.open(url)
    for query, lists in (("select count(*) from trials", 1), ("select count(*) from FINAL", 2)):
        server.requests.clear()
        reader.sql(query)
        assert sum(path.endswith("?list") for _, path in server.requests) == lists


def test_a_folder_of_thousands_is_passed_over(url, server, monkeypatch):
    monkeypatch.setattr(objects, "_PAGE", 10)
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire(expiry=LONG):
        record(made, 0, 2)
    for k in range(31):
        made._storage.write(f"logs/{k:08d}-000.txt", b"")
    server.requests.clear()
    opened(url)
    assert [path for _, path in server.requests if path.endswith("?list")] == [server.requests[1][1]] * 2
    assert len(PoolReader.open(url).log()) == 2


def test_a_digest_that_is_old_or_missing_or_damaged_changes_nothing(url):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 20)
        storage = made._storage
        old = storage.read("recent.digest")
        made.compact()
        record(made, 20, 10)
        log, now = made.log(), storage.read("recent.digest")
        flipped = [now[:k] + bytes([now[k] ^ 1]) + now[k + 1 :] for k in range(0, len(now), 50)]
        for data in flipped:
            with pytest.raises(ValueError, match="checksum"):
                Digest.from_bytes(data)
        for data in (old, old[:-100], b"no", flipped[len(flipped) // 2], None):
            if data is None:
                storage.remove("recent.digest")
            else:
                storage.write("recent.digest", data)
            reader = PoolReader.open(url)
            assert reader.log() == log
            assert reader.check() == []
