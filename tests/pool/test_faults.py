"""Full disks, truncated parts, and what is written in which order."""

import contextlib
import errno
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _made_up_trials import MANIFEST, START, die, edit_holder, make_proposal, make_trial, record

from nao_ray._pool import local
from nao_ray._pool.local import LocalStorage
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter, Watch
from nao_ray.trial import Measurement, Trial

WRITES = {
    "asked": lambda pool: pool.record_asked([make_proposal(9)], START),
    "attempts": lambda pool: pool.record_attempts([(9, 1, None, START)]),
    "finished": lambda pool: pool.record_finished([make_trial(9)]),
    "fits": lambda pool: pool.record_fits([{"round": 9}]),
}


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
@pytest.mark.parametrize("write", WRITES)
def test_a_failed_write_leaves_nothing_and_may_be_tried_again(pool, lease, folder, monkeypatch, write, failing):
    record(pool, 0, 2)
    before = sorted(folder.rglob("*"))

    def fail(*args: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr("builtins.open", _failing_open)
        else:
            patch.setattr(os, failing, fail)
            patch.setattr(local, "take_name", fail)
        for _ in range(2):
            with pytest.raises(
                PoolWriteError, match=r"cannot write .*No space left on device; .*then resume"
            ) as caught:
                WRITES[write](pool)
            assert "\n" not in str(caught.value)
        assert sorted(folder.rglob("*")) == before
    assert pool.counts().asked == 2
    WRITES[write](pool)
    record(pool, 2, 7)
    assert pool.trials()["trial_id"].is_unique
    seqs = pd.read_parquet(folder / "events")["seq"]
    assert sorted(seqs) == list(range(len(seqs)))


_open = open


def _failing_open(path, mode="r", *args, **kwargs):  # type: ignore[no-untyped-def]
    file = _open(path, mode, *args, **kwargs)
    if mode == "xb":
        file.close()
        raise OSError(28, "No space left on device")
    return file


def test_a_directory_that_cannot_be_synced_takes_the_part_back(pool, lease, folder, monkeypatch):
    def fail_for_folders(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_for_folders)
        with pytest.raises(PoolWriteError, match="Input/output error"):
            pool.record_finished([make_trial(0)])
    assert pool.record_finished([make_trial(0)]) == [make_trial(0)]
    assert pool.trials()["trial_id"].tolist() == [0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here; a failing write is tested by other means above")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_the_search_goes_on_when_there_is_space(small_disk):
    made = PoolWriter.create(small_disk / "p", MANIFEST)
    with made.acquire() as lease:
        record(made, 0, 3)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(PoolWriteError, match="No space left"):
            record(made, 3, 500)
        pool_was = len(made.trials())
        lease._write(released=False)  # the heartbeat goes on
        assert set(made.trials()["trial_id"]) >= {0, 1, 2}
        ballast.unlink()
        record(made, pool_was, 3)
        made.compact()
    assert PoolReader.open(small_disk / "p").check() == []
    assert PoolReader.open(small_disk / "p").trials()["trial_id"].tolist() == list(range(pool_was + 3))


def test_a_part_is_synced_before_it_is_shown_and_its_folder_after(pool, lease, monkeypatch):
    """The order that makes a rename durable; and the name meanwhile is nobody else's, whatever their process id."""
    steps = []
    take_name = local.take_name

    def name(handle: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{handle}")).name

    monkeypatch.setattr(os, "fsync", lambda handle: steps.append(("sync", name(handle))))
    monkeypatch.setattr(
        local, "take_name", lambda a, b, **how: (steps.append(("show", Path(b).name)), take_name(a, b, **how))
    )
    pool.record_finished([make_trial(0)])
    hidden, shown, folder = steps
    assert re.fullmatch(rf"\.trials-{shown[1]}\.[0-9a-f]{{16}}\.tmp", hidden[1])
    assert [kind for kind, _ in steps] == ["sync", "show", "sync"]
    assert folder[1] == "trials"


# -- what a crash or a bad copy leaves --------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_truncated_part_is_moved_out_with_a_warning(pool, folder, caplog, size):
    with pool.acquire():
        record(pool, 0, 3)
    part = sorted((folder / "trials").glob("*.parquet"))[-1]
    part.write_bytes(part.read_bytes()[:size])
    with pytest.raises(PoolError, match=f"{part.name} is damaged"):
        pool.trials()
    assert any(part.name in problem for problem in pool.check())
    again = PoolWriter.open(folder)
    with caplog.at_level(logging.WARNING), again.acquire():
        pass
    assert f"{part.name} is truncated; moved to quarantine/" in caplog.text
    assert pd.read_parquet(folder / "trials")["trial_id"].tolist() == [0, 1]
    assert [trial.state for trial in again.log()] == ["COMPLETED", "COMPLETED", "RUNNING"]
    with again.acquire():
        assert again.record_finished([make_trial(2)]) == [make_trial(2)]
    assert again.trials()["trial_id"].tolist() == [0, 1, 2]
    assert again.check() == [f"1 damaged parts are in quarantine/: trials-{part.name}"]


def test_a_part_that_cannot_be_reached_is_not_taken_for_a_truncated_one(pool, folder, caplog, monkeypatch):
    """Throttling, a lost mount, too many open files: neither a reader nor a driver moves a sound part for them."""
    with pool.acquire():
        record(pool, 0, 3)

    def stale():
        raise OSError(errno.ESTALE, "Stale file handle")

    look, read = pq.read_schema, LocalStorage.read
    with monkeypatch.context() as patch:
        patch.setattr(pq, "read_schema", lambda file: look(file) if isinstance(file, pa.BufferReader) else stale())
        with PoolWriter.open(folder).acquire():
            assert caplog.text == ""
        patch.setattr(LocalStorage, "read", lambda self, name: stale() if "/e0" in name else read(self, name))
        with pytest.raises(PoolWriteError, match=r"cannot read a part of .*trials: .*Stale file handle; nothing was"):
            PoolWriter.open(folder).acquire()
    assert not (folder / "quarantine").exists()
    assert PoolReader.open(folder).trials()["trial_id"].tolist() == [0, 1, 2]


def test_what_a_running_training_is_writing_stays_and_what_a_dead_one_left_goes(folder):
    old = time.time() - 2 * 3600
    for name in ("final", "weights"):
        (folder / name).mkdir(exist_ok=True)
        for file in (".now.parquet.1.tmp", ".then.parquet.2.tmp"):
            (folder / name / file).write_bytes(b"half")
        os.utime(folder / name / ".then.parquet.2.tmp", (old, old))
    with PoolWriter.open(folder).acquire():
        pass
    for name in ("final", "weights"):
        assert [path.name for path in (folder / name).glob(".*.tmp")] == [".now.parquet.1.tmp"]


def test_a_second_truncated_part_of_the_same_name_keeps_the_first(pool, folder):
    for text in (b"one", b"two"):
        (folder / "trials" / "x.parquet").write_bytes(text)
        with PoolWriter.open(folder).acquire():
            pass
    found = [(folder / "quarantine" / name).read_bytes() for name in ("trials-x.parquet", "trials-1-x.parquet")]
    assert found == [b"one", b"two"]


def test_a_truncated_event_does_not_lose_finished_trials(pool, folder):
    with pool.acquire():
        record(pool, 0, 3)
    log = pool.log()
    for part in (folder / "events").glob("*.parquet"):
        part.write_bytes(b"PAR1")
    with PoolWriter.open(folder).acquire():
        assert PoolReader.open(folder).log() == log


def test_half_written_files_of_a_dead_driver_are_removed(pool, folder):
    pool.acquire()
    (folder / "trials" / ".e000001-00000007.parquet.1.tmp").write_bytes(b"half")
    die(pool)
    with PoolWriter.open(folder).acquire():
        assert not list(folder.glob("trials/.*.tmp"))


def test_a_reader_changes_nothing_whatever_it_finds(pool, folder, monkeypatch):
    """Also where the lease of a driver that merges seems over, e.g. to a clock that is ahead."""
    pool.acquire()
    record(pool, 0, 3)
    edit_holder(pool, beat=0.0, place="another host")
    (folder / "trials" / "x.parquet").write_bytes(b"")
    (folder / "trials" / ".y.parquet.1.tmp").write_bytes(b"half")
    merging = folder / ".trials-new-e000001"
    merging.mkdir()
    (merging / "e000001-00000004.parquet").write_bytes(b"merged")
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}

    def forbidden(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        for name in ("open", "replace", "rename", "unlink", "link", "mkdir", "makedirs", "rmdir"):
            patch.setattr(os, name, forbidden)
        for opened in (PoolReader.open(folder), PoolWriter.open(folder)):
            with pytest.raises(PoolError, match=r"x.parquet is damaged"):
                opened.trials()
            assert len(opened.check()) == 1
            assert opened.fits().empty
        with pytest.raises(PoolError, match=r"x.parquet is damaged"):
            Watch(str(folder)).look()
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    die(pool)


def test_flipped_bits_are_found_by_check(pool, folder):
    with pool.acquire():
        record(pool, 0, 3)
        pool.compact()
    (part,) = (folder / "trials").glob("*.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 0xFF
    part.write_bytes(data)
    (problem,) = PoolReader.open(folder).check()
    assert problem.startswith(f"trials/{part.name}: damaged")


def test_check_holds_values_to_the_limits_of_their_metric(pool):
    with pool.acquire():
        for number, (column, value) in enumerate(
            [("valid_accuracy", 1.5), ("valid_perplexity", 0.5), ("valid_perplexity", 1.5), ("valid_score", -7.0)]
        ):
            pool.record_asked([make_proposal(number)], START)
            trial = Trial(proposal=make_proposal(number), asked_at=START).complete(Measurement(**{column: value}))
            pool.record_finished([replace(trial, log_index=number)])
    assert pool.check() == [
        "trials/: 1 values of valid_accuracy are outside [0, 1]",
        "trials/: 1 values of valid_perplexity are outside [1, inf]",
    ]


def test_check_tells_what_is_doubled_missing_or_open(pool, folder):
    with pool.acquire():
        record(pool, 0, 3)
        pool.record_asked([make_proposal(4), make_proposal(5)], START)
    assert pool.check() == [
        "1 trial ids are missing: 3",
        "2 trials were asked and have no final row (resume to finish them): 4, 5",
    ]
    part = sorted((folder / "trials").glob("*.parquet"))[-1]
    (folder / "trials" / "z.parquet").write_bytes(part.read_bytes())
    assert pool.check()[:2] == [
        "trials/: 1 values of trial_id occur twice: 2",
        "trials/: 1 values of log_index occur twice: 2",
    ]
    pd.DataFrame({"trial_id": [1]}).to_parquet(folder / "trials" / "z.parquet")
    (problem,) = pool.check()
    assert problem.startswith("trials/z.parquet: of schema version none")


def test_check_names_the_columns_that_a_part_has_or_lacks_and_a_folder_for_what_it_is(pool, folder):
    """Columns of lists were named wherever another was wrong; a folder that has a part's name was waited for."""
    with pool.acquire():
        record(pool, 0, 1)
    part = max((folder / "trials").glob("*.parquet"))
    data = pq.read_table(part)
    pq.write_table(data.drop_columns(["tokens"]).append_column("mine", data["seed"]), part)
    (folder / "trials" / "z.parquet").mkdir()
    wrong, unreadable = pool.check()
    assert wrong == f"trials/{part.name}: not of the schema of trials/: mine, tokens"
    assert unreadable.startswith("trials/z.parquet: truncated or damaged: ")
