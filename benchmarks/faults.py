"""Faults on purpose: a seeded plan of them, and who carries it out on a running search.

Every kind is what happens to real searches, done from outside to real processes and files: no code of the search knows
of it. Children that fail by themselves are the evaluator's part (`faulty`).
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.site import Driver, Nodes, Parts
from nao_ray import rng

KINDS = ("driver", "worker", "controller", "node", "stall", "disk", "cut")
"""SIGKILL of the driver, of a worker or of the controller; a worker's node lost, a fresh one later; a worker stopped;
the driver's disk full for seconds; the driver killed and its newest part cut, as when a machine loses power."""

_WORKER, _CONTROLLER = "ray::EvaluatorActor.evaluate", "ray::StrategyActor"
"""Titles of processes, set by Ray: a worker that evaluates, not one that starts, waits or is being ended."""
_FAILED_WRITE = "trying again for"  # what the driver says of one (`search.writing`)
_END_SECONDS = 20.0  # in which Ray has ended a stopped process that it was told to end
_LOOK_SECONDS = 0.2  # between two looks whether a write has failed
_FULL = 1024  # bytes that a file may have: the lease, which is written in place, but no part


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    kind: str
    """One of `KINDS`."""
    moment: int
    """It waits for so many finished trials ..."""
    delay: float
    """... and then for so many seconds."""
    size: float
    """In [0, 1): how long the disk stays full or a node away, how much of a part is left."""


@dataclass(slots=True)
class Struck:
    """A fault that was carried out."""

    fault: Fault
    at: float
    """Seconds of `time.time`."""
    seconds: float | None = None
    """Until a trial that started later, after a controller's loss one that was asked later, was in the pool."""


def plan(faults: int, trials: int, workers: int, seed: int, delay: float = 0.2) -> list[Fault]:
    """Faults spread over a search, in order of their moments; of each kind as many as of every other, or one more.

    Args:
        faults: how many.
        trials: of the search; the last ones are left alone, so that a fault finds something running.
        workers: of the search.
        seed: of kinds, moments, delays and sizes.
        delay: the longest, in seconds.
    """
    draw = rng.child(seed, "chaos")
    kinds = draw.permutation(np.resize(draw.permutation(KINDS), faults))
    last = max(2, trials - 3 - 3 * workers)
    moments = [1 + int((i + draw.random()) / faults * (last - 1)) for i in range(faults)]
    return [
        Fault(str(kind), moment, float(draw.uniform(0, delay)), float(draw.random()))
        for kind, moment in zip(kinds, moments, strict=True)
    ]


class Injector:
    """Carries out faults, in order, each once the search went on after the last. `step` is to be called often."""

    def __init__(self, faults: Sequence[Fault], driver: Driver, nodes: Nodes, parts: Parts) -> None:
        self._waiting = deque(faults)
        self._driver, self._nodes, self._parts = driver, nodes, parts
        self._ready_since: float | None = None
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.struck: list[Struck] = []
        self.problems: list[str] = []
        """Faults that were none."""
        self._stopped: list[psutil.Process] = []
        self._is_closing = False

    @property
    def waiting(self) -> int:
        """Faults to come."""
        return len(self._waiting)

    def step(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        due = [action for at, action in self._later if at <= now]
        self._later = [(at, action) for at, action in self._later if at > now]
        for action in due:
            action()
        now = time.monotonic()  # a node takes seconds to join
        if not self._is_recovered() or not self._waiting or self._parts.count() < self._waiting[0].moment:
            return
        if self._ready_since is None:
            self._ready_since = now
        fault = self._waiting[0]
        if now - self._ready_since < fault.delay:
            return
        at = self._strike(fault)
        if at is not None:
            self._waiting.popleft()
            self._ready_since = None
            self.struck.append(Struck(fault, at))

    def note_end(self) -> None:
        """The search has ended: the last fault may have been recovered from."""
        self._is_recovered()

    def close(self) -> list[int]:
        """Take back what has not ended; ids of the processes that were stopped and, seconds later, still are there."""
        try:
            self._is_closing = True
            for _, action in self._later:
                action()
        finally:
            self._later = []
            _, alive = psutil.wait_procs(self._stopped, timeout=_END_SECONDS)
            for process in alive:
                process.kill()
        return [process.pid for process in alive]

    def _is_recovered(self) -> bool:
        """Whether the search went on after the last fault; a trial that ran when it came proves nothing."""
        last = self.struck[-1] if self.struck else None
        if last is not None and last.seconds is None:
            column = "asked_at" if last.fault.kind == "controller" else "started_at"
            written = self._parts.written_after(last.at, column)
            last.seconds = None if written is None else written - last.at
        return last is None or last.seconds is not None

    def _strike(self, fault: Fault) -> float | None:
        """When it was done; None: it could not be, a worker, say, may just be starting; then it is tried again."""
        with suppress(psutil.NoSuchProcess):
            match fault.kind:
                case "driver":
                    return self._start_again()
                case "worker":
                    return self._signal(_WORKER, signal.SIGKILL)
                case "controller":
                    return self._signal(_CONTROLLER, signal.SIGKILL)
                case "node":
                    return self._lose_node(1 + 4 * fault.size)
                case "stall":
                    return self._signal(_WORKER, signal.SIGSTOP)
                case "disk":
                    return self._fill_disk(1 + 4 * fault.size)
                case "cut":
                    folder = self._driver.pool / ("trials" if fault.size < 0.5 else "events")
                    return self._start_again(lambda: cut_newest(folder, 2 * fault.size % 1))
        return None

    def _start_again(self, meanwhile: Callable[[], object] = lambda: None) -> float:
        at = time.time()
        self._driver.kill()
        meanwhile()
        self._driver.start()
        return at

    def _signal(self, title: str, number: int) -> float | None:
        found = self._nodes.newest(title)
        if found is None:
            return None
        at = time.time()
        found[1].send_signal(number)
        if number == signal.SIGSTOP:
            self._stopped.append(found[1])
        return at

    def _lose_node(self, seconds: float) -> float | None:
        """The node of a worker; a fresh one joins after so many seconds."""
        found = self._nodes.newest(_WORKER)
        if found is None:
            return None
        at = time.time()
        self._nodes.kill(found[0])
        self._later.append((time.monotonic() + seconds, self._nodes.join))
        return at

    def _fill_disk(self, seconds: float) -> float:
        """For so long no file of the driver grows beyond `_FULL` bytes: writes fail, errno EFBIG; one at least does."""
        process = psutil.Process(self._driver.process.pid)
        said = self._driver.said(_FAILED_WRITE)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        at = time.time()
        process.rlimit(psutil.RLIMIT_FSIZE, (_FULL, before[1]))

        def free() -> None:
            has_failed = self._driver.said(_FAILED_WRITE) > said
            if not has_failed and not self._is_closing:
                self._later.append((time.monotonic() + _LOOK_SECONDS, free))
                return
            if not has_failed:
                self.problems.append("the disk was full, and no write failed")
            with suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, before)

        self._later.append((time.monotonic() + seconds, free))
        return at


def cut_newest(folder: Path, left: float) -> str:
    """Leave this share, in [0, 1), of the part of `trials` or `events` that was written last; returns its name.

    The newest alone: older ones were on disk before it was written.
    """
    part = max(path for path in folder.glob("*.parquet") if path.name[0] != ".")
    os.truncate(part, int(left * part.stat().st_size))
    return part.name
