"""What a search or a training shows while it runs: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from nao_ray.metric import Metric

PLAIN_INTERVAL_SECONDS = 5.0
"""Plain lines come no closer than this, so that the log of a search of many trials stays readable."""


class Snapshot(Protocol):
    """Where a search stands (`nao_ray.search.loop`)."""

    @property
    def done(self) -> int:
        """Trials completed."""

    @property
    def running(self) -> int:
        """Trials being trained."""

    @property
    def queued(self) -> int:
        """Trials asked that wait for a worker."""

    @property
    def failed(self) -> int:
        """Trials that failed for good."""

    @property
    def total(self) -> int | None:
        """Trials of the budget; None where the budget is time."""

    @property
    def metric(self) -> Metric:
        """What trials are measured by."""

    @property
    def best_score(self) -> float | None:
        """The best score so far, more is better."""

    @property
    def best_trial_id(self) -> int | None:
        """Who has it."""

    @property
    def best_rung(self) -> int:
        """Of a ladder of fidelities its epochs; 0: it is of the first rung, or there is none."""

    @property
    def eta_seconds(self) -> float | None:
        """Time left, once a trial has ended."""

    @property
    def note(self) -> str:
        """What is wrong at the moment; empty: nothing."""


class Progress:
    """A listener of a search, or of a training; use it as a context manager.

    Args:
        name: what is being searched, or trained.
        stream: where to write; stderr by default.
        clock: seconds, monotonic.
    """

    def __init__(self, name: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._clock = clock
        self._last: tuple[float, str] | None = None
        self._pending: str | None = None
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._log = _LogLines(self._console, name)

    def __enter__(self) -> Self:
        self._log.open()
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[line]}"),
            )
            self._bar = RichProgress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._name, total=None, line="starting")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._log.close()
        if self._pending is not None:  # the last word is always said
            _say(self._console, self._pending)

    def __call__(self, snapshot: Snapshot) -> None:
        self.show(status_line(snapshot), snapshot.done + snapshot.failed, snapshot.total)

    def show(self, line: str, completed: int, total: int | None) -> None:
        """Say how it stands, in a line."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=completed, total=total, line=line)
            self._pending = f"{self._name}: {line}"
            return
        now = self._clock()
        if self._last is not None and line == self._last[1]:
            return
        text = f"{self._name}: {line}"
        if self._last is None or now - self._last[0] >= PLAIN_INTERVAL_SECONDS:
            _say(self._console, text)
            self._last, self._pending = (now, line), None
        else:
            self._pending = text


class _LogLines(logging.Handler):
    """What nao_ray logs, above the bar and one line each."""

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(logging.INFO)
        self._console, self._name = console, name
        self._logger = logging.getLogger("nao_ray")

    def open(self) -> None:
        """Begin to listen."""
        self._before = self._logger.level
        self._logger.setLevel(min(logging.INFO, self._logger.getEffectiveLevel()))
        self._logger.addHandler(self)

    def close(self) -> None:
        """Listen no longer."""
        if self in self._logger.handlers:
            self._logger.removeHandler(self)
            self._logger.setLevel(self._before)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        _say(self._console, f"{self._name}: {' '.join(record.getMessage().split())}")


def _say(console: Console, line: str) -> None:
    with suppress(OSError):  # a full disk under the log, or a reader that has left, ends no search
        console.print(line, markup=False)


def status_line(snapshot: Snapshot) -> str:
    """``12/64 done, 2 running, 0 failed, best 0.9321 (trial 7), 1m20s left``."""
    total = f"/{snapshot.total}" if snapshot.total is not None else ""
    parts = [f"{snapshot.done}{total} done", f"{snapshot.running} running", f"{snapshot.failed} failed"]
    if snapshot.queued and not snapshot.running:
        parts.insert(2, f"{snapshot.queued} waiting for a worker")
    if snapshot.best_score is not None:
        rung = f", {snapshot.best_rung} epochs" if snapshot.best_rung else ""
        parts.append(f"best {snapshot.metric.words(snapshot.best_score)} (trial {snapshot.best_trial_id}{rung})")
    if snapshot.eta_seconds and snapshot.running:
        parts.append(f"{format_seconds(snapshot.eta_seconds)} left")
    if snapshot.note:
        parts.append(snapshot.note)
    return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """``45s``, ``1m20s``, ``3h05m``, ``5d03h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
