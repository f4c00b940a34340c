"""A search that runs is asked through its pool, by commands of another process."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from nao_ray.cli import ask
from nao_ray.config import RunConfig
from nao_ray.errors import Drained, PoolError, RunError
from nao_ray.pool import PoolReader
from nao_ray.service.hosting import asking
from nao_ray.service.hosting.requests import heed_signals
from nao_ray.service.hosting.run import resume, run
from nao_ray.service.jobs import client

CONFIG = """
name: asked
space: nao_cnn_small
evaluator: {name: faulty, sleep_seconds: 0.06}
strategy: random_search
budget: {trials: 60}
workers: {count: 1}
"""


class Driver:
    """A search in this process, beside the test."""

    def __init__(self, pool, *overrides):
        self.pool, self.error = str(pool), None
        self.snapshots = []
        self.config = RunConfig.parse(CONFIG, overrides)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            run(self.config, self.pool, self.snapshots.append, in_process=True)
        except BaseException as error:
            self.error = error

    def wait_for(self, trials):
        end = time.monotonic() + 600
        while not self.snapshots or self.snapshots[-1].done < trials:
            assert self.thread.is_alive(), self.error
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self):
        self.thread.join(600)
        assert not self.thread.is_alive()


def count(pool):
    return len(PoolReader.open(pool).trials(["trial_id"]))


def test_a_changed_budget_holds_for_this_driver_and_the_next_ones(tmp_path):
    pool = tmp_path / "p"
    driver = Driver(pool, "budget.trials=20", "evaluator.sleep_seconds=0.15")
    driver.wait_for(1)
    ask.budget(str(pool), ["trials=24"])
    with pytest.raises(PoolError, match=r"\d+ trials are asked already, more than 2"):
        ask.budget(str(pool), ["trials=2"])
    driver.end()
    assert driver.error is None
    assert count(pool) == 24
    assert run(driver.config, str(pool), in_process=True).done == 24
    assert resume(str(pool), in_process=True).done == 24
    assert resume(str(pool), ("budget.trials=25",), in_process=True).done == 25
    assert PoolReader.open(pool).check() == []
    assert list((pool / "requests").iterdir()) == []
    with pytest.raises(PoolError, match=r"no search runs on .*: nao-ray resume .* --set budget.trials=9 goes on"):
        ask.budget(str(pool), ["trials=9"])


def test_drained_through_its_pool_it_ends_resumable(tmp_path):
    pool = tmp_path / "p"
    driver = Driver(pool)
    driver.wait_for(3)
    assert "no further trial begins" in asking.drain(str(pool), None)
    driver.end()
    assert isinstance(driver.error, Drained)
    log = PoolReader.open(pool).log()
    assert all(trial.attempt == 0 for trial in log if trial.finished_at is None)
    assert resume(str(pool), ("budget.trials=10",), in_process=True).done >= 10


def test_stop_drain_of_a_job_drains_the_search_of_its_pool(tmp_path, call, monkeypatch):
    pool = tmp_path / "p"
    facts = {"status": "RUNNING", "driver_exit_code": None, "message": "", "start_time": 1, "end_time": None}
    facts |= {"entrypoint": "python -m nao_ray", "runtime_env": {}}
    jobs = [
        SimpleNamespace(submission_id=f"{name}-1", metadata=client.describe(name, str(url), detach=False), **facts)
        for name, url in (("asked", pool), ("elsewhere", tmp_path / "q"))
    ]
    ray_client = SimpleNamespace(list_jobs=lambda: jobs)
    monkeypatch.setattr(client, "connect", lambda _: client.Jobs(ray_client, "http://head:8265"))
    driver = Driver(pool)
    driver.wait_for(3)
    refused = call("stop", "elsewhere", "--drain")
    assert refused.code == 2
    assert f"the pool {tmp_path}/q of elsewhere-1 is not seen from here" in refused.err
    assert call("stop", "asked", "--within", "60").code == 2, "a plain stop has no notice"
    assert driver.thread.is_alive()
    done = call("stop", "asked", "--drain", "--within", "60")
    assert (done.code, done.err) == (0, "")
    assert "no further trial begins" in done.out
    assert "in 60 s at the latest" in done.out
    driver.end()
    assert isinstance(driver.error, Drained)
    assert 3 <= count(pool) < 60


def test_a_drained_search_says_so_and_how_to_go_on(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(RunConfig.parse(CONFIG, ("budget.trials=2",)), "p", in_process=True)
    PoolReader.open("p").mailbox.ask({"what": "drain", "seconds": None})
    done = call("resume", "p", "--set", "budget.trials=9", "--in-process")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "nao-ray: drained: nothing further was begun; nao-ray resume p goes on"
    assert count("p") == 2


def test_a_driver_that_does_not_answer_is_asked_no_longer(tmp_path):
    pool = tmp_path / "p"
    driver = Driver(pool, "budget.trials=3", "evaluator.sleep_seconds=1.5")
    driver.wait_for(1)
    with pytest.raises(RunError, match=r"gave no answer within 0.5 s"):
        asking.ask(str(pool), {"what": "cancel", "trial_id": 9}, "", patience=0.5)
    driver.end()
    assert count(pool) == 3
    assert list((pool / "requests").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "notice", "drains"),
    [(signal.SIGTERM, None, False), (signal.SIGTERM, 120.0, True), (signal.SIGUSR1, None, True)],
)
def test_a_signal_with_a_notice_lets_what_runs_end(number, notice, drains):
    with heed_signals(notice) as signals:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        requests = signals.take()
        assert signals.stopped() is not drains
        assert [(request.what, request.seconds) for request in requests] == (
            [("drain", None if notice is None else 0.9 * notice)] if drains else []
        )
        assert signals.take() == []
        if drains:
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.stopped()
