"""Faults of every kind in one real search, and the parts of who injects them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from benchmarks import faults as injection
from benchmarks.faults import KINDS, Fault, Injector, cut_newest, plan
from benchmarks.site import Parts
from nao_ray.bench import chaos
from nao_ray.errors import ConfigError, RunError
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run
from nao_ray.trial import FailureKind


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("forked_site")
def test_a_search_with_every_kind_of_fault_ends_as_an_unbroken_one():
    result = chaos.run(faults=7, trials=24, seed=330)  # of which children fail in all four ways
    assert result.wrong == []
    faults = result.data["faults"]
    assert sorted(faults) == sorted(KINDS)
    others = {
        FailureKind.LOST,
        FailureKind.CANCELLED,
        FailureKind.ENVIRONMENT,
        FailureKind.LIMIT,
    }  # no fault of a trial's
    assert set(result.data["failed"]) == set(FailureKind) - others
    assert result.data["drivers"] == 1 + faults.count("driver") + faults.count("cut")
    assert result.data["attempts"] >= 24 + faults.count("stall")
    recovery = result.data["recovery"]
    assert sum(map(len, recovery.values())) == len(KINDS)
    assert min(recovery["stall"]) > chaos._SILENT - 1  # nobody else works: it was noticed, not waited for
    assert max(recovery["stall"]) < 60


# -- the plan ---------------------------------------------------------------------------------------------


def test_plans_follow_from_the_seed_and_leave_nobody_out():
    assert plan(12, 60, 1, 0) == plan(12, 60, 1, 0) != plan(12, 60, 1, 1)
    for seed in range(20):
        faults = plan(12, 60, 2, seed)
        assert {fault.kind for fault in faults} == set(KINDS)
        moments = [fault.moment for fault in faults]
        assert moments == sorted(moments)
        assert 1 <= moments[0] <= moments[-1] < 60 - 3 * 2
        assert all(0 <= fault.delay < 0.2 and 0 <= fault.size < 1 for fault in faults)
    assert len({fault.kind for seed in range(9) for fault in plan(2, 30, 1, seed)}) > 4


def test_a_hundred_faults_are_spread_over_the_search():
    faults = plan(100, 300, 2, 0)
    assert all(abs(fault.moment - 3 * i) <= 10 for i, fault in enumerate(faults))
    assert {sum(fault.kind == kind for fault in faults) for kind in KINDS} == {14, 15}


def test_more_faults_than_fit_are_refused():
    with pytest.raises(ConfigError, match="20 faults need 48 trials at 1 worker"):
        chaos.run(faults=20, trials=47)


# -- the injector, on processes and files that stand in for a search ----------------------------------------


class Site:
    """A driver, and a node with one worker: processes that wait."""

    def __init__(self, folder: Path) -> None:
        self.pool, self.log, self.processes = folder, [], []
        (folder / "trials").mkdir()
        self.start()
        self.worker = self.new()
        self.output, self.told = None, ""

    def new(self, code: str = "import time; time.sleep(600)") -> psutil.Process:
        self.processes.append(subprocess.Popen([sys.executable, "-c", code]))
        return psutil.Process(self.processes[-1].pid)

    def start(self) -> None:
        self.process = self.new()
        self.log.append("start")

    def kill(self, node: str = "driver") -> None:
        self.log.append(f"kill {node}")

    def said(self, text: str) -> int:
        return self.output.read_text().count(self.told) if self.output else 0

    def join(self) -> None:
        self.log.append("join")

    def newest(self, title: str) -> tuple[str, psutil.Process] | None:
        self.log.append(title)
        return None if self.worker is None else ("node", self.worker)


class Counted:
    """Parts that the test adds: what happened in a trial, and when it was written."""

    def __init__(self) -> None:
        self.there = [("started_at", 0.0, 0.0)]

    def add(self, column: str, written: float = 0.0) -> None:
        self.there.append((column, time.time(), time.time() + written))

    def written_after(self, moment: float, column: str) -> float | None:
        return min((written for what, at, written in self.there if what == column and at > moment), default=None)

    def count(self) -> int:
        return len(self.there)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def injector(site, *faults):
    parts = Counted()
    return Injector(faults, site, site, parts), parts


def test_a_fault_waits_for_its_moment_its_delay_and_for_the_last_one_to_be_over(site):
    made, parts = injector(site, Fault("driver", 2, 0.0, 0), Fault("driver", 2, 0.2, 0))
    made.step()
    assert made.struck == []
    parts.add("started_at")
    made.step()
    assert site.log == ["start", "kill driver", "start"]
    parts.add("asked_at")  # of a trial that ran already
    made.step()
    assert made.waiting == 1
    assert made.struck[0].seconds is None
    parts.add("started_at", written=3)
    made.step()
    assert 3 <= made.struck[0].seconds < 5
    assert made.waiting == 1
    time.sleep(0.25)
    made.step()
    assert made.waiting == 0


def test_a_controller_is_back_when_something_was_asked_of_it(site):
    made, parts = injector(site, Fault("controller", 1, 0.0, 0))
    made.step()
    parts.add("started_at")  # asked before
    made.step()
    assert made.struck[0].seconds is None
    parts.add("asked_at", written=1)
    made.note_end()
    assert 1 <= made.struck[0].seconds < 3


def test_a_victim_that_is_not_there_is_waited_for(site):
    made, _ = injector(site, Fault("worker", 1, 0.0, 0))
    worker, site.worker = site.worker, None
    made.step()
    assert made.waiting == 1
    site.worker = worker
    made.step()
    assert made.waiting == 0
    assert worker.wait(600) == -9


def test_a_stopped_process_that_nobody_ends_is_told_and_ended(site, monkeypatch):
    monkeypatch.setattr(injection, "_END_SECONDS", 0.2)
    made, _ = injector(site, Fault("stall", 1, 0.0, 0))
    made.step()
    wait(lambda: site.worker.status() == psutil.STATUS_STOPPED)
    assert made.close() == [site.worker.pid]
    assert site.worker.wait(600) == -9


def test_a_node_comes_back_later(site, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(injection.time, "monotonic", lambda: now[0])
    made, _ = injector(site, Fault("node", 1, 0.0, 0.5))
    made.step()
    assert site.log[-1] == "kill node"
    now[0] = 2.9
    made.step()
    assert "join" not in site.log
    now[0] = 3.1
    made.step()
    made.step()
    assert site.log.count("join") == 1


_WRITER = """
import time
with open({path!r}, "wb", buffering=0) as file:
    while True:
        try:
            file.seek(2000)
            file.write(b"x")
        except OSError as error:
            print(error.errno, flush=True)
        time.sleep(0.01)
"""


def test_a_full_disk_fails_writes_until_it_is_free_again(site, tmp_path, monkeypatch):
    file, output = tmp_path / "file", tmp_path / "output"
    with output.open("wb") as log:
        writer = subprocess.Popen([sys.executable, "-c", _WRITER.format(path=str(file))], stdout=log)
    site.processes.append(writer)
    site.process = writer
    site.output, site.told = output, "27"  # EFBIG
    made, _ = injector(site, Fault("disk", 1, 0.0, 0.0))
    wait(file.exists)
    made.step()
    wait(lambda: output.stat().st_size)
    made.close()  # or the time that it lasts is over
    assert made.problems == []
    before = psutil.Process(writer.pid).rlimit(psutil.RLIMIT_FSIZE)
    assert before[0] == psutil.RLIM_INFINITY
    wait(lambda: file.stat().st_size == 2001)


def test_a_disk_is_full_until_a_write_fails(site, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(injection.time, "monotonic", lambda: now[0])
    site.output, site.told = tmp_path / "output", "trying again"
    site.output.touch()
    process = psutil.Process(site.process.pid)
    made, _ = injector(site, Fault("disk", 1, 0.0, 0.0))
    made.step()
    for now[0] in (2.0, 4.0):
        made.step()
        assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == injection._FULL
    site.output.write_text("trying again for 60 s")
    now[0] = 6.0
    made.step()
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == psutil.RLIM_INFINITY
    assert made.problems == []


def test_a_full_disk_that_no_write_has_met_is_told(site, tmp_path):
    made, _ = injector(site, Fault("disk", 1, 0.0, 0.0))
    made.step()
    made.close()
    assert made.problems == ["the disk was full, and no write failed"]


def wait(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- a cut part, without Ray ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A pool of 20 trials, asked one at a time, and its config."""
    config = chaos._config(20, 1, 1, "regularized_evolution", 0, 0)
    settings = {**config.evaluator.settings, "hang_share": 0}
    config = config.model_copy(update={"evaluator": config.evaluator.model_copy(update=settings)})
    pool = tmp_path_factory.mktemp("whole") / "pool"
    run(config, str(pool), in_process=True)
    return SimpleNamespace(config=config, pool=pool)


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("folder", ["trials", "events"])
def test_a_search_whose_newest_part_was_cut_ends_as_an_unbroken_one(searched, tmp_path, folder, left):
    """Also with the next trial asked already, as a driver that is killed leaves it: its last rows are taken away."""
    for finished, asked in ((8, 8), (8, 9), (20, 20)):
        torn = tmp_path / f"{finished}-{asked}"
        shutil.copytree(searched.pool, torn)
        rewind(torn, finished, asked)
        parts = Parts(torn)
        assert parts.count() == finished
        name = cut_newest(torn / folder, left)
        assert Parts(torn).count() == finished - (folder == "trials")
        run(searched.config, str(torn), in_process=True)
        assert chaos.differences(searched.config, torn, searched.pool) == []
        (problem,) = PoolReader.open(torn).check()
        assert problem == f"1 damaged parts are in quarantine/: {folder}-{name}"


def test_parts_tell_when_a_trial_came_that_started_later(searched):
    parts = Parts(searched.pool)
    frame = PoolReader.open(searched.pool).trials(["trial_id", "asked_at", "started_at"]).set_index("trial_id")
    for column in ("asked_at", "started_at"):
        times = [moment.timestamp() for moment in frame[column]]
        assert parts.written_after(times[-1], column) is None
        written = [parts.written_after(moment - 1e-5, column) for moment in times]
        assert written == sorted(written)
        assert all(-0.01 < after - moment < 5 for after, moment in zip(written, times, strict=True))
        assert written[0] < written[-1]


def test_a_search_that_learns_from_no_trial_proves_nothing(searched, tmp_path):
    chaos._children(PoolReader.open(searched.pool), "regularized_evolution", 20)
    config = chaos._config(12, 1, 1, "random_search", 0, 0)
    config = config.model_copy(update={"evaluator": searched.config.evaluator})
    run(config, str(tmp_path / "pool"), in_process=True)
    pool = PoolReader.open(tmp_path / "pool")
    with pytest.raises(RunError, match="random_search made no proposal of 12 from an earlier trial"):
        chaos._children(pool, "random_search", 12)


def test_kinds_of_children_that_are_missing_are_told(searched):
    pool = PoolReader.open(searched.pool)
    assert chaos._children(pool, "regularized_evolution", 99) == []
    (note,) = chaos._children(pool, "regularized_evolution", 100)
    assert "timeout" in note  # none of them hangs


def test_kinds_that_never_struck_and_a_fault_without_recovery_are_told(searched):
    struck = [chaos.Struck(Fault(kind, 1, 0, 0), 0.0, 2.0) for kind in KINDS[1:]]
    course = chaos.Course(struck=struck, drivers=1, seconds=1, problems=["process 7 still is there"])
    pool = PoolReader.open(searched.pool)
    assert chaos._problems(pool, course, 7) == ["process 7 still is there", "no fault was a driver"]
    assert chaos._problems(pool, course, 6) == ["process 7 still is there"]
    assert chaos._row("cut", [*struck, chaos.Struck(Fault("cut", 2, 0, 0), 0.0)], [2.0]) == ["cut", 2, 2.0, 2.0]
    assert chaos._row("cut", struck, []) == ["cut", 1, "", ""]


def rewind(pool, finished, asked):
    """Remove what was written after so many trials had finished and so many were asked: a part each."""
    trials = sorted(path for path in (pool / "trials").glob("*.parquet"))[1:]  # the first is empty
    events = sorted((pool / "events").glob("*.parquet"))
    assert (len(trials), len(events)) == (20, 20)  # a proposal and its attempt together
    for path in [*trials[finished:], *events[asked:]]:
        os.remove(path)


def test_what_is_missing_doubled_or_different_is_told(searched, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(searched.pool, torn)
    parts = sorted((torn / "trials").glob("*.parquet"))
    shutil.copy(parts[3], torn / "trials" / "z.parquet")
    os.remove(parts[-1])
    wrong = chaos.differences(searched.config, torn, None)
    assert wrong[:2] == ["trial 2 is there 2 times", "trial 19 is missing"]
    assert wrong[2].startswith("trial 19: None None, alone 0.")
    assert len(wrong) == 3
    shutil.copy(parts[4], torn / "trials" / "y.parquet")
    again = chaos.differences(searched.config, torn, searched.pool)  # joined by id, not by place
    assert again == ["trial 2 is there 2 times", "trial 3 is there 2 times", "trial 19 is missing"]
    shorter = searched.config.model_copy(update={"budget": searched.config.budget.model_copy(update={"trials": 19})})
    assert "unbroken: trial 19 is beyond the budget" in chaos.differences(shorter, torn, searched.pool)
    frame = pd.read_parquet(parts[-2]).drop(columns="num_params")
    for path in (torn / "trials").glob("*.parquet"):
        path.unlink()
    frame.to_parquet(torn / "trials" / "0.parquet")
    assert "only one of the pools has the columns num_params" in chaos.differences(searched.config, torn, searched.pool)
    other = searched.config.model_copy(
        update={"evaluator": searched.config.evaluator.model_copy(update={"noise": 0.5})}
    )
    assert len(chaos.differences(other, searched.pool, None)) > 10
