"""Trainings by several workers of Ray Train, on one small Ray."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from nao_ray.bench import _imagenet as made
from nao_ray.config import TrainConfig
from nao_ray.pool import Finals
from nao_ray.service.training import together
from nao_ray.service.training.about import unpack
from nao_ray.service.training.train import train

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Ray's own modules

TEXT = {
    "space": {"name": "nao_rnn", "nodes": 2},
    "genotype": "0:tanh 1:relu",
    "task": {"name": "made_up_text", "words": 60, "letters": 3, "gap": 1},
}
PLAIN = ("hidden=4", "epochs=3", "device=cpu", "recipe.batch=5", "recipe.dropout=0", "recipe.dropout_input=0",
         "recipe.restarts=0", "task.window=14")  # fmt: skip
PICTURES = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "imagenet"},
}
RICH = ("cells_per_stage=1", "channels=2", "epochs=3", "workers=2..3", "task.image_shape=[3,32,32]", "recipe.batch=16",
        "recipe.auxiliary_weight=0", "recipe.dropout=0.1", "recipe.drop_path_keep=0.9")  # fmt: skip


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setattr(together, "_LOOK_SECONDS", 0.05)
    if not ray.is_initialized():
        options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
        ray.init(address="local", num_cpus=2, object_store_memory=80 * 2**20, namespace="test", **options)


def _state(folder, row):
    return unpack((folder / row["checkpoint"]).read_bytes(), "")[1]


def test_two_workers_learn_what_one_does(two_cpus, tmp_path):
    """Of five columns one has three: without dropout and batch norm nothing differs but the order of sums."""
    config = TrainConfig.make("short_text", TEXT, PLAIN)
    one = train(config, str(tmp_path / "one"), "cell")
    config = TrainConfig.make("short_text", TEXT, (*PLAIN, "workers=2"))
    two = together.train_together(config, str(tmp_path / "two"), "cell")
    assert two["device"] == "2 x cpu"
    assert two["name"] != one["name"]
    assert two["curve"] == pytest.approx(one["curve"], rel=1e-5)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    weights, others = _state(tmp_path / "one", one), _state(tmp_path / "two", two)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class _Waits(together._Work):
    """Says who it is; the first worker waits after its first checkpoint until it may go on."""

    def __call__(self):
        from ray.train import get_context

        place, write = Path(self.url), Finals.write_checkpoint

        def write_and_wait(finals, name, data):
            write(finals, name, data)
            while not (place / "go").exists():
                time.sleep(0.01)

        Finals.write_checkpoint = write_and_wait
        (place / f"worker{get_context().get_world_rank()}").write_text(str(os.getpid()))
        super().__call__()


def _killer(place, steps):
    """A listener that kills a worker of `_Waits` after the first epoch; `steps` gets what it is told."""

    def kill_one(step):
        steps.append(step.done)
        if not (place / "go").exists():
            victim = np.random.default_rng().integers(2)
            os.kill(int((place / f"worker{victim}").read_text()), signal.SIGKILL)
            (place / "go").touch()

    return kill_one


def test_a_worker_that_is_killed_costs_at_most_an_epoch(two_cpus, tmp_path, monkeypatch, caplog):
    """Where there is room for two of `2..3`, they train, draw, decode, and have batch norms of their own."""
    data = made.folders(tmp_path / "imagenet", train=3, val=1)
    config = TrainConfig.make("nao_imagenet", PICTURES, (*RICH, f"task.path={data}"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    row = together.train_together(config, str(whole), "cell")
    broken.mkdir()
    steps = []
    monkeypatch.setattr(together, "_Work", _Waits)
    again = together.train_together(config, str(broken), "cell", listener=_killer(broken, steps))
    assert steps[0] == 1
    assert steps[-1] == 3
    assert "workers were lost" in caplog.text
    assert "on from the end of epoch 1" in caplog.text
    measured = {"wall_seconds", "started_at", "finished_at", "latency_ms_1", "latency_ms_128", "peak_memory_bytes"}
    assert {k: v for k, v in again.items() if k not in measured} == {k: row[k] for k in row if k not in measured}
    before, after = _state(whole, row), _state(broken, again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_workers_with_synchronised_batch_norm_learn_what_one_does_though_one_is_killed(
    two_cpus, tmp_path, monkeypatch
):
    """Augmented, dropped paths and features, auxiliary head; the last batch has five images, for one three of them."""
    what = {**PICTURES, "task": {"name": "synthetic", "per_class": 13}}
    given = ("cells_per_stage=1", "channels=4", "epochs=3", "data=train", "device=cpu", "recipe.batch=16",
             "recipe.lr=0.05", "recipe.crop_padding=1", "recipe.cutout=2", "recipe.dropout=0.2",
             "recipe.drop_path_keep=0.6", "recipe.sync_batch_norm=true")  # fmt: skip
    one = train(TrainConfig.make("nao_cifar10", what, given), str(tmp_path / "one"), "cell")
    place, steps = tmp_path / "two", []
    place.mkdir()
    monkeypatch.setattr(together, "_Work", _Waits)
    config = TrainConfig.make("nao_cifar10", what, (*given, "workers=2"))
    two = together.train_together(config, str(place), "cell", listener=_killer(place, steps))
    assert (steps[0], steps[-1]) == (1, 3)
    assert two["device"] == "2 x cpu"
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    assert two["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-5)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-5)
    weights, others = _state(tmp_path / "one", one), _state(place, two)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)
