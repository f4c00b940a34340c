"""A pool as the page is told of it: read once, then what is new alone, by as many threads as ask.

What is asked together is read together: the columns, how the search stands, and everything else have each a reader of
their own, with a lock.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.addresses import masked
from nao_ray.errors import NaoRayError
from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.page import frames, trial
from nao_ray.page.columns import READ, Columns
from nao_ray.page.trial import Json, plain
from nao_ray.pool import Limits, PoolReader, Tail, Watch
from nao_ray.report import tables
from nao_ray.report.facts import name_of
from nao_ray.report.facts import plain as plain_manifest
from nao_ray.report.labels import is_recurrent, op_label
from nao_ray.report.write import facts_of, film_page, moves
from nao_ray.spaces.base import SearchSpace

MAPPED = 20_000
"""Embeddings that are shown: they are most of a trial's row."""
_BASIS = 3000  # embeddings that the axes are found by
TEXTS = 500
"""Trials whose genotypes are asked for at once."""
SQL = Limits(rows=1000, seconds=30)
_LOOK = 1.0
"""Seconds within which a look is new enough."""

MakeSpace = Callable[[PoolReader], SearchSpace[Any]]


class LivePool:
    """One pool of the page."""

    def __init__(self, url: str, make_space: MakeSpace) -> None:
        """Reads the manifest.

        Args:
            url: folder or URL.
            make_space: gives the space of a pool.

        Raises:
            PoolError: there is no pool, or it is of a newer nao_ray.
        """
        self.reader = PoolReader.open(url)
        self._make_space = make_space
        self._series = secrets.token_hex(4)
        self._reading, self._watching, self._other = RLock(), RLock(), RLock()
        self._tail: Tail = PoolReader.open(url).follow("trials", READ)
        self._looked = -_LOOK
        self.error: str | None = None
        """Why the last look at its trials failed."""
        self._watch: Watch | None = None
        self._report: tuple[int, Json] | None = None
        self._map: tuple[int, bytes] | None = None

    @cached_property
    def space(self) -> SearchSpace[Any]:
        """The pool's."""
        return self._make_space(self.reader)

    def stream(self, ids: Sequence[int] | None) -> Iterator[pa.Table]:
        """Whole rows of all trials, or of `ids`, a few hundred at a time.

        Raises:
            PoolError: a part is damaged.
        """
        return PoolReader.open(self.reader.url).stream_trials(ids)

    @cached_property
    def metric(self) -> Metric:
        """What its trials are measured by."""
        if "metric" in self.reader.manifest:
            return self.reader.metric
        return tables.metric_of(self.reader.manifest, self.reader.trials(list(BY_COLUMN)))  # older than metrics

    @cached_property
    def _columns(self) -> Columns:
        def operations(text: str) -> Sequence[str]:
            try:
                return [op for ops in self.space.ops_by_cell(self.space.parse(text)).values() for op in ops]
            except NaoRayError:  # of a space that has changed since
                return []

        return Columns(self.metric, operations, lambda op: op_label(self._op_names.get(op, op)))

    @cached_property
    def _op_names(self) -> Mapping[str, str]:
        try:
            return self.space.op_names
        except NaoRayError:  # the user's own, and not to be found here: its trials are shown, without cells
            return {}

    @cached_property
    def _is_recurrent(self) -> bool:
        try:
            graph = self.space.lower(self.space.sample(rng.child(0, "page")))
        except NaoRayError:
            return False
        return any(is_recurrent(cell) for _, cell in graph.cells)

    # -- what is asked ------------------------------------------------------------------------------------

    def described(self) -> Json:
        """What it is, from its manifest."""
        manifest = plain_manifest(self.reader.manifest)
        config = manifest.get("config")
        config = config if isinstance(config, Mapping) else {}
        names = {kind: _component(config, kind) for kind in ("space", "strategy", "task", "evaluator")}
        budget = config.get("budget")
        return {
            "url": masked(self.reader.url),
            "name": name_of(manifest),
            **names,
            "facts": tables.search_facts(manifest),
            "metric": {
                "name": self.metric.name,
                "label": self.metric.label,
                "unit": self.metric.unit,
                "more_is_better": self.metric.more_is_better,
            },
            "is_recurrent": self._is_recurrent,
            "budget_trials": budget.get("trials") if isinstance(budget, Mapping) else None,
            "constraints": _constraints(config.get("constraints")),
            "objectives": [str(name) for name in config.get("objectives") or ()],
            "rungs": list(self.reader.rungs),
            "error": self.error,
        }

    def columns(self, since: int = 0, series: str = "") -> bytes:
        """The rows from `since` on of a page that has the others of this `series`; else all. See `frames`.

        Raises:
            PoolError: a part is damaged.
            PoolReadError: the pool cannot be read at the moment.
        """
        with self._reading:
            rows = self._look()
            first = since if series == self._series and 0 <= since <= rows else 0
            columns, labels = self._columns.since(first)
            header = {"series": self._series, "since": first, "total": rows, "labels": labels}
            return frames.encode(header, columns)

    def whole(self) -> tuple[dict[str, frames.Column], dict[str, list[str]]]:
        """All columns, and their labels.

        Raises:
            PoolError: a part is damaged.
        """
        with self._reading:
            self._look()
            return self._columns.since(0)

    def _look(self) -> int:
        """Read what is new, unless somebody just has; returns how many rows there are."""
        if time.monotonic() - self._looked >= _LOOK:
            try:
                self._tail.feed(self._columns.add)
            except NaoRayError as error:
                self.error = str(error)
                raise
            self.error, self._looked = None, time.monotonic()
        return self._columns.rows

    def map(self) -> bytes:
        """Embeddings on their two principal axes, evenly many of all trials. See `frames`.

        Raises:
            PoolError: a part is damaged.
        """
        columns, _ = self.whole()
        done = np.empty(0, np.int32)
        if "value" in columns and "round" in columns:
            done = columns["trial_id"][np.isfinite(columns["value"]) & (columns["round"] >= 0)]
        with self._other:
            if self._map is None or len(done) != self._map[0]:
                self._map = len(done), _map(self.reader, done)
            return self._map[1]

    def status(self) -> Json:
        """How the search stands now.

        Raises:
            PoolError: a part is damaged.
        """
        with self._watching:
            self._watch = self._watch or Watch(self.reader.url)
            view = self._watch.look()
            at_work = [work._asdict() for work in self._watch.at_work]
        told = (
            "completed",
            "failed",
            "running",
            "waiting",
            "budget_trials",
            "trials_per_hour",
            "busy_share",
            "workers",
        )
        best = view.best
        value = None if best is None or best.score is None else self.metric.score(best.score)
        return {
            **{name: plain(getattr(view, name)) for name in told},
            "eta_seconds": plain(view.eta_seconds),
            "driver": {name: plain(item) for name, item in asdict(view.driver).items()},
            "best": None if best is None else {"trial_id": best.trial_id, "value": plain(value)},
            "best_version": None if best is None else best.weights_version,
            "failures": view.failures,
            "running_trials": at_work,
            "sharing": list(view.sharing),
            "now": time.time(),
        }

    def report(self) -> Json:
        """What the report says (`report.facts`), and whether there is a `film`; made anew when there are new trials.

        Raises:
            PoolError: a part is damaged.
        """
        with self._reading:
            rows = self._look()
        with self._other:
            if self._report is None or self._report[0] != rows:
                self._report = rows, {**facts_of(self.reader), "film": moves(self.reader)}
            return self._report[1]

    def film(self) -> str | None:
        """The page of the film; None where nothing moves in it.

        Raises:
            PoolError: a part is damaged.
        """
        with self._other:
            return film_page(self.reader, self.space)

    def texts(self, ids: Sequence[int]) -> Json:
        """Genotype and failure of trials.

        Raises:
            PoolError: a part is damaged.
        """
        with self._other:
            rows = self.reader.find_trials(ids, ["trial_id", "genotype", "failure_message", "phase"])
        return {
            str(row["trial_id"]): {
                "genotype": row["genotype"] if row["phase"] is None else None,
                "message": row["failure_message"],
            }
            for row in rows
        }

    def trials(self, trial_ids: Sequence[int], *, with_logs: bool = True) -> list[Json]:
        """All that is known of some trials.

        Raises:
            UnknownTrialError: there is none of this number.
            PoolError: a part is damaged.
        """
        with self._other:
            return trial.details(self.reader, self.space, trial_ids, with_logs=with_logs)

    def sql(self, query: str) -> Json:
        """The result of one SELECT, its first rows.

        Raises:
            PoolError: the query is wrong, or takes too long.
        """
        began = time.perf_counter()
        limits = Limits(rows=SQL.rows + 1, seconds=SQL.seconds)
        frame = PoolReader.open(self.reader.url).sql(query, limits)  # may take long: nobody waits for it
        rows = [[_cell(value) for value in row] for row in frame.head(SQL.rows).itertuples(index=False)]
        return {
            "columns": [str(name) for name in frame.columns],
            "rows": rows,
            "total": len(rows),
            "truncated": len(frame) > SQL.rows,
            "seconds": round(time.perf_counter() - began, 3),
        }

    def notes(self) -> Json:
        """What people noted.

        Raises:
            PoolError: the file is damaged.
        """
        return {"notes": {str(number): note for number, note in self.reader.notes().items()}}

    def put_note(self, trial_id: int, star: bool, text: str) -> Json:
        """Note something beside a trial; as `notes`.

        Raises:
            PoolError: it is too long, or the file is damaged.
            PoolWriteError: the pool cannot be written.
        """
        with self._other:
            return {"notes": {str(n): note for n, note in self.reader.put_note(trial_id, star, text).items()}}


def _component(config: Mapping[str, Any], kind: str) -> str | None:
    section = config.get(kind)
    name = section.get("name") if isinstance(section, Mapping) else section
    return None if name is None else str(name)


def _constraints(found: object) -> dict[str, list[Any]]:
    """``{"num_params": "<= 3.3e6"}`` as ``{"num_params": ["<=", 3.3e6]}``."""
    constraints = {}
    for name, text in found.items() if isinstance(found, Mapping) else ():
        parts = re.fullmatch(r"\s*([<>]=?)\s*([-+.\deE]+)\s*", str(text))
        if parts is not None:
            constraints[str(name)] = [parts[1], float(parts[2])]
    return constraints


def _map(pool: PoolReader, done: NDArray[np.int32]) -> bytes:
    """The map of some of the trials `done`."""
    some = done[np.linspace(0, len(done) - 1, min(MAPPED, len(done))).astype(int)]
    ids, points = _points(pool, some)
    header: dict[str, Any] = {"shown": len(ids), "of": len(done), "explained": [0.0, 0.0]}
    if len(ids) < 3:
        empty = np.empty(0, np.float32)
        return frames.encode({**header, "shown": 0}, {"trial_id": empty.astype(np.int32), "x": empty, "y": empty})
    points -= points.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, scale, axes = np.linalg.svd(points[:: -(-len(points) // _BASIS)].astype(np.float64), full_matrices=False)
    flat = np.zeros((len(points), 2), np.float32)
    flat[:, : len(axes[:2])] = points @ axes[:2].T.astype(np.float32)
    signs = np.sign(flat[np.argmax(np.abs(flat), axis=0), [0, 1]])  # an axis has no direction of its own: fix one
    flat *= np.where(signs == 0, 1, signs)
    spread = float((scale**2).sum()) or 1.0
    header["explained"] = [float(value**2 / spread) for value in np.pad(scale, (0, 2))[:2]]
    x, y = flat.T
    return frames.encode(header, {"trial_id": ids, "x": x, "y": y})


def _points(pool: PoolReader, ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Those of `ids` that have an embedding, ``[m]``, and these, ``[m, H]``."""
    found, points = [np.empty(0, np.int32)], []
    for data in pool.stream_trials(ids.tolist(), ["embedding"]) if len(ids) else ():
        data = data.filter(pc.is_valid(data["embedding"]))
        if data.num_rows:
            found.append(data["trial_id"].to_numpy().astype(np.int32))
            flat = pc.list_flatten(data["embedding"]).to_numpy().astype(np.float32)
            points.append(flat.reshape(data.num_rows, -1))
    return np.concatenate(found), np.concatenate(points) if points else np.empty((0, 0), np.float32)


def _cell(value: Any) -> Any:  # noqa: ANN401
    """A value of a query's result as JSON holds it."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    found = plain(value)
    return found if isinstance(found, bool | int | float | str | list) or found is None else str(found)
