"""A driver is killed before each change that it makes to files: every reader, then and later, sees each row once."""

import os
import re
import shutil
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path

import _forks
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from _killed import Death, without_exchange
from _made_up_trials import MANIFEST, START, as_before, die, make_proposal, make_trial, record

from nao_ray._pool import local
from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader, PoolWriter

pytestmark = pytest.mark.slow

RANDOM = re.compile(r"(?<=-e\d{6}-)[0-9a-f]{8}(?=/|$)|[0-9a-f]{16}(?=\.tmp)")
LOUD = (OSError, pa.ArrowException, duckdb.Error, pl.exceptions.PolarsError)


@cache
def _database():
    """A connection takes longer than all that the others read; this one remembers nothing of files."""
    return duckdb.connect(config={"enable_external_file_cache": "false", "enable_object_cache": "false"})


def _duckdb(query):
    return [row[0] for row in _database().execute(query).fetchall()]


PLAIN = {
    "pandas": lambda where: pd.read_parquet(where)["trial_id"].tolist(),
    "pyarrow": lambda where: ds.dataset(where).to_table()["trial_id"].to_pylist(),
    "polars": lambda where: pl.read_parquet(where)["trial_id"].to_list(),
    "duckdb": lambda where: _duckdb(f"SELECT trial_id FROM '{where}/*.parquet'"),
}


@pytest.fixture
def template(tmp_path, monkeypatch, request):
    """A pool of seven trials, four of them merged, and an eighth that was asked."""
    with monkeypatch.context() as patch:
        if getattr(request, "param", "") == "links":
            patch.setattr(local, "exchange", local.exchange)
            without_exchange()
        pool = PoolWriter.create(tmp_path / "template", MANIFEST)
        with pool.acquire():
            record(pool, 0, 4)
            pool.compact()
            record(pool, 4, 3)
            pool.record_asked([make_proposal(7)], START)
    return tmp_path / "template"


def _killed(template: Path, folder: Path, what: str) -> dict[str, str]:
    """The calls that were not made, the last one the end, by what stands in `folder` for each: a pool."""
    folder.mkdir()
    words = [sys.executable, str(Path(__file__).with_name("_killed.py")), str(template), str(folder), what]
    done = _forks.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(calls) == [*map(str, range(len(calls) - 1)), "end"]
    return calls


def _moments(folder: Path, calls: dict[str, str]) -> list[str]:
    """Those to be looked at: before some calls, as fsync, the files are what they were before the last one."""
    kept, last = [], None
    for k in calls:
        files = _files(folder / k)
        if files != last:
            kept.append(k)
        last = files
    return kept


def _files(url: Path) -> dict[str, object]:
    """What a driver left, without the lease, which names its process, and random parts of names."""
    found: dict[str, object] = {}
    for path in sorted(url.rglob("*")):
        name = RANDOM.sub("", str(path.relative_to(url)))
        if name.startswith("lease/"):
            found[name] = path.is_file()
        else:
            found[name] = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def _look(url: Path, finished=range(7), torn: str = "") -> list[str]:
    """The plain readers that fail; all others, and ours, now and after a next driver, see each row once.

    With a `torn` part of events, that of trial 7, which the next driver asks again.
    """
    failing = []
    for name, read in PLAIN.items():
        try:
            assert read(f"{url}/trials") in ([*finished], [*finished, 7]), (url, name)
        except LOUD:
            failing.append(name)
    before = {path: path.lstat().st_mtime_ns for path in url.rglob("*")}
    reader = PoolReader.open(url)
    assert reader.trials()["trial_id"].tolist() in ([*finished], [*finished, 7]), url
    try:
        assert [trial.trial_id for trial in reader.log()] == [*range(7 if torn else 8)], url
    except PoolError as error:
        assert torn, url
        assert f"events/{torn}" in str(error)  # noqa: PT017 - once it is in quarantine, there is none
    assert {path: path.lstat().st_mtime_ns for path in url.rglob("*")} == before, url
    again = PoolWriter.open(url)
    with again.acquire():
        again.record_asked([make_proposal(7)], START)
        again.record_finished([make_trial(k) for k in range(8)])
        assert not [path.name for path in url.iterdir() if path.name.startswith(".") and not _is_used(path)], url
        again.compact()
    for name, read in PLAIN.items():
        assert sorted(read(f"{url}/trials")) == [*range(8)], (url, name)
    assert again.check() == ([f"1 damaged parts are in quarantine/: events-{torn}"] if torn else []), url
    return failing


def _is_used(path: Path) -> bool:
    return any((path.parent / name).resolve() == path for name in ("trials", "events"))


def test_no_other_thread_changes_what_is_copied(tmp_path, monkeypatch):
    """A heartbeat was in the middle of copies: of its file that was gone, and of rows that others were before."""
    (tmp_path / "pool").mkdir()
    make = Death(tmp_path / "pool", tmp_path, 1)._before("mkdir", os.mkdir)
    other = threading.Thread(target=make, args=[tmp_path / "pool" / "other"])
    copied = []

    def copy(url, *_, **__):
        copied.append(sorted(path.name for path in url.iterdir()))
        if len(copied) == 1:
            other.start()
            other.join(0.2)
            assert not list(url.iterdir())

    monkeypatch.setattr(shutil, "copytree", copy)
    make(tmp_path / "pool" / "mine")
    other.join()
    assert copied == [[], ["mine"]]


@pytest.mark.parametrize(
    ("template", "what"),
    [("plain", "merge"), ("links", "merge by links"), ("plain", "write"), ("links", "write by neither")],
    indirect=["template"],
)
def test_killed_before_any_call_no_row_is_lost_or_doubled_and_every_reader_reads(template, tmp_path, what):
    calls = _killed(template, tmp_path / "killed", what)
    print(f"{what}: killed before {len(calls) - 1} calls: {dict(Counter(calls.values()))}")
    assert len(calls) > 10
    moments = _moments(tmp_path / "killed", calls)
    assert 5 < len(moments) < len(calls)
    for k in moments:
        assert _look(tmp_path / "killed" / k) == [], (k, calls[k])


def test_a_folder_becomes_a_link_once_and_only_then_plain_readers_may_find_none(template, tmp_path):
    """Earlier versions' pools where names cannot be exchanged: ours read on, others fail until the next driver."""
    calls = _killed(template, tmp_path / "killed", "merge by links")
    failing = [_look(tmp_path / "killed" / k) for k in _moments(tmp_path / "killed", calls)]
    assert [names for names in failing if names] == [list(PLAIN)]


@pytest.mark.parametrize("how", ["", "by links"])
def test_killed_while_it_puts_right_what_another_left(template, tmp_path, how):
    """Merges cut short before and after their swap, half-written files, a truncated part; all of an earlier schema."""
    for part in template.glob("*/e*.parquet"):
        part.write_bytes(as_before(part.read_bytes()))
    pool = PoolWriter.open(template)
    pool.acquire()
    die(pool)
    parts = sorted((template / "trials").glob("*.parquet"))
    for name in (".trials-e000001-0123abcd", ".events-new-e000001"):
        (template / name).mkdir()
        shutil.copy(parts[0], template / name)
    if how:
        (template / "trials").rename(template / ".trials-old")
    else:
        (template / ".trials-old").mkdir()
        shutil.copy(parts[0], template / ".trials-old")
    for name in (".trials-x.parquet.12.tmp", "events/.x.parquet.12.tmp", ".lease-holder.json.34.tmp"):
        (template / name).write_bytes(b"half")
    torn = sorted((template / "events").glob("*.parquet"))[-1]  # the proposal of trial 7
    torn.write_bytes(torn.read_bytes()[:-5])
    calls = _killed(template, tmp_path / "killed", f"acquire {how}".strip())
    print(f"acquire {how}: killed before {len(calls) - 1} calls: {dict(Counter(calls.values()))}")
    assert len(calls) > 15
    assert not (tmp_path / "killed" / "end" / "events" / torn.name).exists()
    for k in _moments(tmp_path / "killed", calls):
        _look(tmp_path / "killed" / k, torn=torn.name)
