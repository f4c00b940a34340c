"""Thousands of workers in virtual time, beside the real strategy, the real loop and a real pool on disk.

Only the trainings are simulated: they last as long as a distribution or a table says, and score by a formula or the
table. What a strategy thinks and what the loop does between two waits is measured as it happens and goes by on the
virtual clock, the first while workers go on. So the figures vary with the machine, and a little from run to run.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from nao_ray import rng
from nao_ray.bench._scale_row import Row
from nao_ray.bench.tabular import tables
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Completion, Executor, Job
from nao_ray.search.loop import SearchLoop
from nao_ray.search.simulated import Outcome, SimulatedExecutor, TimedProposer, reported_seconds
from nao_ray.service.hosting.manifest import make_manifest
from nao_ray.sharing import Shared
from nao_ray.trial import Interim

Duration = Callable[[Job, Outcome], float]

MEAN_SECONDS = 1200.0
"""Of a made-up training: 20 minutes."""
SIGMA = 1.0
"""Of the logarithm of its duration: one in a hundred takes more than two hours."""

_LEAST_WAVES = 3  # trials per worker: the first and the last are not measured
_DECODED_PER_SOURCE = 4  # new architectures that the eight step sizes from one source come to, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How busy the workers of a search were; seconds of virtual time."""

    startup_seconds: float
    """From the beginning until every worker had its first trial."""
    warmup_seconds: float
    """From then until as many trials had ended as there are workers: about a mean training, in which the first trial
    of each, given without any result, fades out."""
    steady_seconds: float
    """From then until the last trial was started."""
    drain_seconds: float
    """From then to the end."""
    steady: float
    """Busy share of the workers in the steady part, in [0, 1]."""
    whole: float
    """Busy share from the beginning to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a search came to."""

    shares: Shares
    trials: int
    ask_seconds: list[float]
    """Of each request to the strategy, its fit included."""
    loop_seconds: float
    """Of the driver alone, from its first step to its last: the loop, its bookkeeping, what it wrote to the pool."""
    cpu_seconds: float
    """Of this process, the simulation included."""

    @property
    def late_asks(self) -> list[float]:
        """The last quarter of them: the strategy knows most then."""
        return self.ask_seconds[-math.ceil(len(self.ask_seconds) / 4) :]

    def data(self) -> dict[str, object]:
        """Plain numbers."""
        asks = np.array(self.ask_seconds)
        return {
            **asdict(self.shares),
            "trials": self.trials,
            "asks": len(asks),
            "ask_median": float(np.median(asks)),
            "ask_median_late": float(np.median(self.late_asks)),
            "ask_longest": float(asks.max()),
            "ask_total": float(asks.sum()),
            "loop_per_trial": self.loop_seconds / self.trials,
            "cpu_seconds": self.cpu_seconds,
        }


def measure(
    workers: int | str = "1000,10000",
    trials: int | str = "3000,30000",
    rounds: int | str = "1000",
    rounds_trials: int | str = "3000",
    strategy: str = "nao,random_search",
    seed: int = 0,
    path: str | None = None,
    dataset: str = "cifar10",
    table_workers: int = 300,
    table_trials: int = 1500,
) -> list[Row]:
    """Busy share of the workers, the strategy's time and the loop's, of each search.

    Args:
        workers: simulated workers, one search each, by commas.
        trials: of each of these searches, at least three times its workers.
        rounds: simulated workers of searches in rounds as large as their number; by commas, may be empty.
        rounds_trials: of each of these searches.
        strategy: who proposes: one for each of `workers`, by commas, or one for all; the first of them in rounds and on
            the table.
        seed: of the searches.
        path: table with NAS-Bench-201's columns, default: the one in ``$NAO_RAY_DATA``; its training times are
            replayed. Left out where there is none.
        dataset: of the table.
        table_workers: simulated workers of the search on the table.
        table_trials: its trials; there are 6,466 distinct cells.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    steady, in_rounds = _pairs(workers, trials), _pairs(rounds, rounds_trials)
    _pairs(table_workers, table_trials)
    names = _names(strategy, len(steady))
    rows: list[Row] = []
    for name, (number, budget) in zip(names, steady, strict=False):
        rows += _rows(f"{name}, steady, {number:,} workers", number, _made_up(name, seed, budget, {}))
    for number, budget in in_rounds:
        text = f"{names[0]}, rounds of {number:,}, {number:,} workers"
        rows += _rows(text, number, _made_up(names[0], seed, budget, _round_settings(names[0], number)))
    return rows + _on_table(names[0], seed, path, dataset, table_workers, table_trials)


def _names(strategy: str, count: int) -> list[str]:
    """Strategies of `count` searches, at least one."""
    names = [name.strip() for name in strategy.split(",")]
    if len(names) not in (1, count):
        raise ConfigError(
            f"bench scale: expected one strategy, or one for each of the {count} numbers of workers, got {strategy!r}"
        )
    return names * max(1, count) if len(names) == 1 else names


def _round_settings(strategy: str, size: int) -> dict[str, Any]:
    """Of rounds as large as the cluster: from as many sources, and to choose from, as fill one with decoded ones."""
    if strategy != "nao":
        return {}
    sources = math.ceil(size / _DECODED_PER_SOURCE)
    return {"mode": "rounds", "seeds": size, "round_size": size, "top_k": sources, "candidates": 2 * size}


def _pairs(workers: int | str, trials: int | str) -> list[tuple[int, int]]:
    """Workers and trials of each search."""
    numbers, budgets = _numbers("workers", workers), _numbers("trials", trials)
    if len(numbers) != len(budgets):
        raise ConfigError(
            f"bench scale: expected a number of trials for each number of workers {workers}, got {trials}"
        )
    for number, budget in zip(numbers, budgets, strict=True):
        if budget < _LEAST_WAVES * number:
            raise ConfigError(
                f"bench scale: {number} workers need at least {_LEAST_WAVES * number} trials, a first, a measured and "
                f"a last one each, got {budget}"
            )
    return list(zip(numbers, budgets, strict=True))


def _numbers(name: str, value: int | str) -> list[int]:
    words = [word.strip() for word in str(value).split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"bench scale: {name} must be whole numbers from 1 on, by commas, got {value!r}")
    return [int(word) for word in words]


def _made_up(strategy: str, seed: int, trials: int, settings: Mapping[str, Any]) -> tuple[RunConfig, Duration]:
    config = {"space": "nao_cnn", "evaluator": "closed_form", "strategy": {"name": strategy, **settings}}
    return _config(config, seed, trials), log_normal


def _config(components: Mapping[str, Any], seed: int, trials: int) -> RunConfig:
    return RunConfig.model_validate({"name": "scale", "seed": seed, **components, "budget": {"trials": trials}})


def _on_table(strategy: str, seed: int, path: str | None, dataset: str, workers: int, trials: int) -> list[Row]:
    setting = f"{strategy}, steady, {workers:,} workers, recorded training times"
    evaluator = tables(None, dataset, {"valid": None, "test": None, "cost": None})[dataset]
    evaluator |= {} if path is None else {"path": path}
    if path is None and not Path(str(evaluator["path"])).is_file():
        return [Row(measurement="workers busy", setting=setting, figure="left out: no table in $NAO_RAY_DATA")]
    config = {"space": "nas_bench_201", "evaluator": evaluator, "strategy": strategy}
    return _rows(setting, workers, (_config(config, seed, trials), reported_seconds))


def _rows(setting: str, workers: int, search: tuple[RunConfig, Duration]) -> list[Row]:
    course = perform(*search, workers)
    shares, data = course.shares, course.data()
    setting = f"{setting}, {course.trials:,} trials"
    Console(stderr=True).print(f"bench: {setting}: {shares.steady:.1%} busy")  # they take minutes each
    asks = np.array(course.ask_seconds)
    figures = {
        "workers busy": f"{shares.steady:.1%} over {_time(shares.steady_seconds)}",
        "start-up, first trials, drain": ", ".join(
            map(_time, (shares.startup_seconds, shares.warmup_seconds, shares.drain_seconds))
        )
        + f"; {shares.whole:.1%} in all",
        "an ask": f"{np.median(asks):.2f} s, in the last quarter {np.median(course.late_asks):.2f} s "
        f"(longest {asks.max():.1f} s, n = {len(asks):,})",
        "the loop, per trial": f"{1000 * course.loop_seconds / course.trials:.1f} ms",
    }
    return [
        Row(measurement=name, setting=setting, figure=figure, data=data if name == "workers busy" else {})
        for name, figure in figures.items()
    ]


def _time(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def log_normal(job: Job, _: Outcome) -> float:
    """Seconds of a made-up training, of its proposal's seed: mean `MEAN_SECONDS`, sigma `SIGMA`."""
    draw = rng.child(job.proposal.seed, "duration")
    return float(draw.lognormal(math.log(MEAN_SECONDS) - SIGMA**2 / 2, SIGMA))


def perform(config: RunConfig, duration: Duration, workers: int) -> Course:
    """One search with simulated workers, over a pool in a folder of its own."""
    evaluator, clock, began = config.make_evaluator(), VirtualClock(), time.process_time()
    proposer = TimedProposer(config.make_strategy(), clock)
    executor = SimulatedExecutor(evaluator, clock, workers, duration)
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder:
        pool = PoolWriter.create(Path(folder, "pool"), make_manifest(config, evaluator.data_hash(), None))
        with pool.acquire():
            driver = ChargedDriver(executor, clock, lambda: proposer.total)
            SearchLoop(pool, proposer, driver, Budget(trials=config.budget.trials), clock=clock).run()
            driver.charge()
            cpu_seconds = time.process_time() - began
            frame = pool.trials(["node", "started_at", "finished_at"])
    return Course(
        shares=busy(frame, VirtualClock.START, workers),
        trials=len(frame),
        ask_seconds=proposer.seconds,
        loop_seconds=driver.seconds,
        cpu_seconds=cpu_seconds,
    )


class ChargedDriver:
    """An executor; what its caller does from now on goes by on the virtual clock, too.

    It is charged before each job is submitted, so that a job starts after the turn that submits it. Left out is what
    really happens elsewhere: evaluations, which start in `submit`, and the strategy.
    """

    def __init__(
        self,
        executor: Executor,
        clock: VirtualClock,
        elsewhere: Callable[[], float] = lambda: 0.0,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`elsewhere`: real seconds so far that are not the caller's own; `stopwatch`: real seconds."""
        self._executor, self._clock, self._stopwatch = executor, clock, stopwatch
        self._elsewhere = elsewhere
        self._since, self._before = stopwatch(), elsewhere()  # charged up to
        self.seconds = 0.0
        """Charged so far."""

    @property
    def capacity(self) -> int:
        return self._executor.capacity

    @property
    def aside(self) -> Sequence[str]:
        return self._executor.aside

    @property
    def sharing(self) -> Sequence[Shared]:
        return self._executor.sharing

    def expect(self, jobs: int | None) -> None:
        self._executor.expect(jobs)

    def charge(self) -> None:
        """What the caller did since the last job, wait or charge."""
        own = max(0.0, self._stopwatch() - self._since - (self._elsewhere() - self._before))
        self.seconds += own
        self._clock.sleep(own)
        self._go_on()

    def _go_on(self) -> None:
        self._since, self._before = self._stopwatch(), self._elsewhere()

    def submit(self, job: Job) -> None:
        self.charge()
        self._executor.submit(job)
        self._go_on()

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        self.charge()
        ended = self._executor.wait(timeout, wake)
        self._go_on()
        return ended

    @property
    def waiting(self) -> int:
        return self._executor.waiting

    def cancel(self, trial_id: int) -> None:
        self._executor.cancel(trial_id)

    def overheard(self) -> list[Interim]:
        return self._executor.overheard()

    def withdraw(self) -> list[Job]:
        return self._executor.withdraw()

    def close(self) -> None:
        self._executor.close()


def busy(frame: pd.DataFrame, start: datetime, workers: int) -> Shares:
    """The shares of a search's finished trials, of columns `node`, `started_at` and `finished_at`.

    Raises:
        ConfigError: there were not trials enough for every worker and some more.
    """
    began, ended = (
        (pd.DatetimeIndex(frame[name]) - pd.Timestamp(start)).total_seconds().to_numpy()
        for name in ("started_at", "finished_at")
    )
    first = pd.Series(began).groupby(frame["node"].to_numpy()).min()
    ready, last, end = float(first.max()), float(began.max()), float(ended.max())
    if len(first) < workers:
        raise ConfigError(f"bench scale: {len(frame)} trials kept {len(first)} of {workers} workers busy; give more")
    warm = max(ready, float(np.partition(ended, workers - 1)[workers - 1]))
    if last <= warm:
        raise ConfigError(f"bench scale: the last of {len(frame)} trials began before {workers} had ended; give more")
    within = np.clip(ended, warm, last) - np.clip(began, warm, last)
    return Shares(
        startup_seconds=ready,
        warmup_seconds=warm - ready,
        steady_seconds=last - warm,
        drain_seconds=end - last,
        steady=float(within.sum() / (workers * (last - warm))),
        whole=float((ended - began).sum() / (workers * end)),
    )
