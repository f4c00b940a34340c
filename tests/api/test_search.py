"""`start` and its handle: what is raised here, what goes on without us, what is asked of it and what is answered."""

import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest

import nao_ray
from nao_ray.api import drivers
from nao_ray.api.drivers import Ended
from nao_ray.config import RunConfig
from nao_ray.errors import ClusterError, ConfigError, DataError, InputError, PoolError, RunError
from nao_ray.service.jobs import client as jobs

CONFIG = {
    "name": "beside",
    "space": "nao_cnn_small",
    "evaluator": {"name": "faulty", "sleep_seconds": 0.3},
    "strategy": "random_search",
    "budget": {"trials": 400},
    "workers": {"count": 1},
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Nothing is written where the tests are, and no driver is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drivers.Process, "_started", {})
    yield
    for driver in drivers.Process._started.values():
        if driver.ended() is None:
            driver._process.kill()
        driver._process.wait()


def test_a_search_runs_beside_and_hears_what_is_asked_of_it(monkeypatch):
    search = nao_ray.start(CONFIG, "pool", settings={"budget.trials": 300}, in_process=True)
    assert not search.is_over
    with pytest.raises(PoolError, match=r"is being searched already: nao_ray\.Search"):
        nao_ray.start(CONFIG, "pool", in_process=True)
    news = search.pool.watch(["trial_id"], every=0.1)
    seen = next(news)["trial_id"].tolist()
    assert (search.state, nao_ray.Search("pool").state) == ("running", "running")
    assert search.wait(timeout=0.01) == "running"

    def interrupt(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search.wait()
    assert search.state == "running"
    assert search.set_budget(trials=200) == "the budget is now 200 trials"
    with pytest.raises(PoolError, match="trial 0 is not open"):
        search.cancel(0)
    assert "no further trial begins" in nao_ray.Search("pool").stop()
    seen += [trial_id for new in news for trial_id in new["trial_id"]]  # ends with the search
    assert (search.wait(), search.state, nao_ray.Search("pool").state) == ("stopped", "stopped", "stopped")
    assert seen == search.pool.trials()["trial_id"].tolist() == list(range(len(seen)))
    assert "drained" in search.log()
    assert repr(search).startswith("<Search stopped: <Pool ")
    assert "<b>stopped</b>" in search._repr_html_()
    again = nao_ray.start(CONFIG, "pool", settings=[f"budget.trials={len(seen) + 1}"], in_process=True)
    assert again.wait() == "done"
    assert len(again.pool.trials()) == len(seen) + 1
    with pytest.raises(PoolError, match="no search runs on"):
        again.stop()


def test_what_is_wrong_is_raised_here_and_nothing_is_made(tmp_path, monkeypatch):
    wrong = [
        ({"config": "no such"}, ConfigError, "no preset of that name"),
        ({"settings": {"evaluator.epoch": 3}}, ConfigError, "unknown key evaluator.epoch"),
        ({"config": {"name": "x"}}, ConfigError, "the config: .*missing"),
        ({"config": {"name": object()}}, ConfigError, "what no YAML can"),
        ({"config": "fashion_mnist_small", "settings": {"task.folder": str(tmp_path / "none")}}, DataError, "none"),
        ({"address": "127.0.0.1:1"}, ClusterError, "nothing answers"),
        ({"in_process": True, "address": "auto"}, ConfigError, "without Ray"),
        ({"pool": " "}, ConfigError, "empty"),
    ]
    monkeypatch.setattr("nao_ray.service.hosting.cluster._KNOCK_SECONDS", 0.1)
    for arguments, kind, what in wrong:
        with pytest.raises(kind, match=what):
            nao_ray.start(**{"config": CONFIG, **arguments})
    assert list(tmp_path.iterdir()) == []
    with nao_ray.Study("nao_cnn_small", "random_search", "told"), pytest.raises(InputError):
        nao_ray.start(CONFIG, "told", in_process=True)
    assert drivers.Process._started == {}


class Stub:
    """A driver that says what it is told to."""

    def __init__(self, *ends):
        self.ends, self.is_told = list(ends), False

    def ended(self):
        return self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]

    def log(self):
        return ""

    def end(self):
        self.is_told = True
        self.ends = [Ended(130, "stopped")]
        return "told"


def test_how_its_driver_ended_is_what_wait_gives(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert nao_ray.Search("none", _driver=Stub(None, None, Ended(0, ""))).wait() == "done"
    assert nao_ray.Search("none", _driver=Stub(Ended(130, "drained"))).wait() == "stopped"
    for code, kind in ((1, RunError), (2, InputError)):
        search = nao_ray.Search("none", _driver=Stub(None, Ended(code, "what went wrong")))
        with pytest.raises(kind, match="what went wrong"):
            search.wait()
        assert search.state == "failed"


@pytest.mark.parametrize(
    ("name", "hint"), [("nope", r"start\(CONFIG\)"), ("smoke", r"is a preset: nao_ray.start\('smoke'\)")]
)
def test_a_handle_of_no_pool_is_refused(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PoolError, match=f"there is no pool at .*{name}; .*{hint}"):
        nao_ray.Search(name)


def test_one_that_does_not_hear_yet_is_ended():
    stub = Stub(None)
    search = nao_ray.Search("none", _driver=stub)
    assert (search.state, search.stop(), stub.is_told, search.state) == ("starting", "told", True, "stopped")


def test_a_driver_that_dies_is_told_with_its_last_words(monkeypatch):
    arguments = ["config.yaml", "--set", "evaluator.epoch=3"]
    text = RunConfig.parse("\n".join(f"{name}: {value!r}" for name, value in CONFIG.items())).to_yaml()
    driver = drivers.Process("pool", arguments, text, None)
    driver._process.wait()
    ended = driver.ended()
    assert ended.code == 2
    assert ended.message.startswith("--set evaluator.epoch=3: unknown key")
    driver._process.returncode = -signal.SIGKILL
    assert driver.ended().message.startswith("the driver was killed by signal 9; it last said: --set")


def test_at_a_dashboard_it_is_a_job(monkeypatch, tmp_path):
    handed, told = [], []

    class Jobs:
        address = "http://head:8265"

        def nodes(self):
            return ["10.0.0.1"]

        def submit(self, name, command, archive, about, variables):
            handed.append((command, about, variables))
            return f"{name}-1"

        def find(self, job_id):
            told.append(job_id)
            status, code = ("PENDING", None) if len(told) < 2 else ("FAILED", 2)
            facts = dict.fromkeys((each.name for each in fields(jobs.JobView)), None)
            return jobs.JobView(**{**facts, "job_id": job_id, "status": status, "exit_code": code, "message": ""})

        def log(self, job_id):
            return "some\nnao-ray: what is wrong\n"

    monkeypatch.setattr(jobs, "connect", lambda address: Jobs())
    search = nao_ray.start(CONFIG, tmp_path / "pool", address="http://head:8265", detach=True)
    ((command, about, variables),) = handed
    assert command.startswith(f"python -m nao_ray search beside.yaml --pool {tmp_path}/pool ")
    assert command.endswith(" --detach")
    assert (about["pool"], variables) == (f"{tmp_path}/pool", {})  # no command hands a mapping in again
    assert search.state == "running"  # of a pool that is not seen from here no more is known
    with pytest.raises(InputError, match="what is wrong"):
        search.wait()


@pytest.mark.slow
@pytest.mark.ray
def test_it_outlives_whoever_started_it_on_a_ray_of_its_own(tmp_path):
    program = f"import nao_ray; nao_ray.start({CONFIG!r}, 'pool', settings={{'budget.trials': 3}})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
    search = nao_ray.Search("pool")
    end = time.monotonic() + 600
    while search.pool.status().finished < 3 or not search.is_over:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert search.wait() == "done"
    assert search.pool.trials()["node"].notna().all()
    assert search.pool.check() == []
