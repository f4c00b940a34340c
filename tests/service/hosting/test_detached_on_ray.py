"""A detached search outlives its driver, its hosting actor's process, and the head."""

import json
import os
import sys
import time

import _forks
import pandas as pd
import psutil
import pytest
from test_run import config
from test_state_of_the_head import cluster, head  # noqa: F401 - fixtures

from nao_ray.pool import PoolReader
from nao_ray.service.jobs.packing import job_name

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_AWAY_SECONDS = 8.0


def _command(*words):
    return [sys.executable, "-m", "nao_ray", *map(str, words)]


def test_a_detached_search_goes_on_when_its_driver_its_actor_and_the_head_are_killed(cluster, head, tmp_path):  # noqa: F811
    gcs, restart = head
    pool, file = tmp_path / "p", tmp_path / "config.yaml"
    overrides = ["workers.count=1", "evaluator={name: closed_form, sleep_seconds: 0.3}", "budget={trials: 5000}"]
    file.write_text(config(*overrides).to_yaml())
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    words = _command("search", file, "--pool", pool, "--detach")
    with open(tmp_path / "said", "w") as said:
        driver = _forks.Popen(words, env=environment, stdout=said, stderr=said)
    try:
        _wait_for_more(pool, 3, driver)
        driver.kill()
        driver.wait()
        _wait_for_more(pool, 3)
        _holder(pool).kill()
        _wait_for_more(pool, 3)  # of a new actor: the old one's lease, whose process is known to be gone, is over
        cluster.head_node.kill_gcs_server()
        assert not gcs.is_running()
        _wait_for_more(pool, 3)
        time.sleep(_AWAY_SECONDS)
        restart()
        _wait_for_more(pool, 6)
        done = _forks.run(
            _command("end-detached", job_name("quick", str(pool))),
            env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        driver.kill()
        driver.wait()
    frame = pd.read_parquet(pool / "trials")
    assert not frame["trial_id"].duplicated().any()
    assert sorted(frame["trial_id"])[: len(frame) - 2] == list(range(len(frame) - 2)), "none was lost"
    assert not [line for line in PoolReader.open(pool).check() if "no final row" not in line]
    assert {name[:7] for name in os.listdir(pool / "trials")} >= {"e000001", "e000002"}, "two actors wrote"


def _holder(pool):
    """The process that drives the pool: the hosting actor's."""
    return psutil.Process(json.loads((pool / "lease" / "holder.json").read_text())["pid"])


def _wait_for_more(pool, number, driver=None):
    """Until so many trials more have ended."""
    before, end = None, time.monotonic() + 600
    while True:
        if PoolReader.exists(pool):
            finished = PoolReader.open(pool).counts().finished
            before = finished if before is None else before
            if finished >= before + number:
                return
        assert driver is None or driver.poll() is None, "the driver has ended"
        assert time.monotonic() < end
        time.sleep(0.2)
