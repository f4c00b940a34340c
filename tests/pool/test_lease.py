"""One driver writes; one that was replaced writes nothing more."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import _forks
import psutil
import pytest
from _made_up_trials import START, die, edit_holder, make_proposal, make_trial, record

from nao_ray._pool import holder as holders
from nao_ray._pool import lease as leases
from nao_ray._pool import local
from nao_ray._pool.holder import look
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter

DRIVER = """
import sys
from _made_up_trials import *
pool = PoolWriter.open(sys.argv[1])
try:
    with pool.acquire(expiry=float(sys.argv[2])):
        record(pool, 0, 1)
        print("ready", flush=True)
        sys.stdin.readline()
        record(pool, 1, 1)
        print("recorded", flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


class Driver:
    """A driver in another process."""

    def __init__(self, pool: PoolWriter, expiry: float = 30.0) -> None:
        command = [sys.executable, "-c", DRIVER, pool.url, str(expiry)]
        pipe = subprocess.PIPE
        self.process = _forks.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parent)
        assert self.say() == "ready"

    def say(self, line: str = "") -> str:
        if line:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_second_process_is_refused_and_may_go_on_when_the_first_is_dead(pool):
    with Driver(pool) as first:
        with pytest.raises(PoolError, match=rf"has a driver: pid {first.process.pid} on .*, alive 0 s ago") as caught:
            pool.acquire()
        assert "\n" not in str(caught.value)
        os.kill(first.process.pid, signal.SIGKILL)  # and not reaped: a zombie is dead, too
        began = time.monotonic()
        with pool.acquire(wait=5) as lease:
            assert time.monotonic() - began < 4
            assert lease.epoch == 2
            assert [trial.trial_id for trial in pool.log()] == [0]


def test_a_frozen_driver_is_replaced_after_expiry_and_fenced_when_it_thaws(pool):
    with Driver(pool, expiry=0.6) as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        with pool.acquire(wait=10):
            record(pool, 1, 1)
            os.kill(first.process.pid, signal.SIGCONT)
            assert first.say("go on\n").startswith("FencedError")
            record(pool, 2, 1)
        assert pool.trials()["trial_id"].tolist() == [0, 1, 2]
        assert pool.check() == []


def test_a_heartbeat_keeps_a_slow_driver_its_pool(pool):
    with Driver(pool, expiry=0.6) as first:
        time.sleep(1.0)
        with pytest.raises(PoolError, match="has a driver"):
            pool.acquire()
        assert first.say("go on\n") == "recorded"


def test_every_write_of_a_replaced_driver_is_refused(pool, folder):
    pool.acquire()
    record(pool, 0, 1)
    die(pool)
    other = PoolWriter.open(folder)
    with other.acquire():
        before = sorted(folder.rglob("*"))
        for write in (
            lambda: pool.record_asked([make_proposal(5)], START),
            lambda: pool.record_attempts([(5, 1, None, START)]),
            lambda: pool.record_finished([make_trial(5)]),
            lambda: pool.record_finished([]),
            lambda: pool.record_fits([{"round": 5}]),
        ):
            with pytest.raises(FencedError, match=r"epoch 1 is over, pid .* took over"):
                write()
        assert sorted(folder.rglob("*")) == before
        record(other, 1, 3)
        before = sorted(folder.rglob("*"))
        with pytest.raises(FencedError):
            pool.compact()
        assert sorted(folder.rglob("*")) == before
        assert other.trials()["trial_id"].tolist() == list(range(4))


def test_the_fence_is_checked_at_the_moment_of_the_rename(pool, folder, monkeypatch):
    """A driver that is replaced after it has written its part, but before it shows it, does not show it."""
    pool.acquire()
    fsync = os.fsync

    def replaced_meanwhile(handle: int) -> None:
        fsync(handle)
        monkeypatch.undo()
        die(pool)
        PoolWriter.open(folder).acquire().release()

    monkeypatch.setattr(os, "fsync", replaced_meanwhile)
    with pytest.raises(FencedError):
        pool.record_finished([make_trial(0)])
    assert len(PoolReader.open(folder).trials()) == 0
    assert not list(folder.glob("trials/.*.tmp"))


def test_a_released_lease_writes_nothing_and_is_free(pool, folder):
    with pool.acquire() as lease:
        pass
    lease.release()
    with pytest.raises(FencedError):
        pool.record_finished([make_trial(0)])
    with PoolWriter.open(folder).acquire() as again:
        assert again.epoch == 2


def test_one_process_has_one_driver_too(pool, lease, folder):
    with pytest.raises(PoolError, match=f"pid {os.getpid()} "):
        PoolWriter.open(folder).acquire()


def test_readers_need_no_lease_and_disturb_nobody(pool, lease, folder):
    record(pool, 0, 3)
    (folder / "trials" / ".e000001-00000099.parquet.1.tmp").write_bytes(b"being written")
    reader = PoolWriter.open(folder)
    assert len(reader.trials()) == 3
    assert (folder / "trials" / ".e000001-00000099.parquet.1.tmp").exists()


class Hours(leases.Clock):
    """Seconds that pass when one sleeps, and what happens meanwhile."""

    def __init__(self, meanwhile=lambda now: None):
        self.now, self.meanwhile = 0.0, meanwhile

    def seconds(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.meanwhile(self.now)


def _of_another_host(pool, **changes):
    pool.acquire()
    die(pool)
    edit_holder(pool, place="another host", expiry=30.0, **changes)


@pytest.mark.parametrize("age", [100.0, 1e6, -500.0, -1e6])
def test_a_driver_elsewhere_is_watched_for_as_long_as_it_may_be_silent_whatever_the_clocks_say(pool, folder, age):
    _of_another_host(pool, beat=time.time() - age)
    clock = Hours()
    PoolWriter.open(folder).acquire(clock=clock).release()
    assert 30.0 <= clock.now <= 31.0


@pytest.mark.parametrize("step", [-1e6, -40.0, 40.0, 1e6])
def test_a_driver_that_beats_keeps_its_pool_whatever_the_clocks_say(pool, folder, step):
    """Both clocks are set anew while the beats go on, one each five seconds."""
    _of_another_host(pool, beat=time.time() - 100)

    def beat(now):
        if now >= 5:
            edit_holder(pool, beat=time.time() + step, beats=int(now / 5))

    for wait in (0.0, 90.0):
        clock = Hours(beat)
        with pytest.raises(PoolError, match="has a driver"):
            PoolWriter.open(folder).acquire(wait=wait, clock=clock)
        assert max(wait, 5) <= clock.now <= max(wait, 5) + 1


def test_a_clock_that_is_set_back_lets_no_second_driver_take_a_live_one_over(pool, lease, folder, monkeypatch):
    """On one host: when a process started is told by ticks, and by the clock of the day no more."""
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) - 4000)
    edit_holder(pool, beat=time.time() + 4000)
    clock = Hours(lambda now: lease._write(released=False) if now > 5 else None)
    with pytest.raises(PoolError, match="has a driver"):
        PoolWriter.open(folder).acquire(clock=clock)
    record(pool, 0, 1)


def test_the_time_of_a_takeover_begins_with_the_last_beat_that_was_seen(pool, folder):
    _of_another_host(pool, beat=time.time() - 100)
    clock = Hours(lambda now: edit_holder(pool, beats=1) if 20 <= now < 21 else None)
    PoolWriter.open(folder).acquire(wait=90, clock=clock).release()
    assert 50 <= clock.now <= 52


def test_who_waits_is_told_at_once_for_whom_and_until_when(pool, lease, folder, caplog):
    said = []

    def pass_by(now):
        said.append((now, caplog.text))
        lease._write(released=False)

    with pytest.raises(PoolError, match="has a driver"):
        PoolWriter.open(folder).acquire(wait=90, clock=Hours(pass_by))
    assert said[0][0] <= 1
    assert f"has a driver: pid {os.getpid()} on " in said[0][1]
    assert "waiting for that until " in said[0][1]
    assert len(caplog.records) == 1


def test_a_driver_that_was_silent_beats_before_it_writes(pool, folder):
    clock = Hours()
    lease = pool.acquire(clock=clock)
    lease._stop.set()
    beats = look(pool._storage).holder.beats
    clock.now = 29.0
    record(pool, 0, 1)
    assert look(pool._storage).holder.beats == beats
    clock.now = 31.0
    record(pool, 1, 1)
    assert look(pool._storage).holder.beats == beats + 1
    lease.release()


def test_where_no_file_can_be_locked_it_says_so_once_and_a_driver_that_was_silent_stops(pool, monkeypatch, caplog):
    def unsupported(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(local.fcntl, "flock", unsupported)
    clock = Hours()
    pool.acquire(clock=clock)
    record(pool, 0, 2)
    assert caplog.text.count("no file can be locked there (") == 1
    clock.now = 31.0
    with pytest.raises(FencedError, match="could not say for 31 s that it is alive"):
        record(pool, 2, 1)
    assert pool.trials()["trial_id"].tolist() == [0, 1]
    die(pool)


@pytest.mark.parametrize(("error", "dead"), [(ProcessLookupError, True), (PermissionError, False)])
def test_another_users_process_is_not_dead_because_it_cannot_be_seen(pool, monkeypatch, error, dead):
    """With hidepid /proc shows nothing of it."""

    def kill(pid, number):
        raise error

    with pool.acquire():
        holder = look(pool._storage).holder
        monkeypatch.setattr(holders.os, "kill", kill)
        assert holders.is_dead(holder) == dead


def test_a_process_of_the_same_number_that_started_later_is_another(pool):
    with pool.acquire():
        holder = look(pool._storage).holder
        assert not holders.is_dead(holder)
        assert holders.is_dead(replace(holder, ticks=holder.ticks - 1))
        assert not holders.is_dead(replace(holder, ticks=None, started=0.0))


def test_the_lock_is_as_open_as_its_folder(tmp_path, pool, folder, monkeypatch):
    (folder / "lease").chmod(0o2775)
    with pool.acquire():
        assert (folder / "lease" / "lock").stat().st_mode & 0o777 == 0o664
    opened = os.open

    def not_mine(path, flags, *args, **kwargs):
        if str(path).endswith("/lock") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", not_mine)
    with pool.acquire():
        record(pool, 0, 1)


# -- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", [None, b"{", b"", b"[1]", b"\x00" * 1024])
def test_numbers_go_on_where_the_lease_is_damaged_or_missing(pool, folder, holder):
    with pool.acquire():
        record(pool, 0, 2)
    with pool.acquire():
        record(pool, 2, 2)
    before = {path: path.read_bytes() for path in folder.glob("*/*.parquet")}
    path = folder / "lease" / "holder.json"
    path.unlink() if holder is None else path.write_bytes(holder)
    (problem,) = pool.check()
    assert problem.startswith(f"lease/holder.json is {'missing' if holder is None else 'damaged'}")
    clock = Hours()
    with PoolWriter.open(folder).acquire(expiry=3.0, clock=clock) as lease:
        assert lease.epoch == 3
        assert clock.now == 0 if holder is None else clock.now >= 3
    with pool.acquire():
        record(pool, 4, 2)
    assert {path: path.read_bytes() for path in before} == before
    assert pool.trials()["trial_id"].tolist() == list(range(6))
    assert pool.check() == []


def test_numbers_follow_from_what_is_in_quarantine_and_of_merges_too(pool, folder):
    for where in ("quarantine/trials-e000007-00000001.parquet", ".trials-e000009-0123abcd/x", ".events-new-e000008/x"):
        (folder / where).parent.mkdir(exist_ok=True)
        (folder / where).write_bytes(b"")
    with pool.acquire() as lease:
        assert lease.epoch == 10


def test_a_part_is_never_replaced(pool, lease, folder):
    taken = folder / "trials" / "e000001-00000000.parquet"
    taken.write_bytes(b"somebody else's")
    with pytest.raises(PoolWriteError, match="is there already, and is not replaced; trying the next number"):
        pool.record_finished([make_trial(0)])
    assert pool.record_finished([make_trial(0)]) == [make_trial(0)]
    assert taken.read_bytes() == b"somebody else's"


def test_a_holder_that_is_removed_under_its_driver_ends_it(pool, folder):
    pool.acquire()
    record(pool, 0, 1)
    (folder / "lease" / "holder.json").unlink()
    with pytest.raises(FencedError, match=r"holder.json is missing; this driver writes nothing more"):
        record(pool, 1, 1)


def test_only_one_of_many_gets_the_lease(pool, folder):
    won, lost = [], []
    barrier = threading.Barrier(8)

    def race() -> None:
        rival = PoolWriter.open(folder)
        barrier.wait()
        try:
            won.append(rival.acquire())
        except PoolError:
            lost.append(rival)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].release()


def test_a_heartbeat_needs_no_space(pool, lease, folder):
    """It is written in place, so that a full disk does not make a living driver look dead."""
    holder = folder / "lease" / "holder.json"
    before = (holder.stat().st_ino, holder.stat().st_size)
    lease._write(released=False)
    assert (holder.stat().st_ino, holder.stat().st_size) == before
    assert json.loads(holder.read_text())["epoch"] == 1


def test_a_heartbeat_goes_on_after_an_error_of_any_kind(pool, monkeypatch):
    """Libraries raise classes of their own, which are no OSError."""
    beats = []

    def write(lease, *, released):
        beats.append(released)
        if len(beats) == 1:
            raise RuntimeError("ClientResponseError: 503")

    monkeypatch.setattr(leases.Lease, "_write", write)
    with pool.acquire(expiry=0.06):
        end = time.monotonic() + 600
        while len(beats) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert beats[:3] == [False, False, False]
