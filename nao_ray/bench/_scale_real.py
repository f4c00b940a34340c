"""Real worker actors on one machine: many of them at a search of trivial trials, and what a trial costs the loop.

A trial is the closed form, in which nothing is trained and nobody waits, so that all that is left is what the service
adds: Ray's calls, the strategy's actor, and a pool on disk that is durable before anything acts on it. Ray Tune runs a
trial as trivial on the same Ray, in turns with us; it records nothing durably.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from nao_ray.bench._scale_course import Cost, Course
from nao_ray.bench._scale_row import Row
from nao_ray.config import Budget, Component, RunConfig, Workers
from nao_ray.errors import ConfigError, RunError
from nao_ray.pool import PoolReader
from nao_ray.search.snapshot import Snapshot
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.run import run

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
    tune_trials: int = 200,
    repeats: int = 3,
    seed: int = 0,
) -> list[Row]:
    """Search with many workers, then against Ray Tune.

    Args:
        trials: of the search with many workers.
        workers: of that search; each takes about 60 MB.
        concurrent: trials at once against Ray Tune, by commas.
        loop_trials: of each search of ours against Ray Tune.
        tune_trials: of each of Tune's.
        repeats: searches of both at each of `concurrent`, in turns.
        seed: of the searches.

    Raises:
        ConfigError: `concurrent` is no list of numbers, or there are fewer trials than workers.
        RunError: a search failed, or its pool does not hold each trial once.
    """
    if trials < 2 * workers:
        raise ConfigError(f"bench scale: {trials} trials keep no {workers} workers busy; give {2 * workers} or more")
    tune = against_tune(concurrent, loop_trials, tune_trials, repeats, seed)
    return [*many_workers(trials, workers, seed), *tune]


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
            if _workers():  # in the turn before all were asked for
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


def against_tune(concurrent: str, loop_trials: int, tune_trials: int, repeats: int, seed: int) -> list[Row]:
    """What a trial costs us and Ray Tune, in turns, on Rays that hold as many trials as run at once.

    Then the fewest at once where there is room for the most: Tune prepares the next trials on CPUs that are free. Then
    Tune's other forms, at the number at which its fastest form is fastest.
    """
    from benchmarks import tune

    counts = _counts(concurrent)
    fastest, saved, *others = tune.FORMS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder:
        tunes = Path(folder, "tune")

        def compare(at_once: int, cpus: int) -> tuple[list[Cost], list[Cost]]:
            ours: list[Cost] = []
            theirs: dict[str, list[Cost]] = {fastest: [], saved: []}
            with ray_session(Workers(count=cpus)):
                for turn in range(repeats):
                    pool = Path(folder, f"pool-{at_once}-{cpus}-{turn}")
                    ours.append(_search(loop_trials, at_once, seed + turn, pool))
                    for form, costs in theirs.items():
                        costs.append(tune.search(form, tune_trials, at_once, tunes).cost(_WARM))
            where = f"{at_once} at once on {cpus} CPUs"
            rows.append(_loop_row("nao_ray, random_search, pool on disk", loop_trials, where, ours, ours))
            for form, costs in theirs.items():
                rows.append(_loop_row(f"Ray Tune, {form}", tune_trials, where, costs, ours))
            return ours, theirs[fastest]

        full = {count: compare(count, count) for count in counts}
        if len(counts) > 1:
            compare(counts[0], counts[-1])
        best = min(counts, key=lambda count: _median(full[count][1]))
        with ray_session(Workers(count=best)):
            for form in others:
                costs = [tune.search(form, tune_trials, best, tunes).cost(_WARM)]
                where = f"{best} at once on {best} CPUs"
                rows.append(_loop_row(f"Ray Tune, {form}", tune_trials, where, costs, full[best][0]))
    return rows


def _loop_row(who: str, trials: int, where: str, costs: Sequence[Cost], ours: Sequence[Cost]) -> Row:
    """The median, and how many times ours: of the medians, and the range over the turns."""
    times = _median(costs) / _median(ours)
    each = [cost.wall / other.wall for cost, other in zip(costs, ours, strict=False)]
    between = f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else ""
    against = "" if costs is ours else f", {times:.1f} times nao_ray's{between}"
    cpu = statistics.median(cost.cpu for cost in costs)
    return Row(
        measurement=f"cost of a trial: {who}",
        setting=f"{where}, second half of {trials:,} trials, median of n = {len(costs)}",
        figure=f"{1e3 * _median(costs):.1f} ms, {1e3 * cpu:.1f} ms of the driver's CPU{against}",
        data={"costs": [_data(cost) for cost in costs], "times_ours": times, "times_ours_each": each},
    )


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.wall for cost in costs)


def _search(trials: int, workers: int, seed: int, pool: Path) -> Cost:
    crew = _Crew(workers)
    run(_config(trials, workers, seed), str(pool), crew)
    _check_pool(str(pool), trials)
    return crew.course.cost(_WARM)


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
    pool = PoolReader.open(url)
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
