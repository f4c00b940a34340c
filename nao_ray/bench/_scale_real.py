"""Real worker actors on one machine: many of them at a search of trivial trials, and what a trial costs the loop.

A trial is the closed form, in which nothing is trained and nobody waits, so that all that is left is what the service
adds: Ray's calls, the strategy's actor, and a pool on disk that is durable before anything acts on it. Ray Tune runs a
trial as trivial on the same Ray, in turns with us; it records nothing durably.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from nao_ray.bench._scale_course import Cost, Course
from nao_ray.bench._scale_row import Row
from nao_ray.config import Budget, Component, RunConfig, Workers
from nao_ray.errors import ConfigError, RunError
from nao_ray.pool import Pool
from nao_ray.search.snapshot import Snapshot
from nao_ray.service.cluster import ray_session
from nao_ray.service.run import run

_TITLE = "ray::EvaluatorActor"  # of a worker's process, set by Ray
_PATIENCE = 120.0
"""Seconds in which no further worker starts, after which the start-up counts as hung."""
_WARM = 0.5
"""Share of the trials after which a loop counts as warm: all of its actors are there."""


def measure(
    trials: int = 10_000,
    workers: int = 64,
    concurrent: str = "2,4,8",
    loop_trials: int = 1000,
    tune_trials: int = 400,
    seed: int = 0,
) -> list[Row]:
    """Search with many workers, then against Ray Tune.

    Args:
        trials: of the search with many workers.
        workers: of that search; each takes about 60 MB.
        concurrent: trials at once against Ray Tune, by commas.
        loop_trials: of each search of ours against Ray Tune.
        tune_trials: of each of Tune's.
        seed: of the searches.

    Raises:
        ConfigError: `concurrent` is no list of numbers.
        RunError: a search failed, or its pool does not hold each trial once.
    """
    return [*many_workers(trials, workers, seed), *against_tune(concurrent, loop_trials, tune_trials, seed)]


# -- many workers -------------------------------------------------------------------------------------------


def many_workers(trials: int, workers: int, seed: int) -> list[Row]:
    """A search on so many worker actors; trials are counted from when all of them are there."""
    config = _config(trials, workers, seed)
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder, ray_session(config.workers):
        crew = _Crew(workers, weigh_at=max(1, int(0.9 * trials)))
        run(config, f"{folder}/pool", crew)
        _check_pool(f"{folder}/pool", trials)
    cost = crew.course.cost(0.0)
    setting = f"{workers} workers, {trials:,} trials, random_search, pool on disk"
    own = sorted(crew.own_bytes)
    return [
        Row(
            measurement="real workers: start-up",
            setting=f"{workers} workers",
            figure=f"{crew.start_seconds:.1f} s until all are there",
            data={"seconds": crew.start_seconds},
        ),
        Row(
            measurement="real workers: rate",
            setting=setting,
            figure=f"{1 / cost.wall:,.0f} trials a second, {cost.busy:.0f} workers busy",
            data={"per_second": 1 / cost.wall, "busy": cost.busy},
        ),
        Row(
            measurement="real workers: cost of a trial",
            setting=setting,
            figure=f"{1e3 * cost.wall:.2f} ms, {1e3 * cost.cpu:.2f} ms of it the driver's CPU",
            data=_data(cost),
        ),
        Row(
            measurement="real workers: memory of each",
            setting=f"{workers} workers, at the end of {trials:,} trials",
            figure=(
                f"{own[len(own) // 2] / 1e6:.0f} MB of its own (largest {own[-1] / 1e6:.0f}), torch in "
                f"{crew.with_torch or 'none'}"
            ),
            data={"own_bytes": own, "resident_bytes": sorted(crew.resident_bytes), "with_torch": crew.with_torch},
        ),
        Row(
            measurement="real workers: trials in the pool",
            setting=setting,
            figure=f"{trials:,} of {trials:,}, each once",
            data={"trials": trials},
        ),
    ]


class _Crew:
    """Listens to a search: holds it until all workers are there; weighs them at a number of finished trials."""

    def __init__(self, workers: int, weigh_at: float = math.inf) -> None:
        self.course = Course()
        self.start_seconds = math.nan
        self.own_bytes: list[int] = []
        self.resident_bytes: list[int] = []
        self.with_torch = 0
        self._began = time.perf_counter()
        self._workers, self._weigh_at = workers, weigh_at

    def __call__(self, snapshot: Snapshot) -> None:
        if math.isnan(self.start_seconds):
            if snapshot.running == self._workers:
                self._await_all()
                self.course = Course()
            return
        finished = snapshot.done + snapshot.failed
        if finished >= self._weigh_at and not self.own_bytes:
            self._weigh()  # what comes after is not timed: this takes a while
        elif not self.own_bytes:
            self.course.add(finished, snapshot.running)

    def _await_all(self) -> None:
        most, since = 0, time.monotonic()
        while most < self._workers:
            time.sleep(0.05)
            count = len(_workers())
            if count > most:
                most, since = count, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                raise RunError(
                    f"bench scale: {most} of {self._workers} workers started, then none for {_PATIENCE:.0f} s: give "
                    "fewer with workers=, or free memory"
                )
        self.start_seconds = time.perf_counter() - self._began

    def _weigh(self) -> None:
        for process in _workers():
            memory = process.memory_full_info()
            self.own_bytes.append(memory.uss)
            self.resident_bytes.append(memory.rss)
            self.with_torch += any("libtorch" in part.path for part in process.memory_maps())


def _workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and child.name().startswith(_TITLE)]


# -- against Ray Tune ---------------------------------------------------------------------------------------


def against_tune(concurrent: str, loop_trials: int, tune_trials: int, seed: int) -> list[Row]:
    """What a trial costs us and Ray Tune, for each number of trials at once; and at the one where Tune is fastest."""
    from nao_ray.bench import _scale_tune

    counts = _counts(concurrent)
    ours: dict[int, Course] = {}
    theirs: dict[tuple[str, int], Course] = {}
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder, ray_session(Workers(count=max(counts))):
        for count in counts:
            ours[count] = _search(loop_trials, count, seed, Path(folder, f"pool-{count}"))
            for form in _scale_tune.FORMS:
                theirs[form, count] = _scale_tune.search(form, tune_trials, count, Path(folder, "tune"))
    rows = [
        _loop_row("nao_ray, random_search, pool on disk", loop_trials, count, ours[count], ours[count])
        for count in counts
    ]
    for form in _scale_tune.FORMS:
        best = min(counts, key=lambda count: theirs[form, count].cost(_WARM).wall)
        course = theirs[form, best]
        rows.append(_loop_row(f"Ray Tune, {form}", tune_trials, best, course, ours[best]))
        rows[-1].data["all"] = {str(count): _data(theirs[form, count].cost(_WARM)) for count in counts}
    return rows


def _loop_row(who: str, trials: int, count: int, course: Course, ours: Course) -> Row:
    cost = course.cost(_WARM)
    times = cost.wall / ours.cost(_WARM).wall
    against = "" if course is ours else f", {times:.1f} times nao_ray's at as many"
    return Row(
        measurement=f"cost of a trial: {who}",
        setting=f"{count} at once, {trials:,} trials, the second half of them",
        figure=f"{1e3 * cost.wall:.1f} ms, {1e3 * cost.cpu:.1f} ms of the driver's CPU{against}",
        data={**_data(cost), "first_seconds": course.first_seconds, "times_ours": times},
    )


def _search(trials: int, workers: int, seed: int, pool: Path) -> Course:
    crew = _Crew(workers)
    run(_config(trials, workers, seed), str(pool), crew)
    _check_pool(str(pool), trials)
    return crew.course


# -- both ---------------------------------------------------------------------------------------------------


def _config(trials: int, workers: int, seed: int) -> RunConfig:
    return RunConfig(
        name="scale",
        seed=seed,
        space=Component(name="nao_cnn"),
        evaluator=Component(name="closed_form"),
        strategy=Component(name="random_search"),
        budget=Budget(trials=trials),
        workers=Workers(count=workers),
    )


def _check_pool(url: str, trials: int) -> None:
    pool = Pool.open(url)
    problems, found = pool.check(), pool.trials(["trial_id"])["trial_id"].tolist()
    if problems or found != list(range(trials)):
        raise RunError(f"bench scale: {len(found):,} rows in the pool, expected {trials:,}, each once: {problems}")


def _counts(text: str) -> Sequence[int]:
    try:
        counts = sorted({int(part) for part in str(text).split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise ConfigError(f"bench scale: concurrent={text}: expected numbers of trials at once, such as 2,4,8")
    return counts


def _data(cost: Cost) -> dict[str, object]:
    return {"wall_seconds": cost.wall, "cpu_seconds": cost.cpu, "busy": cost.busy}
