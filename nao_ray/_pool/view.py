"""A search at a moment, as whoever watches it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nao_ray.metric import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished trial, as it is shown."""

    trial_id: int
    state: str
    score: float | None
    """More is better (`Metric.score`); None for one that failed or only trained shared weights."""
    genotype: str
    round: int | None
    num_params: int | None
    weights_version: str | None
    """The shared weights that the score was taken with."""
    epochs: int | None
    """That its network was trained in all; on a ladder of fidelities its rung."""
    wall_seconds: float | None
    node: str | None
    failure_kind: str | None
    failure_message: str | None
    finished_at: float | None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Who holds the lease."""

    state: Literal["alive", "stale", "none"]
    """`stale`: it neither gave the pool back nor says that it is alive; `none`: nobody holds it."""
    host: str | None = None
    pid: int | None = None
    epoch: int = 0
    silent_seconds: float | None = None
    """Since its last heartbeat."""
    note: str = ""
    """What it says is wrong: why it pauses, devices that are set aside; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class View:
    """A search at a moment."""

    pool: str
    name: str | None
    strategy: str | None
    space: str | None
    task: str | None
    budget_trials: int | None
    """Or what the search comes to, as its driver says while it lives, else as the strategy planned at the start, if
    that is less; with those that were asked for again. A resumed search may have another budget."""
    completed: int
    failed: int
    running: int
    waiting: int
    """Asked and not at work: in the queue, or left by a driver that is gone."""
    failures: dict[str, int]
    """Failed trials by kind."""
    metric: Metric
    """What trials are measured by."""
    best: Finished | None
    """As `PoolReader.best` ranks them (`Standings`)."""
    last: tuple[Finished, ...]
    """The last ones to finish, newest first."""
    trend: tuple[float, ...]
    """Mean score of each of up to 40 equal stretches of the log, in order; of a ladder none."""
    trials_per_hour: float | None
    """Lately; see `nao_ray._pool.pace`."""
    busy_share: float | None
    """Estimated share of the workers' time that went into trials lately, in [0, 1]."""
    workers: int | None
    """As configured, or as many as were seen at work at once."""
    has_ended: bool
    """A trial of the present driver has ended; before, those that run may still wait for a worker."""
    eta_seconds: float | None
    """To the end, as the driver says; where it does not, at the rate when the last trial ended to the end of the
    budget, less the time since. None without a driver, and before a trial of it has ended."""
    driver: Driver
    command: str | None = None
    """What handed the search in to a cluster, and goes on with it; None: it was started where its driver ran."""
    rungs: dict[int, int] = field(default_factory=dict)
    """Of a ladder of fidelities the finished trials by their epochs; {}: there is none."""
    sharing: tuple[str, ...] = ()
    """How many trials a GPU has at a time, a line for each kind, where that is measured."""

    @property
    def finished(self) -> int:
        """Completed or failed."""
        return self.completed + self.failed

    @property
    def progress(self) -> str:
        """In words: ``12 of 50 trials, 1 failed, 2 running``."""
        total = f" of {self.budget_trials:,}" if self.budget_trials is not None else ""
        trials = "trial" if self.finished == 1 and not total else "trials"
        running = f", {self.running:,} running" if self.running else ""
        silent = ", its driver is silent" if self.driver.state == "stale" else ""
        return f"{self.finished:,}{total} {trials}, {self.failed:,} failed{running}{silent}"

    @property
    def line(self) -> str:
        """As `progress`, with the best in its own unit: ``..., best loss 0.31 (trial 7)``."""
        if self.best is None or self.best.score is None:
            return self.progress
        return f"{self.progress}, best {self.metric.words(self.best.score)} (trial {self.best.trial_id})"

    def __repr__(self) -> str:
        pace = [] if self.trials_per_hour is None else [f"{self.trials_per_hour:,.0f} an hour"]
        driver = {"alive": "its driver is alive", "stale": "", "none": "no driver"}[self.driver.state]
        return f"<View {', '.join(filter(None, (self.line, *pace, driver)))}>"
