"""What Ray does not notice: workers that hang or take too long. Only those whose moment has come are looked at."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from nao_ray.search.clock import Clock
from nao_ray.service.fleet.worker import Worker

_TURN_SECONDS = 5.0  # a turn of the loop is shorter, unless the driver was stopped or had to wait for a disk


class AwakeSeconds:
    """Seconds in which this driver was awake: while it stood still, nobody was silent and nothing took too long."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._last, self._awake = clock, clock.seconds(), 0.0

    def turn(self) -> float:
        """A turn of the loop begins; the seconds until now."""
        last, self._last = self._last, self._clock.seconds()
        self._awake += min(self._last - last, _TURN_SECONDS)
        return self._awake

    def __call__(self) -> float:
        """The seconds until this turn began."""
        return self._awake


class Watchlist:
    """When each worker is to be looked at next: a heap, in which only a worker's earliest entry counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._workers: dict[int, tuple[float, Worker]] = {}

    def set(self, worker: Worker, at: float) -> None:
        """Look at a worker at this moment."""
        if self._workers.get(worker.number, (math.nan,))[0] != at:
            self._workers[worker.number] = at, worker
            heapq.heappush(self._heap, (at, worker.number))

    def drop(self, worker: Worker) -> None:
        """It is not there any more, or has no call."""
        self._workers.pop(worker.number, None)

    def due(self, now: float) -> Iterator[Worker]:
        """Those whose moment is before `now`; each is to be set anew."""
        while self._heap and self._heap[0][0] < now:
            at, number = heapq.heappop(self._heap)
            if self._workers.get(number, (math.nan,))[0] == at:
                yield self._workers.pop(number)[1]
