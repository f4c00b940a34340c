"""Calls under way. Ray says of each when it has ended: nothing is searched, however many there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from nao_ray.service.fleet.worker import Worker

_GATHER_SECONDS = 0.002  # after a result, for those that come with it: they are recorded in one write


class Ended(NamedTuple):
    """A call of a worker that has ended."""

    worker: Worker
    call: Any
    result: Future[Any]


class Calls:
    """Hears from Ray, in whatever thread, and hands on in the caller's."""

    def __init__(self) -> None:
        self._ended: SimpleQueue[Ended | None] = SimpleQueue()
        self._wakes: dict[Any, Future[Any]] = {}

    def add(self, worker: Worker, call: Any) -> None:  # noqa: ANN401
        """A call was made."""
        call.future().add_done_callback(lambda result: self._ended.put(Ended(worker, call, result)))

    def take(self, timeout: float, wake: Sequence[Any] = ()) -> list[Ended]:
        """Those that have ended since, in order; waits for one, or for one of `wake`, so many seconds at most."""
        if self._wake_on(wake):
            timeout = 0.0
        try:
            first = self._ended.get(timeout=timeout) if timeout > 0 else self._ended.get_nowait()
        except Empty:
            return []
        if timeout > 0:
            time.sleep(min(_GATHER_SECONDS, timeout))
        found = [first]
        for _ in range(self._ended.qsize()):
            found.append(self._ended.get_nowait())
        return [ended for ended in found if ended is not None]

    def _wake_on(self, wake: Sequence[Any]) -> bool:
        """Be told of these from now on; whether one of them is ready."""
        before, self._wakes = self._wakes, {}
        for call in wake:
            self._wakes[call] = before.get(call) or call.future()
            if call not in before:
                self._wakes[call].add_done_callback(lambda _: self._ended.put(None))
        return any(future.done() for future in self._wakes.values())
