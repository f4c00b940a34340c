"""Compaction shows each row once, whatever is read or dies meanwhile."""

import errno
import gc
import logging
import shutil
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from _made_up_trials import die, record

from nao_ray._pool import compaction, groups, local_journal
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter, Watch


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


@pytest.mark.parametrize(("largest", "most"), [(8, 8), (4, 2)])
def test_merging_reads_a_group_at_a_time_and_of_large_groups_less(pool, lease, folder, monkeypatch, largest, most):
    for name, value in {"GROUP_ROWS": 8, "_GATHERED": 3, "_LARGE_ROWS": largest, "_BATCH_ROWS": 2}.items():
        monkeypatch.setattr(groups, name, value)
    seen, tables = [], groups._tables
    monkeypatch.setattr(groups, "_tables", lambda *of: (seen.append(len(data)) or data for data in tables(*of)))
    record(pool, 0, 25)
    pool.compact()
    assert set(seen) == {0, 1}
    record(pool, 25, 3)
    before, log = pool.trials(), pool.log()
    pool.compact()
    assert max(seen) == most
    (part,) = (folder / "trials").glob("*.parquet")
    assert [pq.read_metadata(part).row_group(k).num_rows for k in range(4)] == [8, 8, 8, 4]
    pd.testing.assert_frame_equal(pool.trials(), before)
    assert pool.log() == log


def test_merging_leaves_no_footers_to_the_garbage_collector(pool, lease, folder):
    """One of 100 kB for each part, 36 MB of a thousand."""
    record(pool, 0, 6)
    gc.collect()
    gc.disable()
    try:
        pool.compact()
        left = [type(item).__name__ for item in gc.get_objects() if issubclass(type(item), pq.FileMetaData)]
    finally:
        gc.enable()
    assert left == []


def test_no_row_is_lost_after_a_merge_that_replaced_one_folder_and_failed_in_the_other(
    pool, lease, folder, monkeypatch, caplog
):
    """The merged part has the name of its first; what was remembered of that one was then taken for it."""
    monkeypatch.setattr(compaction, "_SMALL_ROWS", 4)
    record(pool, 0, 20)
    pool.compact()
    record(pool, 20, 5)
    write = compaction._Merge.write

    def full(merge, *, whole):  # type: ignore[no-untyped-def]
        if merge._folder == "events":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(merge, whole=whole)

    with monkeypatch.context() as patch:
        patch.setattr(compaction._Merge, "write", full)
        pool._journal._compact_at = 0
        pool._compact_if_due()
    assert "No space left" in caplog.text
    assert len(parts(folder)) == 2
    pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(25))


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


def test_a_merged_part_has_the_name_of_its_first_and_no_new_part_has_a_name_that_was_used(pool, folder):
    used: set[str] = set()
    for start in range(0, 12, 4):
        with pool.acquire():
            for k in range(start, start + 4):
                before = parts(folder)
                record(pool, k, 1)
                (new,) = set(parts(folder)) - set(before)
                assert new not in used
                used |= {new, *before}
                if k % 2:
                    pool.compact()
                    assert parts(folder) == before[:1]


def test_a_merge_that_has_lost_a_row_replaces_nothing(pool, lease, folder, monkeypatch):
    record(pool, 0, 6)
    before = parts(folder)
    write = compaction._Part.write
    monkeypatch.setattr(compaction._Part, "write", lambda part, data: write(part, data.slice(1)))
    with pytest.raises(PoolError, match=r"merging .*trials gave 5 rows in 1 parts of 6 in 7; nothing was changed"):
        pool.compact()
    assert parts(folder) == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert pool.trials()["trial_id"].tolist() == list(range(6))


def test_a_folder_that_was_changed_while_it_was_merged_is_not_replaced(pool, lease, folder, monkeypatch):
    record(pool, 0, 3)
    write = compaction._Merge.write

    def changed_meanwhile(merge, *, whole):  # type: ignore[no-untyped-def]
        found = write(merge, whole=whole)
        shutil.copy(folder / merge._folder / parts(folder, merge._folder)[-1], folder / merge._folder / "z.parquet")
        return found

    monkeypatch.setattr(compaction._Merge, "write", changed_meanwhile)
    with pytest.raises(PoolError, match="was changed while it was merged; nothing was replaced"):
        pool.compact()
    assert "z.parquet" in parts(folder)


def test_large_parts_are_carried_over_and_limits_kept(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(compaction, "MAX_ROWS", 10)
    monkeypatch.setattr(groups, "GROUP_ROWS", 5)
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
    monkeypatch.setattr(groups, "GROUP_ROWS", 2)

    def forbidden(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(compaction.os, "link", forbidden)
    for start in (0, 6):
        record(pool, start, 6)
        pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(12))


def test_the_driver_merges_by_itself_and_rewrites_little(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(local_journal, "COMPACT_AT", 8)
    monkeypatch.setattr(compaction, "_SMALL_ROWS", 4)
    pool._journal._compact_at = 8
    written = []
    merged = compaction._Merge._write_merged

    def counting(merge, names):  # type: ignore[no-untyped-def]
        if merge._folder == "trials":
            written.append(sum(len(pd.read_parquet(folder / "trials" / name)) for name in names))
        return merged(merge, names)

    monkeypatch.setattr(compaction._Merge, "_write_merged", counting)
    record(pool, 0, 100)
    assert len(parts(folder)) < 20
    assert pool.trials()["trial_id"].tolist() == list(range(100))
    assert pd.read_parquet(folder / "trials")["log_index"].is_monotonic_increasing
    assert sum(written) < 100 * 8


def test_a_merge_that_fails_leaves_the_pool_as_it_was_and_the_search_running(pool, lease, folder, monkeypatch, caplog):
    monkeypatch.setattr(local_journal, "COMPACT_AT", 8)
    pool._journal._compact_at = 8

    merge = compaction._Merge._write_merged

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction._Merge, "_write_merged", full)
    with caplog.at_level(logging.WARNING):
        record(pool, 0, 6)
    assert "was not compacted" in caplog.text
    assert "No space left" in caplog.text
    with pytest.raises(PoolWriteError, match="No space left"):
        pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    monkeypatch.setattr(compaction._Merge, "_write_merged", merge)
    pool.compact()
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    assert pool.check() == []


# -- what others do meanwhile -----------------------------------------------------------------------------


def test_a_reader_whose_clock_is_ahead_takes_nothing_from_a_driver_that_merges(pool, lease, folder, monkeypatch):
    """Half a minute ahead, the lease seems over; opening the pool then removed the merge under its driver."""
    record(pool, 0, 4)
    write, clock = compaction._Part.write, time.time
    looked = []

    def read_meanwhile(part, data):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: clock() + 40)
            for opened in (PoolReader.open(folder), PoolWriter.open(folder)):
                looked.append((len(opened.trials()), opened.check()))
            assert Watch(str(folder)).look().finished == 4
        write(part, data)

    monkeypatch.setattr(compaction._Part, "write", read_meanwhile)
    pool.compact()
    monkeypatch.undo()
    assert looked == [(4, [])] * 4  # two folders
    record(pool, 4, 2)
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    assert pool.check() == []


def test_a_missing_folder_is_named(pool, folder):
    shutil.rmtree(folder / "trials")
    with pytest.raises(PoolError, match=r"has no trials/; restore it"):
        pool.acquire()
    assert PoolReader.open(folder).check()[0] == "trials/ is missing; restore it from a copy"
    with pytest.raises(PoolError, match=r"is gone, or was never whole: no trials/"):
        PoolReader.open(folder).trials()


def test_a_driver_replaced_while_it_merges_swaps_nothing(pool, folder, monkeypatch):
    pool.acquire()
    record(pool, 0, 4)
    write = compaction._Merge.write
    others = []

    def replaced_meanwhile(merge, *, whole):  # type: ignore[no-untyped-def]
        found = write(merge, whole=whole)
        if not others:
            die(pool)
            others.append(PoolWriter.open(folder))
            others[0].acquire()
            record(others[0], 4, 2)
        return found

    monkeypatch.setattr(compaction._Merge, "write", replaced_meanwhile)
    with pytest.raises(FencedError):
        pool.compact()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    others[0].compact()
    assert others[0].trials()["trial_id"].tolist() == list(range(6))
    others[0]._lease.release()
    assert others[0].check() == []
