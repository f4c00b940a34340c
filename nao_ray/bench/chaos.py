"""A search that is broken a hundred times, compared with an unbroken one.

The same search runs twice on a real Ray of several nodes: unbroken, and with faults at moments that follow from the
seed (`benchmarks.faults`). Both have children that raise, return NaN, run out of memory and hang. Then the pools are
compared: with one worker row for row, but for times, places and attempts; a trial whose part was cut is evaluated
again, and takes its old place in the log. With more workers the order of the log is chance: each trial must be there
once, with the end that its proposal comes to when it is evaluated again, alone.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.faults import KINDS, Fault, Injector, Struck, plan
from benchmarks.site import Driver, Nodes, Parts, nodes
from nao_ray.bench._result import BenchResult, machine
from nao_ray.config import Component, RunConfig
from nao_ray.errors import ConfigError, RunError
from nao_ray.evaluators.faulty import Faulty
from nao_ray.pool import PoolReader
from nao_ray.search.executor import Failure, measure
from nao_ray.trial import FailureKind, Trial

_NODES = 2
_PATIENCE = 120.0
"""Seconds without any progress after which the search counts as hung."""
_CHILDREN = {"error_share": 0.06, "nan_share": 0.04, "out_of_memory_share": 0.04, "hang_share": 0.03}
_FEW_SUFFICE = {"regularized_evolution": {"population": 8, "sample": 3}}
"""Settings with which a strategy learns from its first trials: a controller with another state proposes others."""
_SILENT, _TIMEOUT = 6.0, 12.0
"""Seconds: a worker that stalls is lost before its trial could count as one that hangs."""
_TIMES = ("asked_at", "started_at", "finished_at", "wall_seconds", "device_seconds")
_MAY_DIFFER = frozenset((*_TIMES, "attempt", "node", "device", "peak_memory_bytes"))
"""Columns that differ between two runs of one search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happened in one search."""

    struck: list[Struck]
    drivers: int
    seconds: float
    problems: list[str]
    """Faults that were none, and processes that were stopped and which the search has not ended."""


def run(
    faults: int = 14,
    trials: int = 60,
    seed: int = 0,
    workers: int = 1,
    strategy: str = "regularized_evolution",
    sleep_seconds: float = 0.2,
) -> BenchResult:
    """Search unbroken and broken, and compare.

    Args:
        faults: from outside; from seven on each kind is among them. Children that fail come on top.
        trials: of each search; about a sixth of them fail by themselves.
        seed: of the search and of the faults.
        workers: worker actors; each of two nodes has room for all.
        strategy: who proposes.
        sleep_seconds: what a trial takes.

    Raises:
        ConfigError: so many faults do not fit into so few trials.
        RunError: a search failed or hung, or no proposal of the unbroken one depends on a trial.
    """
    least = 2 * faults + 4 + 4 * workers
    if trials < least:
        raise ConfigError(f"{faults} faults need {least} trials at {workers} worker(s), got trials={trials}")
    config = _config(trials, seed, workers, strategy, sleep_seconds, faults)
    with tempfile.TemporaryDirectory(prefix="nao-chaos-") as folder, nodes(_NODES, workers) as site:
        unbroken, broken = Path(folder, "unbroken"), Path(folder, "broken")
        whole = search(config, unbroken, site, [])
        children = _children(PoolReader.open(unbroken), strategy, trials)
        torn = search(config, broken, site, plan(faults, trials, workers, seed, sleep_seconds))
        wrong = differences(config, broken, unbroken if workers == 1 else None)
        pool = PoolReader.open(broken)
        rows = pool.trials(["attempt", "failure_kind"])
        problems = _problems(pool, torn, faults)
    recovery = {
        kind: [s.seconds for s in torn.struck if s.fault.kind == kind and s.seconds is not None] for kind in KINDS
    }
    failed = Counter(kind for kind in rows["failure_kind"] if isinstance(kind, str))
    how = "row for row with the unbroken one" if workers == 1 else "each proposal with what it comes to alone"
    seconds = [whole.seconds, torn.seconds]
    return BenchResult(
        name="chaos",
        columns=["fault", "times", "median seconds to the next trial", "most"],
        rows=[
            *(_row(kind, torn.struck, all_) for kind, all_ in recovery.items()),
            *([f"child: {kind}", failed[kind], "", ""] for kind in FailureKind if kind in failed),
        ],
        notes=[
            f"{len(torn.struck)} faults from outside and {failed.total()} children that fail, in {trials} trials: "
            f"{seconds[0]:.0f} s unbroken, {seconds[1]:.0f} s broken; {torn.drivers} drivers, {rows['attempt'].sum()} "
            f"attempts. {len(wrong)} rows missing, doubled or different; compared: {how}.",
            f"{strategy}, {workers} worker(s), {_NODES} nodes, {sleep_seconds:g} s a trial, seed {seed}. The next "
            "trial is the first that started after the fault, or was asked after it if the controller was lost; with "
            "several workers it may be another worker's.",
            *children,
            *wrong,
            *problems,
            machine(),
        ],
        wrong=[*wrong, *problems],
        data={
            "faults": [struck.fault.kind for struck in torn.struck],
            "recovery": recovery,
            "failed": dict(failed),
            "drivers": torn.drivers,
            "attempts": int(rows["attempt"].sum()),
            "seconds": seconds,
            "wrong": wrong,
            "problems": problems,
        },
    )


def search(config: RunConfig, pool: Path, site: Nodes, faults: Sequence[Fault]) -> Course:
    """One search to its end, through all faults.

    Raises:
        RunError: it failed or hung.
    """
    start = moved = time.monotonic()
    driver, parts, finished = Driver(config, pool, site.address), Parts(pool), 0
    injector = Injector(faults, driver, site, parts)
    driver.start()
    try:
        while driver.process.poll() is None:
            injector.step()
            now = parts.count()
            if now != finished:
                moved, finished = time.monotonic(), now
            if time.monotonic() - moved > _PATIENCE:
                raise RunError(f"no progress at {finished} trials, {_story(injector)}: {driver.last_line()}")
            time.sleep(0.02)
        injector.note_end()
        seconds = time.monotonic() - start
    finally:
        try:
            driver.kill()
        finally:
            left_over = injector.close()
    if driver.process.returncode or injector.waiting:
        raise RunError(f"the search ended at {finished} trials, {_story(injector)}: {driver.last_line()}")
    left = [f"process {pid} was stopped, counted as lost, and still is there" for pid in left_over]
    problems = [*injector.problems, *left]
    return Course(struck=injector.struck, drivers=driver.starts, seconds=seconds, problems=problems)


def _story(injector: Injector) -> str:
    last = [struck.fault.kind for struck in injector.struck[-3:]]
    return f"{injector.waiting} faults to come, {len(injector.struck)} done, the last ones {', '.join(last) or 'none'}"


def _row(kind: str, struck: Sequence[Struck], seconds: Sequence[float]) -> list[object]:
    """A line of the table; a fault after which no trial started has no time."""
    times = sum(s.fault.kind == kind for s in struck)
    return [kind, times, float(np.median(seconds)), max(seconds)] if seconds else [kind, times, "", ""]


def _children(pool: PoolReader, strategy: str, trials: int) -> list[str]:
    """Which kinds of failing children an unbroken search of a hundred trials lacks.

    Raises:
        RunError: no proposal depends on a trial, so that a controller with a wrong state would go unnoticed.
    """
    rows = pool.trials(["source_trial_id", "failure_kind"])
    if rows["source_trial_id"].isna().all():
        raise RunError(
            f"{strategy} made no proposal of {trials} from an earlier trial: a controller rebuilt with another state "
            "would propose the same; give more trials, or another strategy"
        )
    missing = set(FailureKind) - {FailureKind.LOST} - set(rows["failure_kind"].dropna())
    return (
        [f"no child failed by {', '.join(sorted(missing))} in the unbroken search"] if missing and trials >= 100 else []
    )


def _problems(pool: PoolReader, course: Course, faults: int) -> list[str]:
    """What the pool's own check finds beyond the parts that were cut, faults that were none, kinds that are missing."""
    cuts = sum(struck.fault.kind == "cut" for struck in course.struck)
    expected = f"{cuts} damaged parts are in quarantine/"
    found = [problem for problem in pool.check() if not problem.startswith(expected)]
    never = set(KINDS) - {struck.fault.kind for struck in course.struck} if faults >= len(KINDS) else set()
    return [*found, *course.problems, *(f"no fault was a {kind}" for kind in KINDS if kind in never)]


def differences(config: RunConfig, pool: Path, unbroken: Path | None) -> list[str]:
    """What is wrong with a broken search's pool, one line each."""
    frame = pd.read_parquet(pool / "trials")
    wrong = _wrong_ids(frame, config.budget.trials)
    if unbroken is None:
        return wrong + _wrong_ends(config, pool)
    other = pd.read_parquet(unbroken / "trials")
    wrong += [f"unbroken: {line}" for line in _wrong_ids(other, config.budget.trials)]
    if uncommon := sorted(set(frame.columns) ^ set(other.columns)):
        wrong.append(f"only one of the pools has the columns {', '.join(uncommon)}")
    columns = sorted(set(frame.columns) & set(other.columns) - _MAY_DIFFER)
    expected = {row["trial_id"]: row for row in other[columns].to_dict("records")}
    for row in frame.sort_values("trial_id")[columns].to_dict("records"):
        alike = expected.get(row["trial_id"], row)
        differing = [name for name in columns if _text(row[name]) != _text(alike[name])]
        wrong += [f"trial {row['trial_id']}: {', '.join(differing)} differ"] if differing else []
    return wrong


def _wrong_ids(frame: pd.DataFrame, trials: int | None) -> list[str]:
    """Trials that are there more than once, that are missing, and that were not to be."""
    there = Counter(frame["trial_id"].tolist())
    to_be = range(len(there) if trials is None else trials)
    return [
        *(f"trial {i} is there {n} times" for i, n in sorted(there.items()) if n > 1),
        *(f"trial {i} is missing" for i in to_be if i not in there),
        *(f"trial {i} is beyond the budget" for i in sorted(there) if i not in to_be),
    ]


def _text(value: object) -> str:
    """Every digit of a cell; NaN equals NaN."""
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def _wrong_ends(config: RunConfig, pool: Path) -> list[str]:
    """Trials whose end is not what their proposal comes to when it is evaluated alone."""
    settings = {**config.evaluator.settings, "sleep_seconds": 0, "hang_seconds": 0}
    evaluator = config.model_copy(update={"evaluator": Component(name=config.evaluator.name, **settings)})
    made, wrong = evaluator.make_evaluator(), []
    for trial in PoolReader.open(pool).log():
        bare = Trial(proposal=trial.proposal)
        if isinstance(made, Faulty) and made.hangs(trial.proposal):
            alone = bare.fail(FailureKind.TIMEOUT, "")
        else:
            outcome = measure(made, trial.proposal)
            alone = bare.fail(outcome.kind, outcome.message) if isinstance(outcome, Failure) else bare.complete(outcome)
        if (alone.score, alone.failure_kind) != (trial.score, trial.failure_kind):
            wrong.append(
                f"trial {trial.trial_id}: {trial.score} {trial.failure_kind}, alone {alone.score} {alone.failure_kind}"
            )
    return wrong


def _config(trials: int, seed: int, workers: int, strategy: str, sleep_seconds: float, faults: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "chaos",
            "seed": seed,
            "space": "nao_cnn_small",
            "task": "synthetic",
            "evaluator": {"name": "faulty", "sleep_seconds": sleep_seconds, "noise": 0.02, **_CHILDREN},
            "strategy": {"name": strategy, **_FEW_SUFFICE.get(strategy, {})},
            "budget": {"trials": trials},
            "workers": {
                "count": workers,
                "max_attempts": faults + 1,
                "timeout_seconds": _TIMEOUT,
                "silent_seconds": _SILENT,
            },
        }
    )
