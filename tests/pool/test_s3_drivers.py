"""Pools on a server that speaks S3: what drivers do to each other."""

import os
import signal
import threading
import time
from functools import partial

import pandas as pd
import pytest
from _made_up_trials import MANIFEST, make_trial, record
from _s3_drivers import Driver, fenced, take_over, vanish

from nao_ray._pool import holder, objects
from nao_ray._pool.holder import look
from nao_ray._pool.objects import ObjectStorage
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter

RIVAL = """
import sys
from _made_up_trials import *
from nao_ray.errors import PoolError
pool = PoolWriter.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with pool.acquire(expiry=float(sys.argv[2])) as lease:
        print("epoch", lease.epoch, flush=True)
        for k in range(int(sys.argv[3])):
            record(pool, k, 1)
        print("recorded", flush=True)
        sys.stdin.readline()
        record(pool, int(sys.argv[3]), 1)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_that_claim_at_once_one_writes(url):
    PoolWriter.create(url, MANIFEST)
    with Driver(RIVAL, url, "30", "8") as one, Driver(RIVAL, url, "30", "8") as other:
        assert {one.hear(), other.hear()} == {"ready"}
        one.tell()
        other.tell()
        said = sorted([one.hear(), other.hear()])
        assert said[0].startswith("PoolError")
        assert said[1] == "epoch 1"
        winner = one if one.hear() == "recorded" else other
        assert winner is one or winner.hear() == "recorded"
        pool = PoolWriter.open(url)
        with pytest.raises(PoolError, match=rf"has a driver: pid {winner.process.pid} "):
            pool.acquire()
    assert pool.trials()["trial_id"].tolist() == list(range(8))
    assert pool.check() == []


CLAIMS = """
import sys
from _made_up_trials import *
from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader, PoolWriter
pool = PoolWriter.open(sys.argv[1])
for line in sys.stdin:
    try:
        with pool.acquire() as lease:
            record(pool, int(line), 1)
            pool.compact()
            print("epoch", lease.epoch, flush=True)
    except PoolError as error:
        print("refused", error, flush=True)
"""


@pytest.mark.slow
def test_two_processes_that_claim_at_once_many_times(url):
    """One or both, one after the other, get the pool each time; what was written is there once."""
    PoolWriter.create(url, MANIFEST)
    epochs = []
    with Driver(CLAIMS, url) as one, Driver(CLAIMS, url) as other:
        for number in range(15):
            for driver in (one, other):
                driver.tell(str(number))
            said = [driver.hear() for driver in (one, other)]
            taken = [int(line.split()[1]) for line in said if line.startswith("epoch")]
            assert taken, said
            epochs += sorted(taken)
    assert epochs == list(range(1, len(epochs) + 1))
    pool = PoolReader.open(url)
    assert pool.trials()["trial_id"].tolist() == list(range(15))
    assert pool.check() == []


@pytest.mark.slow
def test_a_killed_driver_is_replaced_at_its_expiry_where_its_process_cannot_be_seen(url, monkeypatch):
    PoolWriter.create(url, MANIFEST)
    with Driver(RIVAL, url, "3", "2") as driver:
        assert driver.hear() == "ready"
        driver.tell()
        assert driver.hear() == "epoch 1"
        assert driver.hear() == "recorded"
        driver.process.kill()
        driver.process.wait()
        monkeypatch.setattr(holder, "place", lambda: "another host")
        began = time.monotonic()
        with pytest.raises(PoolError, match="has a driver"):
            PoolWriter.open(url).acquire()
        pool = PoolWriter.open(url)
        with pool.acquire(wait=20) as lease:
            assert 1 < time.monotonic() - began < 15
            assert lease.epoch == 2
            record(pool, 2, 1)
    assert pool.check() == []


@pytest.mark.slow
def test_a_frozen_driver_is_fenced_off_when_it_thaws(url):
    PoolWriter.create(url, MANIFEST)
    with Driver(RIVAL, url, "1.5", "1") as driver:
        driver.hear()
        driver.tell()
        assert [driver.hear(), driver.hear()] == ["epoch 1", "recorded"]
        os.kill(driver.process.pid, signal.SIGSTOP)
        pool = PoolWriter.open(url)
        with pool.acquire(wait=20):
            record(pool, 1, 1)
            os.kill(driver.process.pid, signal.SIGCONT)
            driver.tell()
            assert driver.hear().startswith("FencedError")
            record(pool, 2, 1)
    assert pool.trials()["trial_id"].tolist() == [0, 1, 2]
    assert pool.check() == []


@pytest.mark.parametrize("folder", ["trials", "events"])
def test_a_part_that_was_on_its_way_during_a_takeover_does_not_land(url, server, folder):
    made = PoolWriter.create(url, MANIFEST)
    made.acquire()
    record(made, 0, 1)
    server.hold(f"/{folder}/e000001-")
    write = partial(made.record_finished, [make_trial(1)]) if folder == "trials" else partial(record, made, 1, 1)
    late, said = fenced(write)
    server.wait_held()
    vanish(made)
    other = take_over(url)
    record(other, 1, 2)
    server.let_go()
    late.join()
    assert said == ["FencedError"]
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2]
    assert other.check() == []
    other._lease.release()


def test_a_heartbeat_that_was_on_its_way_does_not_undo_a_takeover(url, server):
    made = PoolWriter.create(url, MANIFEST)
    lease = made.acquire()
    vanish(made)
    server.hold("/lease/holder.json")
    late, said = fenced(lambda: lease._write(released=False))
    server.wait_held()
    other = take_over(url)
    server.let_go()
    late.join()
    assert said == ["FencedError"]
    other._lease.check()
    record(other, 0, 1)
    other._lease.release()


def test_an_old_drivers_fits_do_not_replace_newer_ones(url, server):
    made = PoolWriter.create(url, MANIFEST)
    made.acquire()
    made.record_fits([{"round": 0, "loss": 1.0}])
    server.hold("/fits/fits.parquet")
    late, said = fenced(lambda: made.record_fits([{"round": 1, "loss": 9.0}]))
    server.wait_held()
    vanish(made)
    other = take_over(url)
    other.record_fits([{"round": 1, "loss": 0.5}])
    server.let_go()
    late.join()
    assert said == ["FencedError"]
    assert other.fits()["loss"].tolist() == [1.0, 0.5]
    other._lease.release()


def test_a_seal_that_was_cut_short_is_completed(url):
    """The second driver dies after the first of its empty parts; the third seals what the first may still send."""
    made = PoolWriter.create(url, MANIFEST)
    made.acquire()
    record(made, 0, 1)  # parts 0 to 2: what may be on its way is part 3 of either folder
    vanish(made)
    create, calls = ObjectStorage.create, []

    def cut_short(self, name, data):
        if name.endswith("e000001-00000003.parquet"):
            calls.append(name)
            if len(calls) == 2:
                raise PoolWriteError("killed")
        return create(self, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStorage, "create", cut_short)
        with pytest.raises(PoolWriteError, match="killed"):
            take_over(url)
    other = take_over(url)
    for folder in ("trials", "events"):
        assert not made._storage.create(f"{folder}/e000001-00000003.parquet", b"late")
    assert other._lease.epoch == 3
    assert other._lease.unsealed == range(3, 3)
    other._lease.release()


def test_a_heartbeat_that_hangs_is_sent_again_well_before_the_driver_counts_as_dead(url, server, monkeypatch):
    monkeypatch.setattr(objects, "_LEASE_SECONDS", 0.5)
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire() as lease:
        vanish(made)
        before = look(made._storage).holder.beat
        server.hold("/lease/holder.json")
        began = time.monotonic()
        lease._write(released=False)
        assert time.monotonic() - began < 10
        assert look(made._storage).holder.beat > before
        server.let_go()
        lease.check()


def test_of_two_that_claim_at_once_one_is_refused(url, server):
    made = PoolWriter.create(url, MANIFEST)
    said: list[object] = []

    def claim() -> None:
        try:
            said.append(made.acquire())
        except PoolError as error:
            said.append(str(error))

    server.hold("/lease/holder.json")
    late = threading.Thread(target=claim)
    late.start()
    server.wait_held()
    with PoolWriter.open(url).acquire() as lease:
        server.let_go()
        late.join()
        assert f"pool {url} has a driver: pid {os.getpid()} on " in said[0]
        lease.check()
