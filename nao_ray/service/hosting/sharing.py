"""What a search finds of sharing GPUs goes into its pool, so that one that goes on need not find it again."""

from __future__ import annotations

import logging

from nao_ray.errors import PoolWriteError
from nao_ray.pool import PoolWriter
from nao_ray.search.snapshot import Snapshot
from nao_ray.sharing import Shared

_log = logging.getLogger(__name__)


class SharingRecorder:
    """A listener of a search."""

    def __init__(self, pool: PoolWriter) -> None:
        """The pool's lease is held by the caller."""
        self._pool = pool
        self._last: tuple[Shared, ...] = ()

    def __call__(self, snapshot: Snapshot) -> None:
        """Record what has changed; a search does without what cannot be written, until it changes again.

        Raises:
            FencedError: another driver has taken over the pool.
        """
        if snapshot.sharing == self._last:
            return
        self._last = snapshot.sharing
        try:
            self._pool.record_sharing(self._last)
        except PoolWriteError as error:
            _log.warning("how many trials share a GPU is not recorded: %s", error)
