"""Pools on a server that speaks S3: what users do, and what drivers do to each other."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import boto3
import pandas as pd
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record
from _s3_server import S3Server

from nao_ray._pool import lease as leases
from nao_ray._pool import parts, s3
from nao_ray._pool.s3 import S3Storage
from nao_ray.addresses import extended
from nao_ray.config import RunConfig
from nao_ray.errors import FencedError, PoolError, PoolWriteError
from nao_ray.pool import Counts, Pool
from nao_ray.service.run import run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def url(server, monkeypatch, tmp_path):
    """A URL in a bucket of its own; endpoint and credentials by the environment, as a user gives them."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    server.writes.clear()
    yield f"s3://{bucket}/pools/run1"
    server.refuses = False


@pytest.fixture
def _no_settling(monkeypatch):
    monkeypatch.setattr(leases, "_SETTLE", 0.0)


def vanish(pool: Pool) -> None:
    """No heartbeat any more, and no release: a driver that is frozen or cut off."""
    pool._lease._stop.set()
    pool._lease._thread.join()


def take_over(url: str) -> Pool:
    """A second driver, to whom the first is dead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "is_dead", lambda holder: True)
        other = Pool.open(url)
        other.acquire()
    return other


def fenced(write: Callable[[], object]) -> tuple[threading.Thread, list[str]]:
    """A write in a thread, and what came of it."""
    said: list[str] = []

    def run_it() -> None:
        try:
            write()
            said.append("written")
        except FencedError as error:
            said.append(type(error).__name__)

    thread = threading.Thread(target=run_it)
    thread.start()
    return thread, said


class Driver:
    """A program in another process that says a line at a time."""

    def __init__(self, code: str, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "go on") -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


# -- what users do ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_settling")
def test_a_pool_is_made_written_read_and_taken_up_again(url, server):
    assert not Pool.exists(url)
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        finished = record(made, 0, 5)
        made.record_asked([make_proposal(5)], START)
        made.record_fits([{"round": 0, "loss": 1.0}])
        made.record_fits([{"round": 1, "loss": 0.5}])
        made.write_weights("v1", b"weights")
        assert made.record_finished([make_trial(2)]) == []
        with pytest.raises(PoolError, match="object storage has no rename"):
            made.compact()
    again = Pool.open(url)
    assert isinstance(again._storage, S3Storage)
    assert again.log()[:5] == finished
    assert again.counts() == Counts(asked=6, completed=4, failed=1, best_score=finished[2].score, best_trial_id=2)
    assert again.fits()["loss"].tolist() == [1.0, 0.5]
    assert again.read_weights("v1") == b"weights"
    assert again.sql("SELECT count(*) AS n FROM trials")["n"].tolist() == [5]
    assert again.check() == ["1 trials were asked and have no final row (resume to finish them): 5"]
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3, 4]
    with pytest.raises(PoolError, match="is a pool already"):
        Pool.create(url, MANIFEST)
    with again.acquire() as lease:
        assert lease.epoch == 2
        record(again, 5, 1)
    assert again.check() == []
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3, 4, 5]
    trials = [path for path in server.writes if "/trials/" in path]
    assert len(trials) == len(set(trials)), "a part is written in one request, once"


@pytest.mark.usefixtures("_no_settling")
def test_the_endpoint_may_stand_in_the_url(url, server, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    query = f"?endpoint_override={server.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"
    made = Pool.create(url + query, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
    assert Pool.open(url + query).trials()["trial_id"].tolist() == [0]
    assert pd.read_parquet(f"{url}/trials{query}")["trial_id"].tolist() == [0]


def test_full_training_where_the_endpoint_stands_in_the_url(url, server, monkeypatch, call):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    query = f"?endpoint_override={server.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"
    settings = [word for setting in ("channels=2", "epochs=1") for word in ("--set", setting)]
    words = ("NAONet-B", "--recipe", "short_digits", "--task", "synthetic", *settings, "--out", url + query)
    trained = call("train", *words)
    assert trained.code == 0, trained.err
    checkpoint = next(line.split()[1] for line in trained.out.splitlines() if line.startswith("checkpoint"))
    assert checkpoint.startswith(f"{url}/weights/NAONet-B-short_digits-")
    score = call("evaluate", checkpoint).out.partition("test ")[2].strip()
    assert score
    assert score in trained.out
    assert extended(url + query, "-finalists") == f"{url}-finalists{query}"
    assert extended("pools/a?b/", "-finalists") == "pools/a?b-finalists"


@pytest.mark.parametrize("lost", ["bucket", "server"])
def test_what_is_not_there_is_named_in_one_line(url, monkeypatch, call, lost):
    if lost == "server":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    else:
        url = "s3://nobodys-bucket/pool"
    for words in (("search", "smoke", "--in-process", "--pool", url), ("pool", url)):
        left = call(*words)
        assert left.code in (1, 2), left
        assert url.removeprefix("s3://") in left.err
        assert "Traceback" not in left.err


CONFIG = """
name: small
space: nao_cnn_small
task: synthetic
evaluator: closed_form
strategy: {name: regularized_evolution, population: 6, sample: 3}
budget: {trials: 24}
"""
KILLED = """
import os, signal, sys
from nao_ray.cli import main
from nao_ray.evaluators.closed_form import ClosedForm
evaluate, left = ClosedForm.evaluate, [int(sys.argv.pop(1))]
def until_killed(self, proposal):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(self, proposal)
ClosedForm.evaluate = until_killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_with_the_same_command(url, tmp_path, call):
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG)
    words = ("search", str(config), "--in-process", "--pool")
    for evaluations in (9, 8):
        with Driver(KILLED, str(evaluations), *words, url) as driver:
            driver.process.wait(60)
            assert driver.process.returncode == -signal.SIGKILL
    assert len(pd.read_parquet(url + "/trials")) == 17
    running = call("watch", url, "--once", "--json")
    assert running.code == 0
    assert '"finished": 17' in running.out
    done = call(*words, url)
    assert done.code == 0, done.err
    unbroken = tmp_path / "unbroken"
    assert call(*words, unbroken).code == 0
    columns = ["trial_id", "genotype", "valid_accuracy", "state", "asked_after", "log_index"]
    broken = Pool.open(url)
    pd.testing.assert_frame_equal(broken.trials(columns), Pool.open(unbroken).trials(columns))
    assert broken.check() == []
    assert '"trial_id"' in call("pool", url, "best", "-n", "1", "--json").out
    assert call("pool", url, "check").code == 0
    reported = call("report", url)
    assert reported.code == 0, reported.err
    assert broken._storage.read("report.html").startswith(b"<!doctype html>")


# -- what drivers do to each other --------------------------------------------------------------------------

RIVAL = """
import sys
from _made_up_trials import *
from nao_ray.errors import PoolError
pool = Pool.open(sys.argv[1])
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
    Pool.create(url, MANIFEST)
    with Driver(RIVAL, url, "30", "8") as one, Driver(RIVAL, url, "30", "8") as other:
        assert {one.hear(), other.hear()} == {"ready"}
        one.tell()
        other.tell()
        said = sorted([one.hear(), other.hear()])
        assert said[0].startswith("PoolError")
        assert said[1] == "epoch 1"
        winner = one if one.hear() == "recorded" else other
        assert winner is one or winner.hear() == "recorded"
        pool = Pool.open(url)
        with pytest.raises(PoolError, match=rf"has a driver: pid {winner.process.pid} "):
            pool.acquire()
    assert pool.trials()["trial_id"].tolist() == list(range(8))
    assert pool.check() == []


@pytest.mark.slow
def test_a_killed_driver_is_replaced_at_its_expiry_where_its_process_cannot_be_seen(url, monkeypatch):
    Pool.create(url, MANIFEST)
    with Driver(RIVAL, url, "3", "2") as driver:
        assert driver.hear() == "ready"
        driver.tell()
        assert driver.hear() == "epoch 1"
        assert driver.hear() == "recorded"
        driver.process.kill()
        driver.process.wait()
        monkeypatch.setattr(leases, "place", lambda: "another host")
        began = time.monotonic()
        with pytest.raises(PoolError, match="has a driver"):
            Pool.open(url).acquire()
        pool = Pool.open(url)
        with pool.acquire(wait=20) as lease:
            assert 1 < time.monotonic() - began < 15
            assert lease.epoch == 2
            record(pool, 2, 1)
    assert pool.check() == []


@pytest.mark.slow
def test_a_frozen_driver_is_fenced_off_when_it_thaws(url):
    Pool.create(url, MANIFEST)
    with Driver(RIVAL, url, "1.5", "1") as driver:
        driver.hear()
        driver.tell()
        assert [driver.hear(), driver.hear()] == ["epoch 1", "recorded"]
        os.kill(driver.process.pid, signal.SIGSTOP)
        pool = Pool.open(url)
        with pool.acquire(wait=20):
            record(pool, 1, 1)
            os.kill(driver.process.pid, signal.SIGCONT)
            driver.tell()
            assert driver.hear().startswith("FencedError")
            record(pool, 2, 1)
    assert pool.trials()["trial_id"].tolist() == [0, 1, 2]
    assert pool.check() == []


@pytest.mark.usefixtures("_no_settling")
@pytest.mark.parametrize("folder", ["trials", "events"])
def test_a_part_that_was_on_its_way_during_a_takeover_does_not_land(url, server, folder):
    made = Pool.create(url, MANIFEST)
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


@pytest.mark.usefixtures("_no_settling")
def test_a_heartbeat_that_was_on_its_way_does_not_undo_a_takeover(url, server):
    made = Pool.create(url, MANIFEST)
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


@pytest.mark.usefixtures("_no_settling")
def test_an_old_drivers_fits_do_not_replace_newer_ones(url, server):
    made = Pool.create(url, MANIFEST)
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


@pytest.mark.usefixtures("_no_settling")
def test_a_seal_that_was_cut_short_is_completed(url):
    """The second driver dies after the first of its empty parts; the third seals what the first may still send."""
    made = Pool.create(url, MANIFEST)
    made.acquire()
    record(made, 0, 1)  # parts 0 to 2: what may be on its way is part 3 of either folder
    vanish(made)
    create, calls = S3Storage.create, []

    def cut_short(self, name, data):
        if name.endswith("e000001-00000003.parquet"):
            calls.append(name)
            if len(calls) == 2:
                raise PoolWriteError("killed")
        return create(self, name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Storage, "create", cut_short)
        with pytest.raises(PoolWriteError, match="killed"):
            take_over(url)
    other = take_over(url)
    for folder in ("trials", "events"):
        assert not made._storage.create(f"{folder}/e000001-00000003.parquet", b"late")
    assert other._lease.epoch == 3
    assert other._lease.unsealed == range(3, 3)
    other._lease.release()


@pytest.mark.usefixtures("_no_settling")
@pytest.mark.parametrize("answer", ["ignored", "refused", "refused on the way"])
def test_a_takeover_overwrites_nothing_where_conditions_do_not_hold(url, monkeypatch, answer):
    """A server that leaves `If-None-Match` out, or says 501: at once, or from the sealing on."""
    from botocore.exceptions import ClientError

    made = Pool.create(url, MANIFEST)
    made.acquire()
    record(made, 0, 1)  # parts 0 and 2 are events, part 1 is a trial
    vanish(made)
    init = S3Storage.__init__

    def without_conditions(self, *words):
        init(self, *words)
        put_object = self._client.put_object

        def put(**words):
            if answer == "refused" and not {"IfMatch", "IfNoneMatch"}.isdisjoint(words):
                raise ClientError({"Error": {"Code": "NotImplemented", "Message": "a header"}}, "PutObject")
            if answer == "refused on the way" and "IfNoneMatch" in words and "/trials/" in words["Key"]:
                raise ClientError({"Error": {"Code": "NotImplemented", "Message": "a header"}}, "PutObject")
            return put_object(**{key: word for key, word in words.items() if key not in ("IfMatch", "IfNoneMatch")})

        monkeypatch.setattr(self._client, "put_object", put)

    monkeypatch.setattr(S3Storage, "__init__", without_conditions)
    before = {f"{kind}/{name}": made._storage.read(f"{kind}/{name}") for kind in ("trials", "events")
              for name in made._storage.parts(kind)}  # fmt: skip
    other = take_over(url)
    assert {name: other._storage.read(name) for name in before} == before
    assert Pool.open(url).log()[0].state == "COMPLETED"
    other._lease.release()


@pytest.mark.usefixtures("_no_settling")
def test_a_heartbeat_that_hangs_is_sent_again_well_before_the_driver_counts_as_dead(url, server, monkeypatch):
    monkeypatch.setattr(s3, "_LEASE_SECONDS", 0.5)
    made = Pool.create(url, MANIFEST)
    with made.acquire() as lease:
        vanish(made)
        before = leases.read_holder(made._storage).beat
        server.hold("/lease/holder.json")
        began = time.monotonic()
        lease._write(released=False)
        assert time.monotonic() - began < 10
        assert leases.read_holder(made._storage).beat > before
        server.let_go()
        lease.check()


def test_of_two_that_claim_at_once_one_is_refused(url, server):
    """Not even the look a second later is needed, though it is there for servers that ignore conditions."""
    made = Pool.create(url, MANIFEST)
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
    with Pool.open(url).acquire() as lease:
        server.let_go()
        late.join()
        assert said == [f"pool {url}: another driver has just taken it"]
        lease.check()


# -- a server in trouble ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_settling")
def test_a_put_that_fails_is_a_write_error_and_may_be_tried_again(url, server):
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
        server.refuses = True
        with pytest.raises(PoolWriteError, match=r"cannot write .*trials/e000001"):
            made.record_finished([make_trial(1)])
        assert server.refused > 0
        server.refuses = False
        assert made.record_finished([make_trial(1)]) == [make_trial(1)]
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1]


@pytest.mark.slow
def test_a_search_waits_for_a_server_that_refuses(url, server):
    seen: list[str] = []

    def listen(snapshot) -> None:
        if snapshot.done + snapshot.failed == 5 and not seen:
            server.refuses = True
            seen.append("refused")
        if snapshot.write_error and server.refuses:
            seen.append(snapshot.write_error)
            server.refuses = False

    summary = run(RunConfig.parse(CONFIG), url, listen, in_process=True)
    assert summary.done + summary.failed == 24
    assert len(seen) == 2
    assert "cannot write" in seen[1]
    assert Pool.open(url).check() == []


@pytest.mark.usefixtures("_no_settling")
@pytest.mark.parametrize("lands_first", [True, False])
def test_a_write_that_failed_and_landed_after_all_is_not_written_twice(url, server, monkeypatch, lands_first):
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
        put = S3Storage._put
        sent: list[tuple] = []

        def no_answer(self, name, body, condition):
            sent.append((name, body, condition))
            if lands_first:
                put(self, *sent[0])
            raise OSError("the connection was closed")

        with monkeypatch.context() as patch:
            patch.setattr(S3Storage, "_put", no_answer)
            with pytest.raises(PoolWriteError, match="the connection was closed"):
                made.record_finished([make_trial(1)])
        again = made.record_finished([make_trial(1), make_trial(2)])
        assert [trial.trial_id for trial in again] == ([2] if lands_first else [1, 2])
        assert put(made._storage, *sent[0]) is False, "what was on its way finds its name taken"
        record(made, 3, 1)
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3]


def test_an_answer_that_was_lost_is_no_conflict(url, monkeypatch):
    """The library sends a request again whose answer it did not get; then the condition fails on our own file."""
    storage = Pool.create(url, MANIFEST)._storage
    put = S3Storage._put
    monkeypatch.setattr(S3Storage, "_put", lambda *words: put(*words) and put(*words))
    assert storage.create("final/a", b"1")
    assert not storage.create("final/a", b"2")
    assert storage.swap("final/a", b"3", storage.look("final/a")[1])
    assert storage.read("final/a") == b"3"


def test_a_server_without_conditions_is_said_to_be_one(url, caplog, monkeypatch):
    from botocore.exceptions import ClientError

    storage = Pool.create(url, MANIFEST)._storage
    real = storage._client.put_object

    def put_object(**words):
        if {"IfMatch", "IfNoneMatch"} & set(words):
            raise ClientError({"Error": {"Code": "NotImplemented", "Message": "a header"}}, "PutObject")
        return real(**words)

    monkeypatch.setattr(storage._client, "put_object", put_object)
    assert storage.create("final/a", b"1")
    assert not storage.has_conditions
    assert not storage.create("final/a", b"2")
    storage.has_conditions = True
    assert not storage.create("final/a", b"3")
    assert storage.read("final/a") == b"1"
    assert "knows no conditional writes" in caplog.text
    assert parts.seal(storage, 1) == 0
