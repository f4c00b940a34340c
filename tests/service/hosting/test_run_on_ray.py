"""The same on Ray: failures of every kind, signals, and nothing on the terminal that is not ours."""

import json
import os
import signal
import time
from collections import Counter
from contextlib import contextmanager

import _forks
import pandas as pd
import psutil
import pytest
import ray
import torch
from test_run import config, each_once, start_driver, wait_for

from nao_ray.bench.chaos import differences
from nao_ray.config import RunConfig
from nao_ray.own_modules import looking_in
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import resume, run
from nao_ray.training.checkpoint import read_about

pytestmark = pytest.mark.ray


@pytest.mark.usefixtures("ray_local")
def test_one_worker_gives_the_pool_of_a_run_in_this_process(tmp_path):
    run(config(), str(tmp_path / "serial"), in_process=True)
    run(config(), str(tmp_path / "ray"))
    assert differences(config(), tmp_path / "ray", tmp_path / "serial") == []
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_local")
def test_every_kind_of_failure_is_recorded_and_the_search_goes_on(tmp_path):
    overrides = (
        "evaluator={name: faulty, error_share: 0.2, out_of_memory_share: 0.1, nan_share: 0.1, hang_share: 0.1}",
        "workers={count: 3, timeout_seconds: 1.5, max_attempts: 2, retry: [error]}",
        "budget.trials=40",
    )
    summary = run(config(*overrides), str(tmp_path / "p"))
    frame = PoolReader.open(tmp_path / "p").trials().set_index("trial_id")
    kinds = Counter(frame["failure_kind"].dropna())
    assert set(kinds) == {"error", "out_of_memory", "nan", "timeout"}
    assert (summary.done, summary.failed) == (40 - sum(kinds.values()), sum(kinds.values()))
    assert set(frame.loc[frame["failure_kind"] == "error", "attempt"]) == {2}
    assert set(frame.loc[frame["failure_kind"] != "error", "attempt"].dropna()) == {1}
    assert PoolReader.open(tmp_path / "p").check() == []
    resume(str(tmp_path / "p"), retry_failed="nan")  # budget.trials is used up
    again = PoolReader.open(tmp_path / "p").trials()["retry_of"].dropna()
    assert sorted(again) == frame.index[frame["failure_kind"] == "nan"].tolist()
    assert again.index.tolist() == list(range(40, 40 + kinds["nan"]))
    assert PoolReader.open(tmp_path / "p").check() == []


@contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ALPHAS = """
name: alphas
space: darts_cnn
task: {name: synthetic, classes: 2, per_class: 20}
evaluator:
  name: darts
  layers: 1
  channels: 2
  period: 2
  recipe: {name: darts_search, batch: 8, crop_padding: 1, flip: false}
  alone: {layers: 1, channels: 2, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 16}}
strategy: {name: darts, seeds: 2, epochs: 2, order: first, control: 0}
budget: {trials: 100}
workers: {count: 2}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_seeds_of_alphas_run_side_by_side_and_come_to_the_same(tmp_path):
    given = RunConfig.parse(ALPHAS)
    with one_thread():  # as a worker of one CPU has: sums of more differ in their last bit
        run(given, str(tmp_path / "serial"), in_process=True)
    run(given, str(tmp_path / "ray"))
    pools = [PoolReader.open(tmp_path / name) for name in ("serial", "ray")]
    found = []
    for pool in pools:
        assert pool.check() == []
        phases = [trial for trial in pool.log() if trial.proposal.phase]
        found.append({t.proposal.phase.version: (t.derived.key, t.measurement.alphas) for t in phases})
    assert found[0] == found[1]
    assert sorted(found[1]) == ["s0-e00001", "s0-e00002", "s1-e00001", "s1-e00002"]
    first, second = ([t for t in phases if t.proposal.phase.version.startswith(f"s{seed}")] for seed in (0, 1))
    assert max(first[0].started_at, second[0].started_at) < min(first[-1].finished_at, second[-1].finished_at)
    assert pools[1].fits()["seed_index"].dropna().tolist() == [0, 1, 0, 1]
    best = [pool.trials().set_index("genotype")["valid_accuracy"].dropna().to_dict() for pool in pools]
    assert best[0] == best[1]


@pytest.mark.slow
def test_a_signal_ends_the_driver_and_its_ray_and_leaves_a_resumable_pool(tmp_path):
    driver = start_driver(tmp_path, overrides=["evaluator.sleep_seconds=0.2"])
    wait_for(tmp_path, 3, driver)
    children = _forks.descendants(psutil.Process(driver.pid))
    workers = [child for child in children if child.name().startswith("ray::")]
    assert {worker.nice() for worker in workers} == {os.nice(0)}, "they do not starve beside other programs"
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=600)
    assert "KeyboardInterrupt" in said
    assert _forks.wait_for_end(children) == []
    resume(str(tmp_path / "p"), in_process=True)
    assert each_once(tmp_path)


@pytest.mark.slow
def test_ray_says_nothing_on_the_terminal_even_when_a_worker_dies(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | {"HOME": str(tmp_path)}
    driver = start_driver(tmp_path, overrides=["evaluator.sleep_seconds=0.2"], env=env)
    wait_for(tmp_path, 3, driver)
    worker = next(p for p in _forks.descendants(psutil.Process(driver.pid)) if "EvaluatorActor" in p.name())
    worker.kill()
    out, said = driver.communicate(timeout=600)
    assert driver.returncode == 0
    assert out == ""
    assert said.splitlines() == [
        line for line in said.splitlines() if line.startswith("trial ") and " lost on " in line
    ]
    assert len(said.splitlines()) == 1
    assert each_once(tmp_path)


RUNGS = (
    "evaluator={name: standalone, cells_per_stage: 1, channels: 4}",
    "evaluator.recipe={name: short_digits, batch: 24, lr: 0.3}",
    "task={name: synthetic, per_class: 20, noise: 0.2}",
    "strategy=random_search",
    "fidelity={epochs: [1, 2, 4], keep: 0.5}",
    "budget.trials=9",
)


@pytest.mark.usefixtures("ray_local")
def test_a_ladder_is_climbed_to_the_same_end_whoever_dies(tmp_path):
    killed, done = [], [0]

    def look(snapshot):
        done[0] = snapshot.done
        if snapshot.done >= 3 and not killed:
            ours = _forks.descendants(psutil.Process())
            killed.extend(p for p in ours if "EvaluatorActor" in p.name() and p.status() != psutil.STATUS_ZOMBIE)
            for worker in killed:
                worker.kill()

    with pytest.raises(KeyboardInterrupt):
        run(config(*RUNGS), str(tmp_path / "p"), look, stop=lambda: done[0] >= 6)
    assert killed
    resume(str(tmp_path / "p"))
    with one_thread():
        run(config(*RUNGS), str(tmp_path / "unbroken"), in_process=True)
    found, expected = (PoolReader.open(tmp_path / name).trials(rungs=True) for name in ("p", "unbroken"))
    assert found["attempt"].max() == 2
    assert set(found["epochs"]) == {1, 2, 4}
    for name in ("trial_id", "epochs", "genotype", "seed", "valid_loss"):
        assert found[name].tolist() == expected[name].tolist(), name
    assert found["parent_trial_id"].fillna(-1).tolist() == expected["parent_trial_id"].fillna(-1).tolist()
    assert [list(curve) for curve in found["curve"]] == [list(curve) for curve in expected["curve"]]
    frame = pd.read_parquet(tmp_path / "p" / "trials")
    assert not frame["genotype"].duplicated().any()
    assert PoolReader.open(tmp_path / "p").check() == []
    assert list((tmp_path / "p" / "checkpoints").iterdir()) == []


WAITING = """
import json, time
from pathlib import Path
from nao_ray.evaluators.standalone import Standalone
from nao_ray.training.checkpoint import read_about

class Waiting(Standalone):
    def evaluate(self, proposal):
        keep = self.keeper.keep

        def keep_and_wait(proposal, state):
            keep(proposal, state)
            while json.loads(read_about(state))["epochs_done"] >= 3 and not Path("FOLDER/go").exists():
                time.sleep(0.05)

        self.keeper.keep = keep_and_wait
        return super().evaluate(proposal)
"""
LONG = (
    "evaluator={name: standalone, epochs: 6, cells_per_stage: 1, channels: 4}",
    "evaluator.recipe={name: short_digits, batch: 24}",
    "task={name: synthetic, per_class: 20, noise: 0.2}",
    "strategy=random_search",
    "budget.trials=1",
)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_modules")
def test_a_trial_whose_worker_is_killed_goes_on_from_its_last_epoch(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING.replace("FOLDER", str(tmp_path)))
    with looking_in(tmp_path):
        waits = ("evaluator.name=waiting:Waiting", "workers.checkpoint_seconds=0.001")
        driver = start_driver(tmp_path, overrides=[*LONG, *waits])
    state = tmp_path / "p" / "checkpoints" / "000000000.safetensors"

    def wait_until(epochs_done):
        """The state is of so many."""
        end = time.monotonic() + 600
        while not state.exists() or json.loads(read_about(state.read_bytes()))["epochs_done"] != epochs_done:
            assert driver.poll() is None, driver.stderr.read()
            assert time.monotonic() < end, f"no state of {epochs_done} epochs"
            time.sleep(0.05)

    wait_until(3)
    worker = next(p for p in _forks.descendants(psutil.Process(driver.pid)) if "EvaluatorActor" in p.name())
    worker.kill()
    assert _forks.wait_for_end([worker]) == []
    wait_until(4)  # the first state of the second attempt, which waits as the first one did
    (tmp_path / "go").touch()
    driver.communicate(timeout=600)
    assert driver.returncode == 0
    with one_thread():
        run(config(*LONG), str(tmp_path / "unbroken"), in_process=True)
    (row,), (expected,) = (PoolReader.open(tmp_path / name).trials().to_dict("records") for name in ("p", "unbroken"))
    assert row["attempt"] == 2
    assert row["valid_accuracy"] == expected["valid_accuracy"]
    assert row["valid_loss"] == expected["valid_loss"]
    assert list(row["curve"]) == list(expected["curve"])
    assert not state.exists()
