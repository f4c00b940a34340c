"""A head whose state outlives it (RocksDB) is restarted under a search."""

import threading
import time

import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster
from test_run import config

from nao_ray.pool import Pool
from nao_ray.service.run import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_AWAY_SECONDS = 6.0  # for longer than the executor is patient with the head


@pytest.fixture
def head(tmp_path, monkeypatch):
    """The head of a cluster that holds two workers and keeps its state on disk; the connection to it."""
    ray.shutdown()
    monkeypatch.setenv("RAY_gcs_storage", "rocksdb")
    monkeypatch.setenv("RAY_gcs_storage_path", str(tmp_path / "state"))
    args = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, namespace="test")
    yield cluster.head_node
    ray.shutdown()
    cluster.shutdown()


def test_a_search_goes_on_while_the_head_is_away_and_after(head, tmp_path, caplog):
    pids: list[int] = []
    away: list[tuple[float, float]] = []

    def restart() -> None:
        began = time.monotonic()
        pids.append(head.all_processes["gcs_server"][0].process.pid)
        head.kill_gcs_server()
        time.sleep(_AWAY_SECONDS)
        head.start_gcs_server()
        pids.append(head.all_processes["gcs_server"][0].process.pid)
        away.append((began, time.monotonic()))

    thread = threading.Thread(target=restart)
    seen: list[tuple[float, int]] = []
    answered: list[int] = []

    def listener(snapshot) -> None:
        done = snapshot.done + snapshot.failed
        seen.append((time.monotonic(), done))
        if done >= 6 and not thread.ident:
            thread.start()
        if not answered and "the head of the cluster answers again" in caplog.text:
            answered.append(done)

    def stop() -> bool:
        return bool(answered) and seen[-1][1] >= answered[0] + 10

    wanted = config("workers.count=2", "evaluator.sleep_seconds=0.3", "budget={trials: 5000, hours: 0.025}")
    with pytest.raises(KeyboardInterrupt):
        run(wanted, str(tmp_path / "p"), listener, stop=stop)
    thread.join()
    assert pids[0] != pids[1]
    began, back = away[0]
    meanwhile = [done for when, done in seen if began < when < back]
    assert meanwhile[-1] - meanwhile[0] >= 6, "workers go on without the head"
    assert caplog.text.count("the head of the cluster does not answer") == 1
    frame = pd.read_parquet(tmp_path / "p" / "trials")
    assert frame["attempt"].max() == 1
    assert not frame["trial_id"].duplicated().any()
    assert all("occur twice" not in line for line in Pool.open(tmp_path / "p").check())
