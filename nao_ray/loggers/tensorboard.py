"""TensorBoard: scalars of each trial over the log, and of each fit over the rounds.

Each trial is one record of the event file, whole or not there; so what is in the files says where to go on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nao_ray.errors import ConfigError, LoggerError
from nao_ray.loggers.base import Logger, LoggerConfig, Position, Row, Search, fit_numbers, trial_numbers


class TensorBoardConfig(LoggerConfig):
    """Where the event files are."""

    path: str | None = None
    """Folder, in which each search has one of its own; by default `tensorboard` in the pool, which must then be a local
    folder."""


class TensorBoard(Logger[TensorBoardConfig]):
    """Event files for ``tensorboard --logdir``; read back on resume, so that nothing is logged twice."""

    Config = TensorBoardConfig
    package = "tensorboard"

    def __init__(self, config: TensorBoardConfig, search: Search) -> None:
        super().__init__(config, search)
        if config.path is None and "://" in search.pool_url:
            raise ConfigError(f"loggers: tensorboard needs a path, a local folder: the pool is at {search.pool_url}")
        self._folder = Path(config.path or Path(search.pool_url) / "tensorboard")
        if config.path is not None:
            # a name may be that of several searches, whose events must not mix
            self._folder /= f"{search.name}-{hashlib.sha256(search.id.encode()).hexdigest()[:8]}"
        self._writer: Any = None

    def open(self) -> Position:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        try:
            position = self._position()
            self._writer = EventFileWriter(str(self._folder))
        except OSError as error:
            raise LoggerError(f"tensorboard: cannot write {self._folder}: {error.strerror or error}") from None
        return position

    def _position(self) -> Position:
        log_index = round_ = -1
        for step, tag in self._steps():
            if tag.startswith("fit/"):
                round_ = max(round_, step)
            elif tag.startswith("trial/"):
                log_index = max(log_index, step)
        return Position(log_index=log_index, round=round_)

    def _steps(self) -> Iterator[tuple[int, str]]:
        """Step and first tag of every record there is; one that was cut off ends its file."""
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event

        for path in sorted(self._folder.glob("events.out.tfevents.*")):
            if not os.path.getsize(path):
                continue
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                if event.summary.value:
                    yield event.step, event.summary.value[0].tag

    def log_trials(self, rows: Sequence[Row]) -> None:
        for row in rows:
            moment = row["finished_at"]
            self._add("trial", row["log_index"], trial_numbers(row), None if moment is None else moment.timestamp())
        self._flush()

    def log_fits(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._add("fit", row["round"], fit_numbers(row), None)
        self._flush()

    def _add(self, group: str, step: int, values: dict[str, float], at: float | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in values.items()]
        event = Event(wall_time=time.time() if at is None else at, step=step, summary=Summary(value=scalars))
        try:
            self._writer.add_event(event)
        except OSError as error:
            raise LoggerError(f"tensorboard: cannot write {self._folder}: {error.strerror or error}") from None

    def _flush(self) -> None:
        try:
            self._writer.flush()
        except OSError as error:
            raise LoggerError(f"tensorboard: cannot write {self._folder}: {error.strerror or error}") from None

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            raise LoggerError(f"tensorboard: cannot write {self._folder}: {error.strerror or error}") from None
