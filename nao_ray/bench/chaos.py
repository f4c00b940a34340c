"""Faults on purpose: kill -9 of driver, worker and controller at random moments of a real Ray search.

The same search runs twice on one local Ray: unbroken, and with processes killed at moments that follow from the seed
(a number of finished trials, plus a delay). A killed driver is started again with the same command. Then the two
pools are compared: with one worker row for row; with more, each trial must be there once with the score that its
proposal has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import ray

from nao_ray import rng
from nao_ray.bench._result import BenchResult, machine
from nao_ray.config import Component, RunConfig
from nao_ray.errors import RunError
from nao_ray.pool import Pool
from nao_ray.search.executor import Failure, measure
from nao_ray.service.cluster import ray_session
from nao_ray.trial import Trial

VICTIMS = ("driver", "worker", "controller")
_TITLES = {"worker": "ray::EvaluatorActor", "controller": "ray::StrategyActor"}  # of the processes, set by Ray
_DRIVER = """
import sys
from nao_ray.config import RunConfig
from nao_ray.service.run import run
run(RunConfig.load(sys.argv[1]), sys.argv[2])
"""
_PATIENCE = 120.0
"""Seconds without any progress after which the search counts as hung."""
_TIMES = ("asked_at", "started_at", "finished_at", "wall_seconds", "device_seconds")
_MAY_DIFFER = frozenset((*_TIMES, "attempt", "node", "device", "peak_memory_bytes"))
"""Columns that differ between two runs of one search."""


@dataclass(slots=True)
class Course:
    """What happened in one search."""

    kills: list[str] = field(default_factory=list)
    drivers: int = 0
    seconds: float = 0.0


def run(
    faults: int = 5,
    trials: int = 30,
    seed: int = 0,
    workers: int = 1,
    strategy: str = "regularized_evolution",
    sleep_seconds: float = 0.2,
) -> BenchResult:
    """Search unbroken and broken, and compare.

    Args:
        faults: processes killed; from three on each kind is among them.
        trials: trials of each search; some of them fail by themselves.
        seed: of the search and of the faults.
        workers: worker actors.
        strategy: who proposes.
        sleep_seconds: what a trial takes.

    Raises:
        RunError: a search failed or hung.
    """
    config = _config(trials, seed, workers, strategy, sleep_seconds, faults)
    with tempfile.TemporaryDirectory(prefix="nao-chaos-") as folder, _cluster(config):
        unbroken, broken = Path(folder, "unbroken"), Path(folder, "broken")
        whole = search(config, unbroken, [])
        torn = search(config, broken, plan(faults, trials, workers, seed))
        wrong = differences(config, broken, unbroken if workers == 1 else None)
        problems = Pool.open(broken).check()
        attempts = int(Pool.open(broken).trials(["attempt"])["attempt"].sum())
    kills = Counter(torn.kills)
    rows: list[list[object]] = [
        ["unbroken", trials, 0, 0, 0, whole.drivers, trials, whole.seconds, 0],
        ["broken", trials, *(kills[victim] for victim in VICTIMS), torn.drivers, attempts, torn.seconds, len(wrong)],
    ]
    compared = "row for row with the unbroken pool" if workers == 1 else "with what each proposal scores alone"
    return BenchResult(
        name="chaos",
        columns=["search", "trials", *(f"{v} kills" for v in VICTIMS), "drivers", "attempts", "seconds", "wrong rows"],
        rows=rows,
        notes=[f"{strategy}, {workers} worker(s), seed {seed}; compared {compared}.", *wrong, *problems, machine()],
        data={"kills": torn.kills, "wrong": wrong, "problems": problems, "seconds": [whole.seconds, torn.seconds]},
    )


def plan(faults: int, trials: int, workers: int, seed: int) -> list[tuple[str, int, float]]:
    """Victim, finished trials to wait for, and seconds to wait then; at least one of each victim from three on."""
    draw = rng.child(seed, "chaos")
    victims = [*VICTIMS, *draw.choice(VICTIMS, size=max(0, faults - len(VICTIMS)))]
    draw.shuffle(victims)
    moments = np.sort(draw.integers(1, max(2, trials - 3 - 3 * workers), size=faults))
    delays = draw.uniform(0.0, 0.4, size=faults)
    return [(str(v), int(m), float(d)) for v, m, d in zip(victims[:faults], moments, delays, strict=True)]


def search(config: RunConfig, pool: Path, faults: Sequence[tuple[str, int, float]]) -> Course:
    """One search to its end, through all faults.

    Raises:
        RunError: it failed or hung.
    """
    course, start, waiting = Course(), time.monotonic(), deque(faults)
    driver = _start(config, pool, course)
    moved, finished = start, 0
    try:
        while driver.poll() is None:
            now = num_finished(pool)
            if now > finished:
                moved, finished = time.monotonic(), now
            if time.monotonic() - moved > _PATIENCE:
                raise RunError(f"no progress at {finished} trials after kills {course.kills}")
            if waiting and finished >= waiting[0][1]:
                victim, _, delay = waiting.popleft()
                time.sleep(delay)
                driver = _kill(victim, driver, config, pool, course)
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    if driver.returncode or waiting:
        raise RunError(f"the search ended with {len(waiting)} faults to come: {_last_line(pool)}")
    course.seconds = time.monotonic() - start
    return course


def num_finished(pool: Path) -> int:
    """Finished trials of a pool that is being written."""
    if not Pool.exists(pool):
        return 0
    return len(Pool.open(pool).trials(["trial_id"]))


def differences(config: RunConfig, pool: Path, unbroken: Path | None) -> list[str]:
    """What is wrong with a broken search's pool, one line each."""
    frame = pd.read_parquet(pool / "trials").sort_values("trial_id", ignore_index=True)
    ids = frame["trial_id"].tolist()
    wrong = [f"trial {i} is there {n} times" for i, n in Counter(ids).items() if n > 1]
    wrong += [f"trial {i} is missing" for i in range(config.budget.trials or 0) if i not in set(ids)]
    if unbroken is None:
        return wrong + _wrong_scores(config, pool)
    other = pd.read_parquet(unbroken / "trials").sort_values("trial_id", ignore_index=True)
    columns = [name for name in frame.columns if name not in _MAY_DIFFER]
    both = zip(frame[columns].to_dict("records"), other[columns].to_dict("records"), strict=False)
    for row, expected in both:
        differing = [name for name in columns if _text(row[name]) != _text(expected[name])]
        wrong += [f"trial {row['trial_id']}: {', '.join(differing)} differ"] if differing else []
    return wrong


def _text(value: object) -> str:
    """Every digit of a cell; NaN equals NaN."""
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def _wrong_scores(config: RunConfig, pool: Path) -> list[str]:
    """Trials whose end is not what their proposal gives when it is evaluated alone."""
    settings = {**config.evaluator.settings, "sleep_seconds": 0}
    evaluator = config.model_copy(update={"evaluator": Component(name=config.evaluator.name, **settings)})
    wrong = []
    for trial in Pool.open(pool).log():
        outcome = measure(evaluator.make_evaluator(), trial.proposal)
        bare = Trial(proposal=trial.proposal)
        alone = bare.fail(*outcome) if isinstance(outcome, Failure) else bare.complete(outcome)
        if (alone.score, alone.failure_kind) != (trial.score, trial.failure_kind):
            wrong.append(f"trial {trial.trial_id}: {trial.score} {trial.failure_kind}, alone {alone.score}")
    return wrong


def _config(trials: int, seed: int, workers: int, strategy: str, sleep_seconds: float, faults: int) -> RunConfig:
    evaluator = {"name": "faulty", "sleep_seconds": sleep_seconds, "noise": 0.02, "error_share": 0.1, "nan_share": 0.05}
    return RunConfig.model_validate(
        {
            "name": "chaos",
            "seed": seed,
            "space": "nao_cnn_small",
            "task": "synthetic",
            "evaluator": evaluator,
            "strategy": strategy,
            "budget": {"trials": trials},
            "workers": {"count": workers, "max_attempts": faults + 1},
        }
    )


@contextmanager
def _cluster(config: RunConfig) -> Iterator[None]:
    """A Ray that outlives the drivers, and that they find."""
    room = config.workers.model_copy(update={"count": int(config.workers.count) + 1})  # a dead driver's worker lingers
    with ray_session(room):
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        try:
            yield
        finally:
            os.environ.pop("RAY_ADDRESS")
            if before is not None:
                os.environ["RAY_ADDRESS"] = before


def _start(config: RunConfig, pool: Path, course: Course) -> subprocess.Popen[bytes]:
    file = pool.with_suffix(".yaml")
    file.write_text(config.to_yaml(), encoding="utf-8")
    course.drivers += 1
    with _log_of(pool).open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", _DRIVER, str(file), str(pool)], stdout=log, stderr=log)


def _kill(
    victim: str, driver: subprocess.Popen[bytes], config: RunConfig, pool: Path, course: Course
) -> subprocess.Popen[bytes]:
    """Kill -9; the driver that then runs."""
    if victim != "driver":
        _newest(_TITLES[victim]).kill()
        course.kills.append(victim)
        return driver
    driver.kill()
    driver.wait()
    course.kills.append(victim)
    return _start(config, pool, course)


def _newest(title: str) -> psutil.Process:
    """The actor process started last among this process's own descendants; waits for one to be there."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(title):
                    found.append((process.create_time(), process))
        if found:
            return max(found, key=lambda pair: pair[0])[1]
        time.sleep(0.05)
    raise RunError(f"no process {title} within {_PATIENCE:g} s")


def _log_of(pool: Path) -> Path:
    return pool.with_suffix(".log")


def _last_line(pool: Path) -> str:
    lines = _log_of(pool).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
