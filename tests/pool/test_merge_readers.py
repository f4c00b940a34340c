"""Whatever reads a pool while its parts are merged sees each row once, or fails loudly and not when it tries again."""

import errno
import os
import shutil
import threading
import time

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from _made_up_trials import MANIFEST, record

from nao_ray._pool import local
from nao_ray.pool import PoolReader, PoolWriter, Watch


@pytest.fixture(params=["exchange", "links"])
def swapped(request, monkeypatch):
    """The two ways in which a folder is replaced: names exchanged, or a link set anew (NFS, macOS)."""
    if request.param == "links":

        def unsupported(one: str, other: str) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(local, "exchange", unsupported)
    return request.param


def _duckdb(query):
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


PLAIN = {
    "pandas": lambda where: pd.read_parquet(where)["trial_id"].tolist(),
    "pyarrow": lambda where: ds.dataset(where).to_table(columns=["trial_id"])["trial_id"].to_pylist(),
    "polars": lambda where: pl.read_parquet(where, columns=["trial_id"])["trial_id"].to_list(),
    "polars, lazily": lambda where: pl.scan_parquet(where).select("trial_id").collect()["trial_id"].to_list(),
    "duckdb": lambda where: _duckdb(f"SELECT trial_id FROM read_parquet('{where}/*.parquet')"),
}
LOUD = (OSError, pa.ArrowException, duckdb.Error, pl.exceptions.PolarsError)
OURS = {
    "trials": lambda where: PoolReader.open(where).trials(["trial_id"])["trial_id"].tolist(),
    "sql": lambda where: PoolReader.open(where).sql("SELECT trial_id FROM trials")["trial_id"].tolist(),
    "log": lambda where: [trial.trial_id for trial in PoolReader.open(where).log() if trial.state != "RUNNING"],
    "counts": lambda where: list(range(PoolReader.open(where).counts().finished)),
    "watch": lambda where: list(range(Watch(where).look().finished)),
}


def _merge_while(read, pool, lease, rows=5, merges=8):
    """Reads of a thread while the driver records and merges; the reads that failed, those that were wrong, all."""
    stop = threading.Event()
    recorded = [rows]
    wrong, failed, reads = [], [], []

    def loop() -> None:
        while not stop.is_set():
            least = recorded[0]
            try:
                found = sorted(read())
            except LOUD as error:
                failed.append(error)
                continue
            reads.append(len(found))
            if found != list(range(len(found))) or len(found) < least:
                wrong.append((least, found))

    record(pool, 0, rows)
    thread = threading.Thread(target=loop)
    thread.start()
    for k in range(rows, rows + merges):
        record(pool, k, 1)
        recorded[0] = k + 1
        pool.compact()
        while thread.is_alive() and len(reads) < k - rows:  # however slow reading is, merges go on beside it
            time.sleep(0.001)
    stop.set()
    thread.join()
    assert wrong == []
    return failed, reads


@pytest.mark.parametrize("reader", PLAIN)
def test_a_plain_reader_sees_every_row_once_or_fails_and_then_does_not(tmp_path, swapped, reader):
    pool = PoolWriter.create(tmp_path / "p", MANIFEST)
    with pool.acquire() as lease:
        _, reads = _merge_while(lambda: PLAIN[reader](f"{pool.url}/trials"), pool, lease)
    assert len(reads) > 5
    assert PLAIN[reader](f"{pool.url}/trials") == list(range(13))


@pytest.mark.parametrize("reader", OURS)
def test_our_own_reader_never_fails(tmp_path, swapped, reader):
    pool = PoolWriter.create(tmp_path / "p", MANIFEST)
    with pool.acquire() as lease:
        failed, reads = _merge_while(lambda: OURS[reader](pool.url), pool, lease)
    assert failed == []
    assert len(reads) > 5


# -- a swap between any two steps of a reader -------------------------------------------------------------


class _Steps:
    """Calls `swap` at one of the steps that a reader takes."""

    def __init__(self, at, swap):
        self.at, self.swap, self.taken = at, swap, 0

    def take(self):
        if self.taken == self.at:
            self.swap()
        self.taken += 1


def _slow_reader(where, steps):
    """As pyarrow, DuckDB and polars read: list, look each name up and leave out what is gone, open in order."""
    listed = [name for name in os.listdir(where) if name.endswith(".parquet")]
    known = []
    for name in listed:
        steps.take()
        if os.path.exists(f"{where}/{name}"):
            known.append(name)
    files = []
    for name in sorted(known):
        steps.take()
        files.append(pq.read_table(f"{where}/{name}", columns=["trial_id"]))
    return pa.concat_tables(files)["trial_id"].to_pylist()


@pytest.mark.parametrize("kept", [0, 6], ids=["all", "the newest"])
def test_a_swap_between_any_two_steps_of_a_reader_is_seen_whole_or_loud(tmp_path, swapped, kept, monkeypatch):
    made, outcomes = PoolWriter.create(tmp_path / "made", MANIFEST), []
    with made.acquire():
        if kept:  # a large part that the merge leaves alone
            record(made, 0, kept)
            monkeypatch.setattr("nao_ray._pool.compaction.MAX_ROWS", 10)
            made.compact()
        record(made, kept, 5)
    for at in range(30):
        pool = PoolWriter.open(shutil.copytree(made.url, tmp_path / f"p{at}", symlinks=True))
        with pool.acquire():
            steps = _Steps(at, pool.compact)
            try:
                found = _slow_reader(f"{pool.url}/trials", steps)
            except FileNotFoundError:
                outcomes.append("loud")
            else:
                assert found == list(range(kept + 5)), at
                outcomes.append("whole")
        if steps.taken <= at:
            break
    else:
        pytest.fail("the reader takes more steps")
    assert {"loud", "whole"} == set(outcomes)
    assert outcomes[0] == "whole"
