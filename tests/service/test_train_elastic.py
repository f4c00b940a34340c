"""A training whose team changes its size while nodes are lost and come back, on a Ray of several nodes."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from nao_ray.config import TrainConfig
from nao_ray.pool import Finals
from nao_ray.service.training import together
from nao_ray.service.training.train import train

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]  # of Ray's own modules

WHAT = {
    "space": {"name": "nao_rnn", "nodes": 2},
    "genotype": "0:tanh 1:relu",
    "task": {"name": "made_up_text", "words": 60, "letters": 3, "gap": 1},
}
SMALL = ("hidden=4", "epochs=4", "device=cpu", "recipe.batch=5", "recipe.dropout=0", "recipe.dropout_input=0",
         "recipe.restarts=0", "task.window=14")  # fmt: skip
NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(monkeypatch):
    """A head without room, and two nodes with room for a worker each."""
    ray.shutdown()
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setattr(together, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(together, "_ROOM_SECONDS", 0.5)
    monkeypatch.setattr(together, "_RESIZE_SECONDS", 1.0)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    cluster.second = [cluster.add_node(**NODE) for _ in range(2)][1]
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, namespace="test")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@dataclass(frozen=True)
class _Paced(together._Work):
    """Two workers wait after their first epoch until there was one alone, and that one until it is no longer alone."""

    def __call__(self):
        from ray.train import get_context

        shrunk, is_alone, write = (
            Path(self.url) / "shrunk",
            get_context().get_world_size() == 1,
            Finals.write_checkpoint,
        )

        def write_and_wait(finals, name, data):
            write(finals, name, data)
            if is_alone:
                shrunk.touch()
            while is_alone or not shrunk.exists():
                time.sleep(0.02)

        Finals.write_checkpoint = write_and_wait
        super().__call__()


def test_a_team_shrinks_and_grows_with_its_cluster_and_learns_what_one_does(cluster, tmp_path, monkeypatch, caplog):
    one = train(TrainConfig.make("short_text", WHAT, SMALL), str(tmp_path / "one"), "cell")

    def change(step):
        if step.done == 1:
            cluster.remove_node(cluster.second, allow_graceful=False)
        elif step.done == 2:
            cluster.add_node(**NODE)

    monkeypatch.setattr(together, "_Work", _Paced)
    config = TrainConfig.make("short_text", WHAT, (*SMALL, "workers=1..2"))
    row = together.train_together(config, str(tmp_path / "team"), "cell", listener=change)
    assert row["device"] == "2 x cpu"
    assert row["curve"] == pytest.approx(one["curve"], rel=1e-5)
    assert "on from the end of epoch 1" in caplog.text
    assert "epoch 2 by 1 x cpu, those before by 2 x cpu" in caplog.text
    assert " by 2 x cpu, those before by 1 x cpu" in caplog.text
