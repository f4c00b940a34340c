"""Proposals that are there before they are asked for: a thread of its own asks the strategy while others measure.

Whoever measures takes one when it has room, and is never kept waiting for the strategy while anything runs. A proposal
that is made early knows less: one is ready where the strategy is quick, else as many as trials may end while it thinks.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable

from nao_ray.errors import StuckSearchError
from nao_ray.metric import Metric
from nao_ray.search.executor import Completion
from nao_ray.search.session import Session
from nao_ray.search.snapshot import Snapshot
from nao_ray.trial import Fidelity, Interim, Trial

_NOTICED_SECONDS = 0.1  # a strategy that answers sooner keeps nobody waiting
_NOTICED_SHARE = 0.05  # of a trial's time, likewise
_RETRY_SECONDS = 5.0  # between two tries to write results that a pool does not take at the moment
_JOIN_SECONDS = 5.0  # a strategy that thinks longer is left to it: it can record nothing more


class Ahead:
    """Asks ahead for those who take; several threads may."""

    def __init__(
        self, session: Session, width: int, waiting: Iterable[Trial] = (), running: Iterable[int] = ()
    ) -> None:
        """As described above; `close` ends the thread.

        Args:
            session: that is asked and told.
            width: trials that run at a time, as far as is known at the start, at least 1.
            waiting: open trials of the session that are given out first.
            running: ids of open trials that somebody has.
        """
        self._session, self._width = session, max(1, width)
        self._ready = deque(waiting)
        self._running = set(running)
        self._most = len(self._running)  # that ran at a time
        self._error: BaseException | None = None
        self._asks = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="nao-ray-ahead", daemon=True)
        self._thread.start()

    def take(self, node: str | None = None, wait: float = 0.0) -> Trial | None:
        """The next trial, begun by `node`; None: none is ready.

        Args:
            node: who measures it.
            wait: seconds to wait for one, if none runs.

        Raises:
            StuckSearchError: the strategy proposes nothing although it was told everything and is not done.
            Exception: the strategy failed, or the pool cannot be written.
        """
        with self._changed:
            if not self._running:
                self._changed.wait_for(lambda: self._ready or self._error or not self._may_come, timeout=wait)
            self._raise()
            if not self._ready:
                return None
            trial = self._session.begin(self._ready[0].trial_id, node)
            if trial is None:
                return None
            self._ready.popleft()
            self._running.add(trial.trial_id)
            self._most = max(self._most, len(self._running))
            self._changed.notify_all()
            return trial

    def tell(self, completion: Completion, fidelity: Fidelity | None = None) -> Trial | None:
        """As `Session.tell`."""
        ended = self._session.tell(completion, fidelity)
        with self._changed:
            self._running.discard(completion.trial_id)
            self._changed.notify_all()
            self._raise()
        return ended

    def hear(self, interim: Interim) -> None:
        """As `Session.hear`."""
        self._session.hear(interim)

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is there to be taken, nor will be."""
        with self._changed:
            return not self._ready and not self._may_come

    @property
    def is_over(self) -> bool:
        """Whether all is measured, and written."""
        with self._changed:
            return not self._ready and not self._may_come and not self._running and not self._session.is_unwritten

    def snapshot(self, metric: Metric) -> Snapshot:
        """How it stands."""
        with self._changed:
            return self._session.snapshot(len(self._running), len(self._ready), metric)

    @property
    def ready(self) -> int:
        """Trials that are there to be taken."""
        with self._changed:
            return len(self._ready)

    def close(self) -> None:
        """End the thread; what is open stays so."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=_JOIN_SECONDS)

    @property
    def _may_come(self) -> bool:
        return self._asks or self._session.may_ask != 0

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._ready and not self._running and self._may_come and self._session.is_waiting:
            raise StuckSearchError(
                f"the strategy proposes nothing after {self._session.finished} finished trials, nothing is running and "
                "it is not done: give its space, its rounds or its population more room, or ask for fewer trials"
            )

    def _work(self) -> None:
        try:
            while (n := self._next()) is not None:
                trials = self._session.ask(n)
                with self._changed:
                    self._ready.extend(trials)
                    self._asks = False
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> int | None:
        """How many to ask for, as soon as any are wanted; None: it is the end."""
        with self._changed:
            while not self._is_closed:
                if n := self._wanted():
                    self._asks = True
                    return n
                self._changed.wait(_RETRY_SECONDS if self._session.is_unwritten else None)
                self._session.record()
        return None

    def _wanted(self) -> int:
        if not self._may_come or self._session.is_waiting:
            return 0
        return max(0, self._target() - len(self._ready))

    def _target(self) -> int:
        """How many are to be ready."""
        if not self._most:
            return self._width
        seconds, rate = self._session.seconds, self._session.rate
        if seconds <= _NOTICED_SECONDS:
            return 1
        if rate is None or rate * seconds > _NOTICED_SHARE * self._most:  # all that run may end at once
            return self._most
        return max(1, math.ceil(2 * rate * seconds))
