"""The same on Ray: failures of every kind, signals, and nothing on the terminal that is not ours."""

import os
import signal
from collections import Counter

import psutil
import pytest
import ray
from test_run import config, each_once, start_driver, wait_for

from nao_ray.bench.chaos import differences
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import resume, run

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


@pytest.mark.slow
def test_a_signal_ends_the_driver_and_its_ray_and_leaves_a_resumable_pool(tmp_path):
    driver = start_driver(tmp_path, overrides=["evaluator.sleep_seconds=0.2"])
    wait_for(tmp_path, 3, driver)
    children = psutil.Process(driver.pid).children(recursive=True)
    assert children
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=30)
    assert "KeyboardInterrupt" in said
    assert not psutil.wait_procs(children, timeout=10)[1]
    resume(str(tmp_path / "p"), in_process=True)
    assert each_once(tmp_path)


@pytest.mark.slow
def test_ray_says_nothing_on_the_terminal_even_when_a_worker_dies(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | {"HOME": str(tmp_path)}
    driver = start_driver(tmp_path, overrides=["evaluator.sleep_seconds=0.2"], env=env)
    wait_for(tmp_path, 3, driver)
    worker = next(p for p in psutil.Process(driver.pid).children(recursive=True) if "EvaluatorActor" in p.name())
    worker.kill()
    out, said = driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert out == ""
    assert said.splitlines() == [
        line for line in said.splitlines() if line.startswith("trial ") and " lost on " in line
    ]
    assert len(said.splitlines()) == 1
    assert each_once(tmp_path)
