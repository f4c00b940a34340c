"""From config to pool in this process: what is refused, what is resumed, who may write."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import _forks
import pandas as pd
import pytest
import yaml

from nao_ray import rng
from nao_ray.bench.chaos import differences
from nao_ray.config import RunConfig, Workers
from nao_ray.errors import ClusterError, ConfigError, DataError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.service.hosting import cluster
from nao_ray.service.hosting.checks import check_search
from nao_ray.service.hosting.manifest import storage_id
from nao_ray.service.hosting.run import Takeover, resume, run
from nao_ray.strategies.base import Strategy
from nao_ray.tasks.synthetic import Synthetic

CONFIG = """
name: quick
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, noise: 0.02, error_share: 0.1, nan_share: 0.1}
strategy: {name: regularized_evolution, population: 8, sample: 4}
budget: {trials: 30}
workers: {count: 1}
"""


def config(*overrides):
    return RunConfig.parse(CONFIG, overrides)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    pool = tmp_path_factory.mktemp("run") / "unbroken"
    run(config(), str(pool), in_process=True)
    return pool


def test_a_run_fills_a_pool_and_says_what_came_of_it(unbroken):
    frame = pd.read_parquet(unbroken / "trials")
    assert sorted(frame["trial_id"]) == list(range(30))
    manifest = yaml.safe_load((unbroken / "run.yaml").read_text())
    assert manifest["config"] == yaml.safe_load(config().to_yaml())
    assert manifest["data_hash"] == config().make_task().data_hash()
    assert {"torch", "ray", "pyarrow"} <= set(manifest["packages"])
    assert manifest["revision"] is None or len(manifest["revision"].removesuffix("-dirty")) == 40


def test_a_device_that_no_worker_would_be_given_is_refused_before_a_pool_is_made(tmp_path):
    wanted = ("evaluator={name: standalone, device: cuda, epochs: 1, channels: 4, cells_per_stage: 1}",)
    with pytest.raises(
        ConfigError, match=r"evaluator\.device is cuda, and workers\.gpus is 0.*: set workers\.gpus"
    ) as e:
        run(config(*wanted), str(tmp_path / "p"))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("space", "task", "message"),
    [
        ("nao_cnn_small", "made_up_text", "nao makes networks for images, and the task has none"),
    ],
)
def test_a_space_that_has_no_network_for_the_task_is_refused_before_a_pool_is_made(tmp_path, space, task, message):
    evaluator = {"name": "standalone", "cells_per_stage": 1, "channels": 4, "epochs": 1, "recipe": "short"}
    what = {"name": "none", "space": space, "task": task, "evaluator": evaluator}
    with pytest.raises(ConfigError, match=message):
        run(RunConfig(**what, strategy="random_search", budget={"trials": 2}), str(tmp_path / "pool"), in_process=True)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("planned", [7, None])
def test_a_pool_records_what_the_strategy_planned_at_the_start(tmp_path, monkeypatch, planned):
    monkeypatch.setattr(Strategy, "planned", property(lambda _: planned))
    run(config("budget.trials=9"), str(tmp_path / "p"), in_process=True)
    monkeypatch.setattr(Strategy, "planned", property(lambda _: 8))
    resume(str(tmp_path / "p"), in_process=True)
    assert PoolReader.open(tmp_path / "p").manifest["planned"] == planned


def test_the_summary_counts_and_ranks(tmp_path):
    seen = []
    summary = run(config("budget.trials=12"), str(tmp_path / "p"), seen.append, in_process=True)
    assert summary.done + summary.failed == 12
    assert summary.failed == PoolReader.open(tmp_path / "p").counts().failed > 0
    assert summary.best["valid_accuracy"].is_monotonic_decreasing
    assert seen[-1].best_trial_id == summary.best["trial_id"].iloc[0]
    assert seen[-1].eta_seconds == 0


def test_the_same_command_again_changes_nothing_and_more_budget_goes_on(tmp_path, unbroken):
    pool = tmp_path / "p"
    run(config("budget.trials=11"), str(pool), in_process=True)
    before = (pool / "run.yaml").read_text()
    assert run(config("budget.trials=11"), str(pool), in_process=True).done > 0
    assert len(PoolReader.open(pool).trials(["trial_id"])) == 11
    run(config("budget.trials=17", "workers.cpus=2"), str(pool), in_process=True)
    resume(str(pool), ("budget.trials=30",), in_process=True)
    assert differences(config(), pool, unbroken) == []
    assert (pool / "run.yaml").read_text() == before


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("seed=1", r"seed was 0, is 1"),
        ("evaluator.noise=0.5", r"evaluator\.noise was 0\.02, is 0\.5"),
        ("strategy=random_search", r"strategy\.name was 'regularized_evolution', is 'random_search'"),
        ("space=nao_cnn", r"space\.name"),
    ],
)
def test_another_search_is_refused_by_name(unbroken, override, names):
    with pytest.raises(PoolError, match=names):
        run(config(override), str(unbroken), in_process=True)
    with pytest.raises(PoolError, match=names):
        resume(str(unbroken), (override,), in_process=True)


def test_other_data_are_refused(unbroken, monkeypatch):
    monkeypatch.setattr(Synthetic, "data_hash", lambda _: "f00")
    with pytest.raises(PoolError, match=r"was searched on other data.* now f00"):
        run(config(), str(unbroken), in_process=True)


def test_bad_input_is_refused_before_anything_is_made(tmp_path):
    pool = tmp_path / "p"
    with pytest.raises(DataError, match="/nowhere"):
        run(config("task={name: image_table, path: /nowhere}"), str(pool), in_process=True)
    with pytest.raises(ConfigError, match="strategy"):
        run(config("strategy.nonsense=1"), str(pool), in_process=True)
    with pytest.raises(PoolError, match="there is no pool at"):
        resume(str(pool), in_process=True)
    assert not pool.exists()


def test_the_comparison_of_pools_sees_what_is_wrong(tmp_path, unbroken):
    pool = tmp_path / "p"
    run(config("budget.trials=29", "seed=0"), str(pool), in_process=True)
    assert differences(config(), pool, unbroken) == ["trial 29 is missing"]
    assert differences(config("budget.trials=29"), pool, None) == []
    part = sorted((pool / "trials").glob("*.parquet"))[-1]
    frame = pd.read_parquet(part)
    frame.loc[:, "valid_accuracy"] = 0.123
    frame.loc[:, "state"] = "COMPLETED"
    frame.to_parquet(part)
    assert any("valid_accuracy" in line for line in differences(config(), pool, unbroken))
    assert differences(config("budget.trials=29"), pool, None)
    frame.to_parquet(pool / "trials" / "twice.parquet")
    assert any("is there 2 times" in line for line in differences(config(), pool, unbroken))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:8265"])
def test_without_a_cluster_nothing_is_made_and_no_lease_is_taken(tmp_path, monkeypatch, address):
    pool = tmp_path / "p"
    run(config("budget.trials=3"), str(tmp_path / "other"), in_process=True)
    before = (tmp_path / "other" / "lease" / "holder.json").read_bytes()
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(cluster, "_KNOCK_SECONDS", 0.2)
    with pytest.raises(ClusterError, match=rf"RAY_ADDRESS {address}"):
        run(config(), str(pool))
    with pytest.raises(ClusterError, match=rf"RAY_ADDRESS {address}"):
        resume(str(tmp_path / "other"), ("budget.trials=4",))
    assert not pool.exists()
    assert (tmp_path / "other" / "lease" / "holder.json").read_bytes() == before


def test_a_machine_that_is_too_small_leaves_no_pool_behind(tmp_path, monkeypatch):
    """It would refuse the settings that do fit."""
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    with pytest.raises(ConfigError, match=r"workers\.gpus is 1, and this machine has 0"):
        run(config("workers.gpus=1"), str(tmp_path / "p"))
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("folder", "made_as", "told"),
    [("missing", "f00", "there is none"), ("unbroken", "f00", "another one is there")],
)
def test_a_pool_that_another_machine_has_made_is_not_made_anew(tmp_path, unbroken, folder, made_as, told):
    place = tmp_path / "p" if folder == "missing" else unbroken
    with pytest.raises(PoolError, match=f"is not on all machines: on .* {told} where"):
        run(config(), str(place), in_process=True, takeover=Takeover(made_as=made_as))
    assert not (tmp_path / "p").exists()


def test_a_pool_is_known_by_what_was_drawn_when_it_was_made(tmp_path, unbroken):
    manifest = PoolReader.open(unbroken).manifest
    assert len(storage_id(manifest)) == 16
    run(config(), str(unbroken), in_process=True, takeover=Takeover(made_as=storage_id(manifest)))
    del manifest["storage_id"]
    assert storage_id(manifest) == manifest["created_at"], "of a pool that an earlier version made"


@pytest.mark.parametrize(
    ("override", "warned"),
    [
        ("strategy={name: nao, seeds: 5, round_size: 2}", "budget.trials 5: the first 5 that nao asks are random"),
        ("strategy={name: regularized_evolution, population: 9, sample: 2}", "budget.trials 5: the first 9"),
        ("strategy={name: nao, seeds: 3, round_size: 2}", None),
        ("strategy=random_search", None),
    ],
)
def test_a_budget_that_the_random_start_uses_up_is_told(tmp_path, caplog, override, warned):
    check_search(config(override, "budget.trials=5"), str(tmp_path / "p"))
    said = [line for line in caplog.messages if "random search" in line]
    assert len(said) == (warned is not None)
    assert warned is None or said[0].startswith(warned)
    assert not (tmp_path / "p").exists()


def test_what_means_nothing_in_process_is_told(tmp_path, caplog):
    changed = config("workers={count: 3, gpus: auto, max_attempts: 2, timeout_seconds: 9}", "budget.trials=1")
    run(changed, str(tmp_path / "p"), in_process=True)
    assert caplog.messages[-1] == "--in-process ignores workers.count 3, workers.gpus auto, workers.timeout_seconds 9.0"


def test_a_second_driver_is_refused(tmp_path):
    refused = []

    def second(_):
        if not refused:
            with pytest.raises(PoolError, match=f"has a driver: pid {os.getpid()} on ") as caught:
                run(config(), str(tmp_path / "p"), in_process=True)
            refused.append(caught)

    run(config("budget.trials=3"), str(tmp_path / "p"), second, in_process=True)
    assert refused


SMALL_RAY = str(Path(__file__).parents[2] / "_small_ray.py")
DRIVER = """
import sys
from functools import partialmethod
from nao_ray.config import RunConfig
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service.hosting.run import run
exec(open(sys.argv.pop(1)).read())
make_small()
PoolWriter.acquire = partialmethod(PoolWriter.acquire, expiry=1.0)  # seconds until a silent driver counts as dead
run(RunConfig.load(sys.argv[1]), sys.argv[2], in_process=len(sys.argv) > 3)
"""


def start_driver(tmp_path, *words, overrides=(), env=None):
    file = tmp_path / "config.yaml"
    file.write_text(config(*overrides).to_yaml())
    return _forks.Popen(
        [sys.executable, "-c", DRIVER, SMALL_RAY, str(file), str(tmp_path / "p"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def wait_for(tmp_path, trials, driver, seconds=600.0):
    end = time.monotonic() + seconds
    while not PoolReader.exists(tmp_path / "p") or len(PoolReader.open(tmp_path / "p").trials(["trial_id"])) < trials:
        assert driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.15)


def each_once(tmp_path):
    return Counter(pd.read_parquet(tmp_path / "p" / "trials")["trial_id"]) == Counter(range(30))


def test_a_frozen_driver_that_wakes_up_after_a_takeover_writes_nothing_more(tmp_path, unbroken):
    driver = start_driver(tmp_path, "in process", overrides=["evaluator.sleep_seconds=0.1"])
    wait_for(tmp_path, 3, driver)
    driver.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    resume(str(tmp_path / "p"), in_process=True)
    assert each_once(tmp_path)
    driver.send_signal(signal.SIGCONT)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 1
    assert "FencedError" in said
    assert differences(config(), tmp_path / "p", unbroken) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_resumable_pool(tmp_path, unbroken, number):
    driver = start_driver(tmp_path, "in process", overrides=["evaluator.sleep_seconds=0.1"])
    wait_for(tmp_path, 3, driver)
    driver.send_signal(number)
    _, said = driver.communicate(timeout=600)
    assert "KeyboardInterrupt" in said
    resume(str(tmp_path / "p"), in_process=True)
    assert differences(config(), tmp_path / "p", unbroken) == []


def test_gpus_that_no_worker_is_given_are_told_of(monkeypatch, caplog):
    nodes = [{"Alive": alive, "Resources": {"CPU": 8.0, "GPU": 4.0}} for alive in (True, False)]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    cluster.tell_of_idle_gpus(Workers(gpus=1))
    assert not caplog.messages
    cluster.tell_of_idle_gpus(Workers())
    assert caplog.messages == [
        "workers.gpus is 0, so all is computed on CPUs, and the GPUs (4) idle: set it to 1, or auto"
    ]


def test_a_worker_that_no_machine_holds_is_refused_here_and_awaited_on_a_cluster(monkeypatch, caplog):
    node = {"Alive": True, "Resources": {"CPU": 2.0}}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [node])
    for override in ("workers.gpus=1", "workers.cpus=3"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            cluster._check_room(config(override).workers, is_local=True)
        cluster._check_room(config(override).workers, is_local=False)
        assert "waiting for the cluster to grow" in caplog.messages[-1]
    cluster._check_room(config().workers, is_local=True)


def test_the_token_of_a_local_ray_is_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster.make_token()  # the tests run without authentication
    assert not (tmp_path / ".ray").exists()
    monkeypatch.delenv("RAY_AUTH_MODE")
    cluster.make_token()
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    text = token.read_text()
    assert len(text) == 64
    cluster.make_token()
    assert token.read_text() == text


def test_a_search_on_a_table_needs_no_task_and_pins_the_table(tmp_path):
    table = tmp_path / "table.csv"
    space = config("space=nas_bench_201").make_space()
    cells = [space.sample(rng.child(0, "cells", k)).key for k in range(400)]
    frame = pd.DataFrame({"arch_str": list(dict.fromkeys(cells))})
    frame["accuracy"] = [50.0 + row / 10 for row in range(len(frame))]
    frame.to_csv(table, index=False)
    text = f"""
name: table
space: nas_bench_201
evaluator: {{name: tabular, path: {table}, valid: accuracy, partial: true}}
strategy: random_search
budget: {{trials: 5}}
"""
    pool = tmp_path / "p"
    run(RunConfig.parse(text), str(pool), in_process=True)
    rows = pd.read_parquet(pool / "trials")
    assert set(rows["state"]) <= {"COMPLETED", "FAILED"}
    assert rows["task"].isna().all()
    manifest = yaml.safe_load((pool / "run.yaml").read_text())
    assert manifest["data_hash"] == hashlib.sha256(table.read_bytes()).hexdigest()
    resume(str(pool), ("budget.trials=6",), in_process=True)
    assert len(PoolReader.open(pool).trials(["trial_id"])) == 6
    table.write_text(table.read_text() + "\n")
    with pytest.raises(PoolError, match="was searched on other data"):
        resume(str(pool), in_process=True)
    table.write_text("arch_str,score\n")
    with pytest.raises(DataError, match="no column accuracy"):
        resume(str(pool), in_process=True)
