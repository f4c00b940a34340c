"""Time is an argument: the wall's, or a virtual one that only moves when something ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """What the loop knows of time."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    def seconds(self) -> float:
        """Seconds since some fixed moment; never runs backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` go by."""
        ...


class WallClock:
    """Real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def seconds(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class VirtualClock:
    """Starts at a fixed moment and is moved by whoever simulates: the same run has the same times."""

    START = datetime(2020, 1, 1, tzinfo=UTC)

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._seconds = 0.0

    def now(self) -> datetime:
        return self.at(self._seconds)

    def at(self, seconds: float) -> datetime:
        """The time of day `seconds` after the start."""
        return self._start + timedelta(seconds=seconds)

    def seconds(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        self.advance_to(self._seconds + seconds)

    def advance_to(self, seconds: float) -> None:
        """Move to `seconds` after the start; never back."""
        self._seconds = max(self._seconds, seconds)


class Moment(NamedTuple):
    """A moment of a virtual clock, as a handle of what is ready then: for `Executor.wait`."""

    seconds: float
    """After the start."""
