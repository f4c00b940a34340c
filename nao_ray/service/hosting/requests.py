"""What is asked of a search while it runs: through its pool, from any machine, and by signals of whoever ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from nao_ray.errors import PoolWriteError
from nao_ray.pool import PoolWriter
from nao_ray.search.clock import Clock, WallClock
from nao_ray.search.requests import Request

_log = logging.getLogger(__name__)

_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 10.0  # between two looks; each is a request to object storage
_MARGIN = 0.9  # of a notice: the rest is for ending workers and writing the report


class PoolRequests:
    """Those in a pool's mailbox, and those of signals."""

    def __init__(
        self, pool: PoolWriter, signals: Callable[[], Sequence[Request]] = lambda: (), clock: Clock | None = None
    ) -> None:
        """As described above; `signals` gives each request of a signal once."""
        self._mailbox, self._signals, self._clock = pool.mailbox, signals, clock or WallClock()
        self._every = _REMOTE_SECONDS if pool.is_remote else _LOCAL_SECONDS
        self._next = self._clock.seconds()

    def look(self) -> Sequence[Request]:
        found = list(self._signals())
        if self._clock.seconds() < self._next:
            return found
        self._next = self._clock.seconds() + self._every
        try:
            waiting = self._mailbox.waiting()
        except OSError as error:  # the next look will tell
            _log.debug("requests cannot be read: %s", error)
            return found
        for name, data in waiting:
            try:
                found.append(Request(**{**data, "name": name}))
            except TypeError:  # of another version
                self._answer(name, "refused: this driver does not know such a request")
        return found

    def answer(self, request: Request, text: str) -> None:
        _log.warning("%s: %s", request.what, text)
        if request.name:
            self._answer(request.name, text)

    def _answer(self, name: str, text: str) -> None:
        try:
            self._mailbox.answer(name, text)
        except PoolWriteError as error:  # it is asked again at the next look
            _log.warning("a request cannot be answered: %s", error)


class Signals:
    """Signals that have come: to stop, or to drain."""

    def __init__(self, notice_seconds: float | None) -> None:
        self._notice = None if notice_seconds is None else _MARGIN * notice_seconds
        self._drains: list[Request] = []
        self._is_asked = False

    def stopped(self) -> bool:
        """Whether the search is to end now."""
        return self._is_asked

    def take(self) -> list[Request]:
        """Requests to drain, each once."""
        found, self._drains = self._drains, []
        return found

    def _handle(self, number: int, at_once: bool) -> None:
        drains = number == signal.SIGUSR1 or (number == signal.SIGTERM and self._notice is not None)
        if drains and not at_once:
            self._drains = self._drains or [Request(what="drain", seconds=self._notice)]
        elif at_once or (self._is_asked and number == signal.SIGINT):
            raise KeyboardInterrupt
        else:
            self._is_asked = True


@contextmanager
def heed_signals(notice_seconds: float | None = None, *, at_once: bool = False) -> Iterator[Signals]:
    """SIGINT and SIGTERM end the search at its next turn, a second SIGINT at once.

    SIGUSR1 drains it: what runs may end. So does SIGTERM where it comes a while before the end. To be entered after
    ``ray.init``, which installs a handler of its own.

    Args:
        notice_seconds: how long before the end SIGTERM and SIGUSR1 come; None: SIGTERM comes last, and SIGUSR1 gives
            as long as what runs needs.
        at_once: they end it wherever it is.
    """
    signals = Signals(notice_seconds)

    def handle(number: int, _: FrameType | None) -> None:
        signals._handle(number, at_once)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
