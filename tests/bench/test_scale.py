"""How far one driver goes: the arithmetic of busy workers, what is charged to the clock, a small bench end to end."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import _scale_memory as memory
from nao_ray.bench import _scale_virtual as virtual
from nao_ray.bench import scale
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Job

START = VirtualClock.START


def log(rows: list[tuple[str, float, float]]) -> pd.DataFrame:
    """Trials of worker, start and end in seconds."""
    at = [(node, START + timedelta(seconds=a), START + timedelta(seconds=b)) for node, a, b in rows]
    return pd.DataFrame(at, columns=["node", "started_at", "finished_at"])


def test_the_busy_share_is_that_of_the_part_between_startup_and_drain():
    shares = virtual.busy(
        log([("a", 2, 12), ("b", 4, 9), ("b", 10, 24), ("a", 14, 20)]),  # b is idle in 9-10, a in 12-14
        START,
        workers=2,
    )
    assert shares.startup_seconds == 4
    assert shares.steady_seconds == 10
    assert shares.drain_seconds == 10
    assert shares.steady == pytest.approx((10 - 2 + 10 - 1) / 20)
    assert shares.whole == pytest.approx((10 + 6 + 5 + 14) / 48)


def test_workers_that_never_idle_are_busy_all_the_time():
    shares = virtual.busy(log([("a", 0, 5), ("b", 0, 7), ("a", 5, 9), ("b", 7, 8)]), START, workers=2)
    assert shares.steady == 1.0


@pytest.mark.parametrize("rows", [[("a", 0, 5), ("a", 5, 9)], [("a", 0, 5), ("b", 0, 5)]])
def test_too_few_trials_for_a_share_are_refused(rows):
    with pytest.raises(ConfigError, match="2 workers busy; give more"):
        virtual.busy(log(rows), START, workers=2)


class Fake:
    """An executor and a stopwatch: `real` is the time that really went by."""

    capacity = 3

    def __init__(self) -> None:
        self.real = 100.0
        self.waits: list[float] = []

    def submit(self, job: Job) -> None:
        self.real += 7.0  # an evaluation

    def wait(self, timeout=None, wake=()):
        self.real += 1000.0  # the simulation's own
        return []

    def close(self) -> None:
        self.waits.clear()


def test_the_driver_is_charged_for_its_own_time_alone():
    clock, fake, thought = VirtualClock(), Fake(), [0.0]
    driver = virtual.ChargedDriver(fake, clock, lambda: sum(thought), stopwatch=lambda: fake.real)
    fake.real += 50.0
    driver.wait()
    assert clock.seconds() == 0.0, "what was before the first wait is no turn of the loop"
    fake.real += 0.25
    driver.submit(None)
    driver.submit(None)
    fake.real += 4.0
    thought.append(4.0)
    fake.real += 0.5
    driver.wait()
    assert driver.seconds == pytest.approx(0.75)
    assert clock.seconds() == pytest.approx(0.75)
    driver.wait()
    assert driver.seconds == pytest.approx(0.75)


def test_made_up_trainings_last_twenty_minutes_on_average_and_repeat():
    config = RunConfig.model_validate(
        {
            "name": "x",
            "space": "nao_cnn",
            "evaluator": "closed_form",
            "strategy": "random_search",
            "budget": {"trials": 1},
        }
    )
    proposals = config.make_strategy().ask(3000)
    seconds = np.array([virtual.log_normal(Job(proposal=proposal, attempt=1), None) for proposal in proposals])
    assert seconds[5] == virtual.log_normal(Job(proposal=proposals[5], attempt=2), None)
    assert np.log(seconds).std() == pytest.approx(1.0, abs=0.05)
    assert np.log(seconds).mean() == pytest.approx(np.log(1200) - 0.5, abs=0.08)


def test_a_small_bench_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("NAO_RAY_DATA", str(tmp_path))
    sizes = {"workers": 20, "trials": 60, "rounds": 20, "rounds_trials": 60, "strategy": "random_search"}
    result = scale.run("virtual", **{f"virtual.{name}": value for name, value in sizes.items()})
    assert [row[0] for row in result.rows].count("workers busy") == 3
    assert result.rows[-1][2] == "left out: no table in $NAO_RAY_DATA"
    rows = json.loads(json.dumps(result.data))["rows"]
    steady = rows[0]["data"]
    assert steady["trials"] == 60
    assert 0.9 < steady["steady"] <= 1.0, "the strategy takes milliseconds, a training minutes"
    assert steady["whole"] < steady["steady"], "start-up and drain count in all of it"
    assert steady["asks"] > 5
    assert 0 < steady["loop_per_trial"] < 60
    assert "log-normal" in result.table


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ("virtual,speed", {}, "no part 'speed'; known: virtual, real, memory, pool"),
        ("virtual", {"memory.workers": 3}, "expected PART.key with a PART of virtual"),
        ("virtual", {"virtual.worker": 3}, "virtual.worker: no such setting; virtual has workers, trials"),
        ("virtual", {"virtual.workers": 30, "virtual.trials": 30}, "30 workers need more than 30 trials"),
        (
            "virtual",
            {"virtual.workers": "30,40", "virtual.trials": 100},
            "a number of trials for each number of workers",
        ),
        ("virtual", {"virtual.workers": "many"}, "whole numbers from 1 on"),
        ("memory", {"memory.trials": "20,10"}, "ascending numbers"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(parts, settings, message):
    with pytest.raises(ConfigError, match=message):
        scale.run(parts, **settings)


def test_a_part_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(scale, "PARTS", ("virtual", "absent"))
    with pytest.raises(ConfigError, match="this nao_ray has no part 'absent'; leave it out of parts"):
        scale.run("absent")


def test_growth_is_that_since_the_first_look():
    looks = [
        {"trials": 1000.0, "rss": 200 * 2.0**20, "peak": 250 * 2.0**20},
        {"trials": 100_000.0, "rss": 210 * 2.0**20, "peak": 300 * 2.0**20},
    ]
    first, last = memory.rows(looks, "anyone")
    assert first.figure == "200 MB (+0.0%), peak 250 MB (+0.0%)"
    assert last.measurement == "driver's memory at 100,000 trials"
    assert last.figure == "210 MB (+5.0%), peak 300 MB (+20.0%)"


@pytest.mark.ray
def test_memory_is_looked_at_in_a_process_of_its_own():
    first, last = memory.measure("40,80", workers=20)
    assert first.data["trials"] == 40
    assert last.data["trials"] == 80
    assert 50 * 2**20 < first.data["rss"] <= first.data["peak"] < 2**30
    assert last.data["seconds"] > first.data["seconds"]
