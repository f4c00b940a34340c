"""Loggers follow the pool, beside the search: a slow or dead one holds up nobody, and what it missed comes later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

from nao_ray.errors import LoggerError, PoolError, StorageError
from nao_ray.loggers.base import COLUMNS, Logger, Row
from nao_ray.pool import RANKED, PoolReader, standings
from nao_ray.standings import Standings
from nao_ray.trial import TrialState

_log = logging.getLogger(__name__)

_EVERY = 2.0  # seconds
_PAUSE = 60.0  # seconds after a failure
_LAST_WORDS = 30.0  # seconds for what is left at the end
_BATCH = 500
_TRIALS = tuple(dict.fromkeys((*RANKED, "log_index", "genotype", "finished_at", *COLUMNS)))


class Follower:
    """Tells a logger what the pool has and the log has not, in a thread of its own."""

    def __init__(self, pool_url: str, logger: Logger[Any]) -> None:
        """Opens the logger.

        Raises:
            LoggerError: it cannot be reached or written.
        """
        self._pool, self._logger = PoolReader.open(pool_url), logger
        self._logged: set[tuple[Any, Any]] | None = None  # keys of fits; None: the log's position alone is known
        self._restart()
        with suppress(PoolError, StorageError):  # then at the first step
            self._new_fits()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"nao-ray-{logger.package}", daemon=True)
        self._thread.start()

    def _restart(self) -> None:
        """From what the log has; the pool is read from its beginning, for the best so far."""
        self._position = self._logger.open()
        self._next_index = self._position.log_index + 1
        if self._logged is not None:
            self._logged = {key for key in self._logged if key[0] <= self._position.round}
        self._tail = self._pool.follow("trials", _TRIALS)
        self._standings = Standings()

    def _keep(self) -> None:
        failed_at: float | None = None
        while True:
            over = self._stop.wait(_EVERY)
            if failed_at is not None and not over and time.monotonic() - failed_at < _PAUSE:
                continue
            try:
                if failed_at is not None:
                    self._restart()
                self._step()
                self._logger.look()
                failed_at = None
                if over:
                    self._logger.close()
            except (LoggerError, PoolError, StorageError) as error:
                if failed_at is None:
                    _log.warning("%s; the search goes on, what is missing will be logged later", error)
                failed_at = time.monotonic()
            if over:
                return

    def _step(self) -> None:
        rows = [row for row in self._new_rows() if row["log_index"] >= self._next_index]
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            self._logger.log_trials(batch)
            self._next_index = batch[-1]["log_index"] + 1
        logged, fits = self._new_fits()
        if fits:
            self._logger.log_fits(fits)
            logged.update(map(_key, fits))

    def _new_fits(self) -> tuple[set[tuple[Any, Any]], list[Row]]:
        """The keys of what is in the log, and the rows that are not: of a slow training, of an earlier round."""
        rows = self._pool.diagnostics()
        if self._logged is None:
            self._logged = {_key(row) for row in rows if row["round"] <= self._position.round}
        return self._logged, [row for row in rows if _key(row) not in self._logged]

    def _new_rows(self) -> Iterator[Row]:
        last = -1
        data = self._tail.read().sort_by("log_index")
        for row, standing in zip(data.to_pylist(), standings(data), strict=True):
            if row["log_index"] == last:
                continue
            last = row["log_index"]
            is_best, best = self._standings.add(standing), self._standings.best
            yield row | {
                "score": None if standing is None else standing.score,
                "best_score": None if best is None else best.score,
                "is_best": is_best,
                "failed": int(row["state"] == TrialState.FAILED),
            }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._logger.is_over = kind is None
        self.close()

    def close(self) -> None:
        """Log what is left, for up to half a minute."""
        self._stop.set()
        self._thread.join(timeout=_LAST_WORDS)
        if self._thread.is_alive():
            _log.warning("%s is slow: what is missing will be logged on resume", self._logger.package)


def _key(row: Row) -> tuple[Any, Any]:
    """What tells a fit from the others."""
    return row["round"], row.get("seed_index")
