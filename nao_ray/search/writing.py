"""A pool that cannot be written, e.g. on a full disk, is borne for a while: nothing is lost, it is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from nao_ray.errors import StorageError
from nao_ray.search.clock import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What the loop does with a pool that cannot be written."""

    seconds: float = 600.0
    """It goes on trying this long while running trials finish, then stops with the error."""
    pause: float = 5.0
    """Seconds between two tries."""


class Writer:
    """Tries to write, and knows when the next try is due."""

    def __init__(self, patience: Patience, clock: Clock) -> None:
        self._patience, self._clock = patience, clock
        self._next_try: float | None = None
        self._failing_since: float | None = None
        self.error: str | None = None
        """Why the pool cannot be written at the moment."""

    def write(self, write: Callable[[], object]) -> bool:
        """Whether the pool was written; otherwise the caller keeps what it has and comes again.

        Raises:
            StorageError: it could not be written, or read for it, for longer than patience lasts.
        """
        now = self._clock.seconds()
        if self.seconds_left:
            return False
        try:
            write()
        except StorageError as error:
            if self._failing_since is None:
                _log.warning("%s; trying again for %.0f s", error, self._patience.seconds)
                self._failing_since = now
            if now - self._failing_since >= self._patience.seconds:
                raise
            self._next_try, self.error = now + self._patience.pause, str(error)
            return False
        self._next_try = self._failing_since = self.error = None
        return True

    @property
    def seconds_left(self) -> float | None:
        """Until the next try; None: nothing waits to be written."""
        return None if self._next_try is None else max(0.0, self._next_try - self._clock.seconds())

    def turn(self) -> None:
        """A new turn of the loop: a try that is due does not hold up what else is to be done."""
        if self.seconds_left == 0:
            self._next_try = None
