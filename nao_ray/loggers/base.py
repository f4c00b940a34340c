"""What follows a search into a tool of its own: a logger is told what the pool has, and nothing depends on it."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from nao_ray.errors import ConfigError
from nao_ray.metric import BY_COLUMN
from nao_ray.settings import Settings

COLUMNS = (
    *BY_COLUMN, "valid_loss", "train_loss", "predicted_score", "num_params", "macs", "wall_seconds", "device_seconds",
    "peak_memory_bytes", "round",
)  # fmt: skip
"""Numbers of a trial that are logged, by their names in the pool; besides `score`, `best_score`, `failed`."""

Row = Mapping[str, Any]


class LoggerConfig(Settings):
    """Settings of a logger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is logged."""

    name: str
    id: str
    """The same whenever the search goes on."""
    pool_url: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a log has come; -1 before anything."""

    log_index: int = -1
    """Of the last trial."""
    round: int = -1
    """The highest of a fit."""


C = TypeVar("C", bound=LoggerConfig)


class Logger(ABC, Generic[C]):
    """A log of a search, elsewhere. A trial's step is its `log_index`, a fit's its `round`: each is logged once."""

    Config: ClassVar[type[LoggerConfig]] = LoggerConfig
    package: ClassVar[str]
    """What has to be installed; also the name of nao_ray's extra that installs it."""

    is_over = False
    """Whether the search has come to its end, and was not interrupted; said before `close`."""

    def __init__(self, config: C, search: Search) -> None:
        """Nothing is opened yet.

        Raises:
            ConfigError: the package is not installed, or a setting does not fit the search.
        """
        self.config, self.search = config, search
        if importlib.util.find_spec(self.package) is None:
            raise ConfigError(
                f"loggers: {self.package} is not installed: pip install 'nao-ray[{self.package}]', or leave it out"
            )

    @abstractmethod
    def open(self) -> Position:
        """Get ready, and say what the log has already.

        Raises:
            LoggerError: it cannot be reached or written.
        """

    @abstractmethod
    def log_trials(self, rows: Sequence[Row]) -> None:
        """Finished trials in the order of the log, each after the last one logged.

        A row has `trial_id`, `log_index`, `genotype`, `finished_at`, `score` (more is better), `best_score` (at that
        moment, as `Standings` has it), `is_best`, `failed` and `COLUMNS`.

        Raises:
            LoggerError: it cannot be reached or written; the search goes on.
        """

    @abstractmethod
    def log_fits(self, rows: Sequence[Row]) -> None:
        """Rows of the strategy's diagnostics, in the order of `round`.

        Trainings side by side have a `seed_index` each: a slow one's rows may come after others of later rounds.

        Raises:
            LoggerError: as above.
        """

    def look(self) -> None:
        """Every few seconds, with whatever was finished meanwhile already told.

        Raises:
            LoggerError: as above.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and end.

        Raises:
            LoggerError: as above.
        """


def numbers(row: Row, names: Sequence[str] | None = None) -> dict[str, float]:
    """The numbers in a row, by name; what is missing or no number is left out."""
    given = row if names is None else {name: row.get(name) for name in names}
    return {name: float(value) for name, value in given.items() if isinstance(value, int | float)}


def fit_numbers(row: Row) -> dict[str, float]:
    """What is logged of a fit; of several trainings side by side the name begins with that of its training."""
    found, index = numbers(row), row.get("seed_index")
    return found if index is None else {f"seed_{index}/{name}": value for name, value in found.items()}


def trial_numbers(row: Row) -> dict[str, float]:
    """What is logged of a finished trial."""
    return numbers(row, ("score", "best_score", "failed", *COLUMNS))
