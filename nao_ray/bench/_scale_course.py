"""When the trials of a search ended, and what its driver spent."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import NamedTuple


class _Mark(NamedTuple):
    seconds: float
    cpu_seconds: float
    """Of this process, the driver."""
    finished: int
    running: int


class Cost(NamedTuple):
    """Of a trial, over a part of a search."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of the driver."""
    busy: float
    """Workers with a trial, on the mean."""


class Course:
    """Marks of a search, from its start on."""

    def __init__(self) -> None:
        self._marks = [_Mark(time.perf_counter(), time.process_time(), 0, 0)]

    def add(self, finished: int, running: int) -> None:
        """So many trials have ended by now, and so many run."""
        self._marks.append(_Mark(time.perf_counter(), time.process_time(), finished, running))

    @property
    def finished(self) -> int:
        """Trials ended."""
        return self._marks[-1].finished

    def cost(self, skip: float) -> Cost:
        """Of a trial, when the share `skip` of them had ended until the last one."""
        marks = [mark for mark in self._marks if mark.finished and mark.finished >= skip * self.finished]
        first, last = marks[0], marks[-1]
        count, seconds = last.finished - first.finished, last.seconds - first.seconds
        turns = pairwise(marks)
        running = sum(mark.running * (after.seconds - mark.seconds) for mark, after in turns)
        return Cost(seconds / count, (last.cpu_seconds - first.cpu_seconds) / count, running / seconds)
