"""MLflow: one run per search; metrics of each trial over the log, and of each fit over the rounds.

How far the log has come is a tag that travels with the metrics. What a crash leaves between the two comes again with
the same step, time and value, which a tracking server keeps once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from nao_ray.addresses import masked
from nao_ray.errors import LoggerError
from nao_ray.loggers.base import Logger, LoggerConfig, Position, Row, Search, fit_numbers, trial_numbers

T = TypeVar("T")
_Step = tuple[int, datetime | None, dict[str, float]]

_SEARCH, _TRIALS, _FITS, _BEST = "nao_ray.search", "nao_ray.last_log_index", "nao_ray.last_round", "nao_ray.best"
_MOST = 1000  # metrics in one call
_MOST_PARAMS = 100
_LONGEST = 500  # characters of a parameter


class MLflowConfig(LoggerConfig):
    """Which tracking server."""

    tracking_uri: str | None = None
    """By default what ``MLFLOW_TRACKING_URI`` says."""
    experiment: str = "nao_ray"


class MLflow(Logger[MLflowConfig]):
    """A run on a tracking server; found again by the search's id on resume."""

    Config = MLflowConfig
    package = "mlflow"

    def __init__(self, config: MLflowConfig, search: Search) -> None:
        super().__init__(config, search)
        self._client: Any = None
        self._run: str = ""
        self._last: dict[str, int] = {}  # by tag

    def open(self) -> Position:
        # a search tells no third party that it runs, and does not wait minutes for a server that is down
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        return self._call(self._open)

    def _open(self) -> Position:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self.config.tracking_uri)
        experiment = self._client.get_experiment_by_name(self.config.experiment)
        where = experiment and experiment.experiment_id
        where = where or self._client.create_experiment(self.config.experiment)
        # no quotes can be in an id: it is made of a name and a time
        found = self._client.search_runs([where], f"tags.`{_SEARCH}` = '{self.search.id}'", max_results=1)
        if not found:
            self._begin(where)
            return Position()
        run = found[0]
        self._run = run.info.run_id
        self._client.update_run(self._run, status="RUNNING")
        tags = run.data.tags
        self._last = {tag: int(tags.get(tag, -1)) for tag in (_TRIALS, _FITS)}
        return Position(log_index=self._last[_TRIALS], round=self._last[_FITS])

    def _begin(self, where: str) -> None:
        from mlflow.entities import Param

        tags = {_SEARCH: self.search.id, "nao_ray.pool": self.search.pool_url}
        self._run = self._client.create_run(where, tags=tags, run_name=self.search.name).info.run_id
        params = [Param(name, str(value)[:_LONGEST]) for name, value in _flat(self.search.config)]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run, params=params[first : first + _MOST_PARAMS])

    def log_trials(self, rows: Sequence[Row]) -> None:
        best = next((row for row in reversed(rows) if row["is_best"]), None)
        tags = {} if best is None else {_BEST: f"trial {best['trial_id']}: {best['genotype']}"}
        self._log("trial", [(row["log_index"], row["finished_at"], trial_numbers(row)) for row in rows], _TRIALS, tags)

    def log_fits(self, rows: Sequence[Row]) -> None:
        self._log("fit", [(row["round"], None, fit_numbers(row)) for row in rows], _FITS, {})

    def _log(self, group: str, steps: Sequence[_Step], tag: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        batch: list[Metric] = []
        last = self._last.get(tag, -1)
        for step, moment, values in steps:
            if len(batch) + len(values) > _MOST:
                self._send(batch, [RunTag(tag, str(last))])
                batch = []
            at = int(1000 * (time.time() if moment is None else moment.timestamp()))
            batch += [Metric(f"{group}/{name}", value, at, step) for name, value in values.items()]
            last = self._last[tag] = max(last, step)
        if batch:
            self._send(batch, [RunTag(tag, str(last)), *(RunTag(name, text) for name, text in tags.items())])

    def _send(self, metrics: list[Any], tags: list[Any]) -> None:
        self._call(lambda: self._client.log_batch(self._run, metrics=metrics, tags=tags))

    def _call(self, work: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException

        try:
            return work()
        except (MlflowException, ImportError, OSError) as error:  # its databases are imported where they are used
            uri = (self.config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "MLflow's default").rstrip("/")
            where = masked(uri)  # with its password it may be in MLflow's own words, too
            said = " ".join(str(error).replace(uri, where).split())[:300]
            raise LoggerError(f"mlflow: cannot log to {where}: {said}") from None

    def close(self) -> None:
        if self._run:
            self._call(lambda: self._client.set_terminated(self._run))


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
