"""Pools on a server that speaks S3: what users do."""

import signal

import pandas as pd
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record
from _s3_drivers import CONFIG, Driver

from nao_ray._pool.objects import ObjectStorage
from nao_ray.addresses import extended
from nao_ray.errors import PoolError
from nao_ray.pool import Counts, PoolReader, PoolWriter


def test_a_pool_is_made_written_read_and_taken_up_again(url, server):
    assert not PoolReader.exists(url)
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        finished = record(made, 0, 5)
        made.record_asked([make_proposal(5)], START)
        made.record_fits([{"round": 0, "loss": 1.0}])
        made.record_fits([{"round": 1, "loss": 0.5}])
        made.write_weights("v1", b"weights")
        assert made.record_finished([make_trial(2)]) == []
    again = PoolWriter.open(url)
    assert isinstance(again._storage, ObjectStorage)
    assert again.log()[:5] == finished
    assert again.counts() == Counts(asked=6, completed=4, failed=1, best_score=finished[2].score, best_trial_id=2)
    assert again.fits()["loss"].tolist() == [1.0, 0.5]
    assert again.read_weights("v1") == b"weights"
    assert again.sql("SELECT count(*) AS n FROM trials")["n"].tolist() == [5]
    assert again.check() == ["1 trials were asked and have no final row (resume to finish them): 5"]
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3, 4]
    with pytest.raises(PoolError, match="is a pool already"):
        PoolWriter.create(url, MANIFEST)
    with again.acquire() as lease:
        assert lease.epoch == 2
        record(again, 5, 1)
    assert again.check() == []
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3, 4, 5]
    trials = [path for path in server.writes if "/trials/" in path]
    assert len(trials) == len(set(trials)), "a part is written in one request, once"


def test_the_endpoint_may_stand_in_the_url(url, server, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    query = f"?endpoint_override={server.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"
    made = PoolWriter.create(url + query, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
    assert PoolReader.open(url + query).trials()["trial_id"].tolist() == [0]
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


KILLED = """
import os, signal, sys
from nao_ray.cli.app import main
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
            driver.process.wait(600)
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
    broken = PoolWriter.open(url)
    pd.testing.assert_frame_equal(broken.trials(columns), PoolReader.open(unbroken).trials(columns))
    assert broken.check() == []
    assert '"trial_id"' in call("pool", url, "best", "-n", "1", "--json").out
    assert call("pool", url, "check").code == 0
    reported = call("report", url)
    assert reported.code == 0, reported.err
    assert broken._storage.read("report.html").startswith(b"<!doctype html>")
