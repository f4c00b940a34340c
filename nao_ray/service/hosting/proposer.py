"""The controller in an actor of its own, so that workers go on while it fits. If it dies, it is rebuilt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from nao_ray.errors import NaoRayError, RunError
from nao_ray.search.proposer import Answer
from nao_ray.service.fleet.actors import StrategyActor, cause, one_line
from nao_ray.service.fleet.output import words_of
from nao_ray.strategies.base import Strategy
from nao_ray.trial import Interim, Trial

_log = logging.getLogger(__name__)

# trials sent to the actor at once, too few for Ray's object store, which would be mapped whole; and how often before it
# has taken the first
_AT_ONCE, _ON_THE_WAY = 32, 64
_SHOWN_LINES = 20  # of a controller that died
_DEATHS = 5  # of one request, before the search ends: it is the strategy, not the machine


class RayProposer:
    """A strategy actor that is always rebuilt from the pool's log: at the start, on resume, after its death."""

    def __init__(self, make: Callable[[], Strategy[Any]], log: Callable[[], Iterable[Trial]]) -> None:
        """As described above.

        Args:
            make: makes the strategy, in the actor.
            log: reads everything asked so far, finished or not, from the pool; sent to the actor bit by bit, so that it
                need not fit into this process.
        """
        self._make, self._log = make, log
        self._n: int | None = None  # of the request under way
        self._heard: list[Interim] = []  # with it
        self._call: Any = None
        self._deaths = 0
        self._start()

    def _start(self) -> None:
        # No CPU of its own: it fits while workers wait for nothing, and must find room on a full cluster.
        cls = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(StrategyActor)
        self._actor = cls.remote()
        log, sent, count = iter(self._log()), [], 0
        while some := list(islice(log, _AT_ONCE)):
            count += len(some)
            sent.append(self._actor.learn.remote(some))
            if len(sent) >= _ON_THE_WAY:  # whether it has failed, `start` will tell
                sent = ray.wait(sent, num_returns=1)[1]
        self._started = self._actor.start.remote(self._make, count)

    @property
    def pending(self) -> Sequence[Any]:
        return () if self._call is None else (self._call,)

    def request(self, n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> None:
        assert self._call is None, "one request at a time"
        self._n, self._heard = n, list(heard)
        self._call = self._actor.answer.remote(n, list(told), self._heard)

    def poll(self, timeout: float | None = None) -> Answer | None:
        """As the protocol.

        Raises:
            NaoRayError: the strategy failed, or its actor died again and again.
        """
        if self._call is None or not ray.wait([self._call], num_returns=1, timeout=timeout)[0]:
            return None
        try:
            if self._started is not None:
                ray.get(self._started)
            answer: Answer = ray.get(self._call)
        except RayTaskError as error:
            inner = cause(error)
            if isinstance(inner, NaoRayError):
                raise inner from None
            raise RunError(f"the strategy failed: {one_line(error)}") from inner
        except RayError as error:
            self._rebuild(error)
            return None
        self._call = self._started = None
        self._deaths = 0
        return answer

    def _rebuild(self, error: RayError) -> None:
        """A new actor from the pool, which has everything the old one was told, and the same request again."""
        self._deaths += 1
        what, words = " ".join(str(error).split())[:300], words_of(error)
        if self._deaths >= _DEATHS:
            last = f"; its last line: {words[-1].strip()}" if words else ""
            raise RunError(f"the controller died {self._deaths} times at one request: {what}{last}")
        _log.warning("the controller died and is rebuilt from the pool: %s", what)
        if words:
            _log.warning("its last lines:\n  %s", "\n  ".join(words[-_SHOWN_LINES:]))
        self._kill()
        self._start()
        self._call = self._actor.answer.remote(self._n, [], self._heard)

    def _kill(self) -> None:
        try:
            ray.kill(self._actor, no_restart=True)
        except (RayError, ValueError):
            _log.debug("the controller was gone already", exc_info=True)

    def close(self) -> None:
        self._kill()
