"""Nodes come and go under a search. Fake nodes: processes of this machine."""

import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster
from test_run import config

from nao_ray.bench.chaos import differences
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_NOTICE_SOON = {  # a dead node: 2 s instead of 14
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture
def nodes():
    """A cluster whose head holds one worker; the connection to it."""
    ray.shutdown()
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": _NOTICE_SOON})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, namespace="test")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_node_that_joins_is_put_to_work_and_one_that_dies_loses_nothing(nodes, tmp_path):
    joined, seen = [], []

    def listener(snapshot):
        seen.append((snapshot.capacity, snapshot.running))
        if not joined and snapshot.done + snapshot.failed >= 4:
            joined.append(nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20))
        if len(joined) == 1 and snapshot.running == 2 and snapshot.done + snapshot.failed >= 16:
            nodes.remove_node(joined[0], allow_graceful=False)  # SIGKILL
            joined.append("gone")

    wanted = config("workers.count=auto", "evaluator.sleep_seconds=0.5", "budget.trials=30")
    run(wanted, str(tmp_path / "p"), listener)
    assert seen[0] == (1, 0)
    assert (2, 2) in seen
    assert "gone" in joined
    assert seen[-1] == (1, 0)
    assert differences(wanted, tmp_path / "p", None) == []
    assert pd.read_parquet(tmp_path / "p" / "trials")["attempt"].max() == 2
    assert PoolReader.open(tmp_path / "p").check() == []
