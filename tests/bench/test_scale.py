"""How far one driver goes: the arithmetic of busy workers, what is charged to the clock, a small bench end to end."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import _scale_memory as memory
from nao_ray.bench import _scale_resume as resume
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


def test_the_busy_share_is_that_of_the_part_between_the_first_trials_and_drain():
    shares = virtual.busy(
        log([("a", 2, 8), ("a", 9, 12), ("a", 14, 20), ("b", 4, 9), ("b", 10, 15), ("b", 18, 30)]),
        START,
        workers=2,
    )
    assert shares.startup_seconds == 4
    assert shares.warmup_seconds == 5, "at 9 two trials had ended"
    assert shares.steady_seconds == 9
    assert shares.drain_seconds == 12
    assert shares.steady == pytest.approx((9 - 2 + 9 - 1 - 3) / 18), "a idles in 12-14, b in 9-10 and 15-18"
    assert shares.whole == pytest.approx((6 + 3 + 6 + 5 + 5 + 12) / 60)


def test_workers_that_never_idle_are_busy_all_the_time():
    rows = [("a", 0, 5), ("b", 0, 7), ("a", 5, 9), ("b", 7, 8), ("b", 8, 11), ("a", 9, 10)]
    shares = virtual.busy(log(rows), START, workers=2)
    assert shares.steady == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0, 5), ("a", 5, 9)], "2 trials kept 1 of 2 workers busy; give more"),
        ([("a", 0, 5), ("b", 0, 7), ("a", 5, 9)], "the last of 3 trials began before 2 had ended; give more"),
    ],
)
def test_too_few_trials_for_a_share_are_refused(rows, message):
    with pytest.raises(ConfigError, match=message):
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
    fake.real += 0.25
    driver.submit(None)
    assert clock.seconds() == pytest.approx(0.25), "a job starts after the turn that submits it"
    driver.submit(None)
    fake.real += 4.0
    thought.append(4.0)
    fake.real += 0.5
    driver.wait()
    assert driver.seconds == pytest.approx(0.75)
    assert clock.seconds() == pytest.approx(0.75)
    driver.wait()
    assert driver.seconds == pytest.approx(0.75)
    fake.real += 0.125
    driver.charge()
    assert driver.seconds == pytest.approx(0.875), "what comes after the last wait"


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
    assert 0 < steady["ask_median_late"] <= steady["ask_longest"]
    assert steady["warmup_seconds"] > 60, "nobody's training lasts seconds"
    assert 0 < steady["loop_per_trial"] < 60
    assert "log-normal" in result.table


@pytest.mark.parametrize(
    ("parts", "settings", "message"),
    [
        ("virtual,speed", {}, "no part 'speed'; known: virtual, fleet, real, memory, resume, pool"),
        ("virtual", {"memory.workers": 3}, "expected PART.key with a PART of virtual"),
        ("virtual", {"virtual.worker": 3}, "virtual.worker: no such setting; virtual has workers, trials"),
        ("virtual", {"virtual.workers": 30, "virtual.trials": 30}, "30 workers need at least 90 trials, a first"),
        ("virtual", {"virtual.workers": 30, "virtual.trials": 89}, "got 89"),
        ("virtual", {"virtual.table_workers": 9, "virtual.table_trials": 26}, "9 workers need at least 27 trials"),
        ("virtual", {"virtual.workers": "3,4,5", "virtual.trials": "9,12,15"}, "one for each of the 3 numbers"),
        (
            "virtual",
            {"virtual.workers": "30,40", "virtual.trials": 100},
            "a number of trials for each number of workers",
        ),
        ("virtual", {"virtual.workers": "many"}, "whole numbers from 1 on"),
        ("memory", {"memory.trials": "20,10"}, "ascending numbers"),
        ("resume", {"resume.trials": "20,ten"}, "numbers from 1 on"),
        ("fleet", {"fleet.workers": "12"}, "multiples of 8 by commas, got '12'"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(parts, settings, message):
    with pytest.raises(ConfigError, match=message):
        scale.run(parts, **settings)


def test_a_part_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(scale, "PARTS", ("virtual", "absent"))
    with pytest.raises(ConfigError, match="this nao_ray has no part 'absent'; leave it out of parts"):
        scale.run("absent")


def test_the_fleet_is_driven_by_stand_ins():
    found = scale.run("fleet", **{"fleet.workers": "16,80", "fleet.turns": 5, "fleet.calls": 0})
    assert [row[0] for row in found.rows[:3]] == [
        "fleet: workers made and given a trial each",
        "fleet: a round handed out",
        "fleet: a turn",
    ]
    assert len(found.rows) == 6
    assert len(found.data["rows"][5]["data"]["turns"]) == 5


def test_growth_is_that_since_the_first_look():
    looks = [
        {"trials": 1000.0, "rss": 200 * 2.0**20, "highest": 200 * 2.0**20, "peak": 250 * 2.0**20},
        {"trials": 100_000.0, "rss": 210 * 2.0**20, "highest": 220 * 2.0**20, "peak": 300 * 2.0**20},
    ]
    first, last = memory.rows(looks, "anyone")
    assert first.figure == "200 MB (+0.0%), highest since the last mark 200 MB (+0.0%), peak 250 MB (+0.0%)"
    assert last.measurement == "driver's memory at 100,000 trials"
    assert last.figure == "210 MB (+5.0%), highest since the last mark 220 MB (+10.0%), peak 300 MB (+20.0%)"


def test_the_growth_of_a_resume_is_told_against_the_smallest_pool():
    peaks = [{"resumed": 200e6, "reported": 250e6}, {"resumed": 210e6, "reported": 275e6}]
    _, last = resume.rows([1000, 100_000], peaks)
    assert last.measurement == "driver's peak memory, taking up 100,000 trials"
    assert last.figure == "resumed 200 MB (+5.0%), and reported 262 MB (+10.0%)"
    assert last.data == {"trials": 100_000, **peaks[1]}


@pytest.mark.ray
def test_memory_is_looked_at_in_a_process_of_its_own():
    first, last = memory.measure("40,80", workers=20)
    assert first.data["trials"] == 40
    assert last.data["trials"] == 80
    assert 50 * 2**20 < first.data["rss"] <= first.data["highest"] <= first.data["peak"] < 2**30
    assert last.data["seconds"] > first.data["seconds"]
