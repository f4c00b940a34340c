"""Compaction shows each row once, whatever is read or dies meanwhile."""

import logging
import os
import shutil
import threading
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from _made_up_trials import START, die, make_proposal, make_trial, record

from nao_ray._pool import compaction, tables, writer
from nao_ray._pool import recent as recents
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter


def parts(folder: Path, name: str = "trials") -> list[str]:
    return sorted(path.name for path in (folder / name).glob("[!.]*.parquet"))


def test_merged_parts_hold_the_same_rows_in_the_same_order(pool, lease, folder):
    record(pool, 0, 25)
    before, log, events = pool.trials(), pool.log(), pd.read_parquet(folder / "events")
    pool.compact()
    assert len(parts(folder)) == 1
    assert len(parts(folder, "events")) == 1
    pd.testing.assert_frame_equal(pool.trials(), before)
    assert pool.log() == log
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "events"), events)
    assert pd.read_parquet(folder / "trials")["log_index"].tolist() == list(range(25))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    record(pool, 25, 2)
    pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(27))
    assert pool.check() == []


def test_what_is_remembered_of_recent_parts_is_what_was_written(monkeypatch):
    monkeypatch.setattr(recents, "_LOOSE_PARTS", 4)
    recent, schema = recents.Recent(), pa.schema([("n", pa.int64())])
    written = {f"{i:03}": pa.table({"n": range(i, i + 1 + i % 3)}, schema=schema) for i in range(11)}
    for name, data in written.items():
        recent.add("trials", name, data)
        recent.add("events", name, data.slice(0, 1))
    for name, data in written.items():
        assert recent.get("trials", name).equals(data)
        assert recent.get("events", name).equals(data.slice(0, 1))
    assert recent.get("trials", "011") is None
    monkeypatch.setattr(recents, "_BYTES", 0)
    recent.add("trials", "011", written["001"])
    assert recent.get("trials", "011") is None, "no room"
    recent.clear()
    assert recent.get("trials", "000") is None


def test_a_part_of_many_row_groups_is_merged_one_group_at_a_time(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 5)
    groups, by_group = [], tables._by_group
    monkeypatch.setattr(tables, "_by_group", lambda paths: (groups.append(b.num_rows) or b for b in by_group(paths)))
    record(pool, 0, 25)
    pool.compact()
    assert groups == []
    record(pool, 25, 3)
    before, log = pool.trials(), pool.log()
    pool.compact()
    assert len(groups) >= 5
    assert max(groups) < 25
    assert len(parts(folder)) == 1
    pd.testing.assert_frame_equal(pool.trials(), before)
    assert pool.log() == log


def test_small_parts_are_scanned_a_few_at_a_time_and_in_order(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(tables, "_SCANNED", 3)
    for first in range(10):
        record(pool, first, 1)
    paths = sorted(map(str, (folder / "trials").glob("*.parquet")))
    batches = list(tables.in_batches(paths, tables.SCHEMAS["trials"], 100))
    assert pa.Table.from_batches(batches)["trial_id"].to_pylist() == list(range(10))


def test_compacting_nothing_changes_nothing(pool, lease, folder):
    pool.compact()
    record(pool, 0, 3)
    pool.compact()
    names = parts(folder)
    pool.compact()
    assert parts(folder) == names


def test_compaction_needs_the_lease_and_takes_it_if_free(pool, folder):
    other = PoolWriter.open(folder)
    with pool.acquire():
        record(pool, 0, 3)
        with pytest.raises(PoolError, match="has a driver"):
            other.compact()
    other.compact()
    assert len(parts(folder)) == 1
    with pool.acquire():
        record(pool, 3, 1)
    assert pool.trials()["trial_id"].tolist() == list(range(4))


def test_no_name_is_ever_used_again(pool, folder):
    """A reader with an old listing must never find another content under an old name."""
    seen: dict[str, bytes] = {}
    for start in range(0, 12, 4):
        with pool.acquire():
            for k in range(start, start + 4):
                record(pool, k, 1)
                if k % 2:
                    pool.compact()
                for name in parts(folder):
                    content = (folder / "trials" / name).read_bytes()
                    assert seen.setdefault(name, content) == content


def test_large_parts_are_carried_over_and_limits_kept(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(compaction, "MAX_ROWS", 10)
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 5)
    record(pool, 0, 32)
    pool.compact()
    sizes = [len(pd.read_parquet(folder / "trials" / name)) for name in parts(folder)]
    assert sizes == [10, 10, 10, 2]
    first = (folder / "trials" / parts(folder)[0]).stat().st_ino
    record(pool, 32, 3)
    pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(35))
    assert (folder / "trials" / parts(folder)[0]).stat().st_ino == first  # linked, not rewritten


def test_large_parts_are_copied_where_links_are_not_allowed(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(compaction, "MAX_ROWS", 4)
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 2)

    def forbidden(source: str, target: str) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(compaction.os, "link", forbidden)
    for start in (0, 6):
        record(pool, start, 6)
        pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(12))


def test_the_driver_merges_by_itself_and_rewrites_little(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(writer, "COMPACT_AT", 8)
    monkeypatch.setattr(compaction, "GRACE", 0.0)
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 16)
    pool._compact_at = 8
    written = []
    merge = compaction._write_merged

    def counting(storage, recent, folder, names, epoch, number):  # type: ignore[no-untyped-def]
        if folder == "trials":
            written.append(sum(len(pd.read_parquet(storage.path(folder, name))) for name in names))
        return merge(storage, recent, folder, names, epoch, number)

    monkeypatch.setattr(compaction, "_write_merged", counting)
    record(pool, 0, 100)
    assert len(parts(folder)) < 20
    assert pool.trials()["trial_id"].tolist() == list(range(100))
    assert pd.read_parquet(folder / "trials")["log_index"].is_monotonic_increasing
    assert sum(written) < 100 * 8


def test_a_merge_that_fails_leaves_the_pool_as_it_was_and_the_search_running(pool, lease, folder, monkeypatch, caplog):
    monkeypatch.setattr(writer, "COMPACT_AT", 8)
    pool._compact_at = 8

    merge = compaction._write_merged

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "_write_merged", full)
    monkeypatch.setattr(compaction, "GRACE", 0.0)
    with caplog.at_level(logging.WARNING):
        record(pool, 0, 6)
    assert "was not compacted" in caplog.text
    assert "No space left" in caplog.text
    with pytest.raises(PoolWriteError, match="No space left"):
        pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    monkeypatch.setattr(compaction, "_write_merged", merge)
    pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    assert pool.check() == []


# -- readers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["pandas", "ours", "sql", "log"])
def test_a_reader_sees_every_row_once_or_an_error(pool, lease, folder, monkeypatch, reader):
    """pandas may meet OSError (FileNotFoundError, or the gate); our own readers wait instead."""
    monkeypatch.setattr(compaction, "GRACE", 0.02)
    record(pool, 0, 30)
    read = {
        "pandas": lambda: pd.read_parquet(folder / "trials")["trial_id"].tolist(),
        "ours": lambda: PoolReader.open(folder).trials(["trial_id"])["trial_id"].tolist(),
        "sql": lambda: pool_reader.sql("SELECT trial_id FROM trials")["trial_id"].tolist(),
        "log": lambda: [trial.trial_id for trial in pool_reader.log()],
    }[reader]
    pool_reader = PoolWriter.open(folder)
    stop = threading.Event()
    wrong, errors, reads = [], [], []

    def loop() -> None:
        while not stop.is_set():
            try:
                found = sorted(read())
            except OSError as error:
                errors.append(error)
            else:
                reads.append(len(found))
                if found[:30] != list(range(30)) or len(set(found)) != len(found) or len(found) < reads[-2:][0]:
                    wrong.append(found)

    thread = threading.Thread(target=loop)
    thread.start()
    for k in range(30, 55):
        record(pool, k, 1)
        pool.compact()
    stop.set()
    thread.join()
    assert wrong == []
    assert len(reads) > 5
    assert reader == "pandas" or errors == []


def test_a_reader_that_listed_before_the_renames_stumbles(pool, lease, folder, monkeypatch):
    """pyarrow leaves out names that vanish between listing and look-up; the gate makes that loud."""
    gates = []
    sleep = compaction.time.sleep

    def look(seconds: float) -> None:
        if seconds == compaction.GRACE:
            gates.append([os.path.islink(folder / name / compaction.GATE) for name in compaction.FOLDERS])
            with pytest.raises(OSError, match=r"compaction-gate.*File name too long"):
                pd.read_parquet(folder / "trials")
        sleep(seconds)

    monkeypatch.setattr(compaction.time, "sleep", look)
    record(pool, 0, 3)
    pool.compact()
    assert gates == [[True, True]]
    assert len(pd.read_parquet(folder / "trials")) == 3


# -- crashes ----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is killed."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """From the given change of the file system on, nothing is changed any more: each attempt raises Crash."""
    done = [0]

    def killing(function):  # type: ignore[no-untyped-def]
        def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]
            if done[0] >= step:
                raise Crash
            done[0] += 1
            return function(*args, **kwargs)

        return wrapper

    for module, name in (
        *((os, name) for name in ("replace", "link", "symlink", "unlink", "makedirs", "fsync")),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(module, name, killing(getattr(module, name)))
    return done


def test_a_crash_at_any_step_loses_and_doubles_nothing(pool, folder, tmp_path, monkeypatch):
    with pool.acquire():
        record(pool, 0, 4)
        pool.compact()
        record(pool, 4, 3)
        pool.record_asked([make_proposal(7)], START)
    monkeypatch.setattr(compaction, "GRACE", 0.0)
    for step in range(200):
        copy = tmp_path / f"copy{step}"
        shutil.copytree(folder, copy, symlinks=True)
        crashed = PoolWriter.open(copy)
        crashed.acquire()
        with monkeypatch.context() as patch:
            done = crash_at(patch, step)
            try:
                crashed.compact()
            except Crash:
                finished = False
            else:
                finished = True
        die(crashed)
        again = PoolWriter.open(copy)
        with again.acquire():
            assert pd.read_parquet(copy / "trials")["trial_id"].tolist() == list(range(7)), step
            assert [trial.trial_id for trial in again.log()] == list(range(8)), step
            assert not [path.name for path in copy.iterdir() if path.name.startswith(".")], step
            assert again.record_finished([make_trial(6), make_trial(7)]) == [make_trial(7)]
            again.compact()
        assert again.check() == [], step
        if finished:
            break
    assert finished
    assert done[0] > 20  # there was something to crash


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_between_the_renames_leaves_a_whole_folder(pool, lease, folder, monkeypatch, step):
    record(pool, 0, 3)
    calls = []
    move = compaction.LocalStorage.move

    def failing(self, name, target):  # type: ignore[no-untyped-def]
        calls.append(name)
        if len(calls) == step + 1:
            raise OSError(5, "Input/output error")
        move(self, name, target)

    monkeypatch.setattr(compaction.LocalStorage, "move", failing)
    with pytest.raises(PoolWriteError, match="Input/output error"):
        pool.compact()
    monkeypatch.undo()
    assert pd.read_parquet(folder / "trials")["trial_id"].tolist() == [0, 1, 2]
    record(pool, 3, 1)
    assert pool.check() == []


def test_a_missing_folder_is_named(pool, folder):
    shutil.rmtree(folder / "trials")
    with pytest.raises(PoolError, match=r"has no trials/; restore it"):
        pool.acquire()


def test_a_driver_replaced_while_it_merges_swaps_nothing(pool, folder, monkeypatch):
    pool.acquire()
    record(pool, 0, 4)
    merge = compaction._merge
    others = []

    def replaced_meanwhile(*args, **kwargs):  # type: ignore[no-untyped-def]
        used = merge(*args, **kwargs)
        if not others:
            die(pool)
            others.append(PoolWriter.open(folder))
            others[0].acquire()
            record(others[0], 4, 2)
        return used

    monkeypatch.setattr(compaction, "_merge", replaced_meanwhile)
    with pytest.raises(FencedError):
        pool.compact()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    others[0].compact()
    assert others[0].trials()["trial_id"].tolist() == list(range(6))
    others[0]._lease.release()
    assert others[0].check() == []
