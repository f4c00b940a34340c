"""Transient, refused, damaged: told apart once, so that a healthy file is never called damaged, nor a search ended."""

import errno
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _made_up_trials import record
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

from nao_ray._pool import faults, objects
from nao_ray._pool.faults import Fault, UnreachableError, kind_of
from nao_ray._pool.local import LocalStorage
from nao_ray.errors import PoolError, PoolReadError, PoolWriteError, StorageError
from nao_ray.pool import Finals, PoolReader, PoolWriter, Watch
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import attempt
from nao_ray.search.writing import Patience, Writer

THROTTLED = TimeoutError(errno.ETIMEDOUT, "503 Slow Down")
DENIED = PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(faults, "_TRY_SECONDS", 0.0)


@pytest.fixture
def reading(monkeypatch):
    """`reading(word, error)`: files whose names hold the word cannot be read any more; with None, again."""
    look = LocalStorage.read
    broken = {}

    def read(self, name, length=None):
        for word, error in broken.items():
            if word in name and error is not None:
                raise error
        return look(self, name, length)

    monkeypatch.setattr(LocalStorage, "read", read)
    return broken.__setitem__


def arrow_error(data: bytes) -> Exception:
    try:
        pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        return error
    raise AssertionError


def flipped() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": list(range(1000))}), sink, write_page_checksum=True)
    data = bytearray(sink.getvalue().to_pybytes())
    data[40] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "Input/output error"), Fault.TRANSIENT),
        (OSError(errno.ESTALE, "Stale file handle"), Fault.TRANSIENT),
        (OSError(errno.ENOSPC, "No space left on device"), Fault.TRANSIENT),
        (OSError(errno.ENAMETOOLONG, "File name too long"), Fault.TRANSIENT),
        (FileNotFoundError("of Arrow, without a number"), Fault.TRANSIENT),
        (ConnectionResetError(), Fault.TRANSIENT),
        (THROTTLED, Fault.TRANSIENT),
        (UnreachableError("429"), Fault.TRANSIENT),
        (pa.lib.ArrowMemoryError("malloc failed"), Fault.TRANSIENT),
        (objects._os_error(GenericError("Generic S3 error: 503")), Fault.TRANSIENT),
        (DENIED, Fault.REFUSED),
        (OSError(errno.EROFS, "Read-only file system"), Fault.REFUSED),
        (objects._os_error(PermissionDeniedError("403")), Fault.REFUSED),
        (objects._os_error(UnauthenticatedError("401")), Fault.REFUSED),
        (objects._os_error(GenericError("Generic S3 error: no credentials found")), Fault.REFUSED),
        (arrow_error(b""), Fault.DAMAGED),
        (arrow_error(b"PAR1" + b"x" * 100), Fault.DAMAGED),
        (arrow_error(flipped()), Fault.DAMAGED),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Fault.DAMAGED),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), Fault.DAMAGED),
    ],
    ids=str,
)
def test_every_error_is_of_one_kind(error, kind):
    assert kind_of(error) is kind


WRITES = {
    "fits": ("fits.parquet", lambda pool: pool.record_fits([{"round": 1, "loss": 0.5}])),
    "weights": ("versions.json", lambda pool: pool.write_weights("e2", b"two")),
}


@pytest.mark.parametrize("error", [THROTTLED, DENIED], ids=["throttled", "refused"])
@pytest.mark.parametrize("what", WRITES)
def test_what_cannot_be_read_for_a_write_is_tried_again_by_the_loop(pool, lease, reading, what, error):
    """It ended the search: as an OSError, or with the advice to remove a healthy file."""
    pool.record_fits([{"round": 0, "loss": 0.7}])
    pool.write_weights("e1", b"one")
    name, write = WRITES[what]
    clock = VirtualClock()
    writer = Writer(Patience(), clock)
    reading(name, error)
    assert not writer.write(lambda: write(pool))
    assert name in writer.error
    assert "damaged" not in writer.error
    reading(name, None)
    clock.sleep(5.0)
    writer.turn()
    assert writer.write(lambda: write(pool))
    assert pool.fits()["loss"].tolist()[:1] == [0.7], "what was recorded before is kept"
    assert pool.read_weights("e1") == b"one"


def test_patience_ends_with_the_error(pool, lease, reading):
    clock = VirtualClock()
    writer = Writer(Patience(seconds=8.0), clock)
    pool.record_fits([{"round": 0}])
    reading("fits.parquet", THROTTLED)
    assert not writer.write(lambda: pool.record_fits([{"round": 1}]))
    clock.sleep(10.0)
    writer.turn()
    with pytest.raises(
        PoolReadError, match=r"cannot read .*fits.parquet at the moment: .*503 Slow Down; nothing is lost"
    ):
        writer.write(lambda: pool.record_fits([{"round": 1}]))


def test_damaged_fits_are_put_aside_and_the_search_goes_on(pool, lease, folder, caplog):
    """It ended the search."""
    pool.record_fits([{"round": 0}])
    (folder / "fits" / "fits.parquet").write_bytes(b"nonsense")
    with pytest.raises(PoolError, match=r"fits\.parquet is damaged \(.*\): what the strategy said") as told:
        PoolReader.open(folder).fits()
    assert "remove" not in str(told.value)
    with caplog.at_level(logging.WARNING):
        pool.record_fits([{"round": 1}])
    assert "fits.parquet is damaged" in caplog.text
    assert pool.fits()["round"].tolist() == [1]
    assert (folder / "quarantine" / "fits-fits.parquet").read_bytes() == b"nonsense"


def test_a_damaged_list_of_versions_loses_no_weights(pool, lease, folder, caplog):
    """It was a JSONDecodeError in the middle of the search."""
    pool.write_weights("e1", b"one")
    (folder / "weights" / "versions.json").write_text("{")
    pool.write_weights("e2", b"two")
    assert (pool.read_weights("e1"), pool.read_weights("e2")) == (b"one", b"two")
    assert "versions.json is damaged" in caplog.text


READS = {
    "manifest": ("run.yaml", PoolReader.open),
    "fits": ("fits.parquet", lambda url: PoolReader.open(url).fits()),
    "weights": ("e1.safetensors", lambda url: PoolReader.open(url).read_weights("e1")),
    "final": ("final/a.parquet", lambda url: Finals(url).row("a")),
    "checkpoint": ("weights/a.safetensors", lambda url: Finals(url).checkpoint_header("a")),
    "lease": ("holder.json", lambda url: Watch(str(url)).look()),
    "sql": ("fits.parquet", lambda url: PoolReader.open(url).sql("SELECT 1 AS one FROM fits")),
}


@pytest.mark.parametrize("error", [THROTTLED, DENIED], ids=["throttled", "refused"])
@pytest.mark.parametrize("what", READS)
def test_a_file_that_cannot_be_read_is_not_called_damaged_or_missing(pool, folder, reading, what, error):
    with pool.acquire():
        record(pool, 0, 2)
        pool.record_fits([{"round": 0}])
        pool.write_weights("e1", b"one")
    name, read = READS[what]
    reading(name, error)
    with pytest.raises(PoolReadError, match=Path(name).name if what != "lease" else "lease") as told:
        read(folder)
    assert ("may not read" if error is DENIED else "at the moment") in str(told.value)
    assert not any(word in str(told.value) for word in ("damaged", "remove", "put "))
    assert "\n" not in str(told.value)


def test_parts_that_cannot_be_read_are_not_called_damaged(pool, folder, monkeypatch):
    with pool.acquire():
        record(pool, 0, 2)
    real = LocalStorage.open

    def stalled(self, name):
        if name.startswith("trials/e000001"):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, name)

    monkeypatch.setattr(LocalStorage, "open", stalled)
    problems = PoolReader.open(folder).check()
    assert len(problems) == 2
    assert all("cannot be read at the moment, so nothing is known of it" in problem for problem in problems)


@pytest.mark.parametrize("folder_name", ["trials", "events"])
def test_a_damaged_part_is_named_with_what_is_lost(pool, folder, folder_name):
    with pool.acquire():
        record(pool, 0, 3)
        pool.compact()
    (part,) = (folder / folder_name).glob("*.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 0xFF
    part.write_bytes(data)
    with pytest.raises(PoolError, match=rf"{part.name} is damaged \(.*\): .* in it, unless a copy is put back") as told:
        PoolReader.open(folder).log()
    assert "remove" not in str(told.value)
    assert "\n" not in str(told.value)


def test_bytes_that_came_wrongly_once_are_read_again(pool, folder, monkeypatch):
    """A short read of a stalled server looks like damage; the bytes say that it is none."""
    with pool.acquire():
        record(pool, 0, 3)
    from nao_ray._pool import tables

    real, wrong = tables.dataset, [arrow_error(b""), None]

    def dataset(*words):
        error = wrong.pop(0) if wrong else None
        if error is not None:
            raise error
        return real(*words)

    monkeypatch.setattr(tables, "dataset", dataset)
    assert len(PoolReader.open(folder).trials()) == 3
    wrong[:] = [arrow_error(b"")] * 2
    with pytest.raises(PoolReadError, match="at the moment"):
        PoolReader.open(folder).trials()


def test_merging_does_not_take_over_what_is_damaged(pool, folder):
    """Merged, flipped bits would have had fresh checksums."""
    with pool.acquire():
        record(pool, 0, 3)
        pool.compact()
        record(pool, 3, 2)
        part = max((folder / "trials").glob("*.parquet"), key=lambda path: path.stat().st_size)
        data = bytearray(part.read_bytes())
        data[40] ^= 0xFF
        part.write_bytes(data)
        with pytest.raises(PoolError, match=f"{part.name} is damaged"):
            pool.compact()
    assert part.read_bytes() == bytes(data)


def test_a_read_only_disk_is_one_line(pool, lease, monkeypatch):
    def refuse(self, name, data):
        raise self.failed(name, OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr(LocalStorage, "_write_hidden", refuse)
    with pytest.raises(
        PoolWriteError, match="nothing recorded was lost: allow writing there, or renew the credentials"
    ):
        pool.record_fits([{"round": 0}])


def test_whether_a_file_exists_is_not_guessed(pool, folder, monkeypatch):
    """A stalled disk said that there are no fits, and the next ones replaced them."""
    import os

    def stalled(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "stat", stalled)
    with pytest.raises(OSError, match="Input/output error"):
        LocalStorage(str(folder)).exists("fits/fits.parquet")


def test_no_trial_fails_because_the_pool_cannot_be_read():
    def work():
        raise PoolReadError("cannot read weights at the moment")

    with pytest.raises(StorageError):
        attempt(work)


def test_a_lease_that_cannot_be_read_is_one_line(pool, folder, reading):
    """It was a bare TimeoutError."""
    reading("holder.json", THROTTLED)
    with pytest.raises(PoolReadError, match=r"lease at the moment: .*503 Slow Down; nothing is lost"):
        pool.acquire()


def test_the_writer_is_a_reader_of_the_same_kinds(pool, folder, reading):
    reading("run.yaml", THROTTLED)
    with pytest.raises(PoolReadError):
        PoolWriter.open(folder)
