"""A head whose state outlives it (RocksDB) is restarted under a search."""

import os
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from test_run import start_driver, wait_for

from nao_ray.pool import PoolReader

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_AWAY_SECONDS = 8.0  # for longer than the executor is patient with the head


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster that holds two workers, whose head keeps its state on disk."""
    ray.shutdown()
    monkeypatch.setenv("RAY_gcs_storage", "rocksdb")
    monkeypatch.setenv("RAY_gcs_storage_path", str(tmp_path / "state"))
    args = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    cluster.global_state.disconnect()  # it would end this process were the head away for a minute
    yield cluster
    cluster.shutdown()


@pytest.fixture
def head(cluster):
    """The process that is the head, and how it is started again at its port."""
    process = psutil.Process(cluster.head_node.all_processes["gcs_server"][0].process.pid)
    port = cluster.address.rpartition(":")[2]
    words = [
        f"--gcs_server_port={port}" if word.startswith("--gcs_server_port") else word for word in process.cmdline()
    ]
    environment = process.environ()
    started: list[subprocess.Popen] = []

    def restart() -> None:
        started.append(subprocess.Popen(words, env=environment))

    yield process, restart
    for new in started:
        new.kill()
        new.wait()


def test_a_search_goes_on_while_the_head_is_away_and_after(cluster, head, tmp_path):
    process, restart = head
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    overrides = ["workers.count=2", "evaluator={name: closed_form, sleep_seconds: 0.3}", "budget={trials: 5000}"]
    driver = start_driver(tmp_path, overrides=overrides, env=environment)
    try:
        wait_for(tmp_path, 6, driver)
        cluster.head_node.kill_gcs_server()
        assert not process.is_running()
        before, used = _finished(tmp_path), _cpu_seconds(driver)
        time.sleep(_AWAY_SECONDS)
        assert _cpu_seconds(driver) - used < _AWAY_SECONDS / 2, "nobody asks the head all the time"
        assert _finished(tmp_path) >= before + 6, "workers go on without the head"
        restart()
        time.sleep(_AWAY_SECONDS)
        wait_for(tmp_path, _finished(tmp_path) + 6, driver)
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=600)
    finally:
        driver.kill()
        driver.communicate()
    assert "KeyboardInterrupt" in said
    assert said.count("the head of the cluster does not answer") == 1, said
    assert said.count("the head of the cluster answers again") == 1, said
    frame = pd.read_parquet(tmp_path / "p" / "trials")
    assert frame["attempt"].max() == 1, "no worker was lost"
    assert not frame["trial_id"].duplicated().any()
    assert not [line for line in PoolReader.open(tmp_path / "p").check() if "no final row" not in line]


def _finished(tmp_path) -> int:
    return len(pd.read_parquet(tmp_path / "p" / "trials", columns=["trial_id"]))


def _cpu_seconds(driver) -> float:
    times = psutil.Process(driver.pid).cpu_times()
    return times.user + times.system
