"""One driver writes; one that was replaced writes nothing more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from _made_up_trials import START, die, edit_holder, make_proposal, make_trial, record

from nao_ray._pool import lease as leases
from nao_ray.errors import FencedError, PoolError
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
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parent)
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


@pytest.mark.parametrize(("age", "watched"), [(100.0, True), (-500.0, True), (1.0, False)])
def test_another_hosts_clock_is_not_trusted(pool, folder, monkeypatch, age, watched):
    """A beat that looks old or from the future is watched for a change before the pool is taken."""
    pool.acquire(expiry=0.3)
    die(pool)
    edit_holder(pool, place="another host", beat=time.time() - age, expiry=30.0)
    slept = []
    monkeypatch.setattr(leases.time, "sleep", slept.append)
    if watched:
        PoolWriter.open(folder).acquire().release()
        assert slept == [12.5]
    else:
        with pytest.raises(PoolError, match="alive 1 s ago"):
            PoolWriter.open(folder).acquire()
        assert slept == []


def test_another_host_that_still_beats_keeps_its_pool(pool, folder, monkeypatch):
    pool.acquire()
    die(pool)
    edit_holder(pool, place="another host", beat=time.time() - 1000)
    monkeypatch.setattr(leases.time, "sleep", lambda _: edit_holder(pool, beat=time.time() - 990))
    with pytest.raises(PoolError, match="has a driver"):
        PoolWriter.open(folder).acquire()


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


def test_a_damaged_lease_is_named(pool, folder):
    (folder / "lease" / "holder.json").write_text("{")
    with pytest.raises(PoolError, match=r"holder\.json is damaged"):
        pool.acquire()


def test_a_heartbeat_goes_on_after_an_error_of_any_kind(pool, monkeypatch):
    """Libraries raise classes of their own, which are no OSError."""
    beats = []

    def write(lease, *, released):
        beats.append(released)
        if len(beats) == 1:
            raise RuntimeError("ClientResponseError: 503")

    monkeypatch.setattr(leases.Lease, "_write", write)
    with pool.acquire(expiry=0.06):
        end = time.monotonic() + 5
        while len(beats) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert beats[:3] == [False, False, False]
