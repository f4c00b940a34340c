"""How a search stands, from its pool alone: nothing is written, no lease is taken, nothing is read twice.

Everything is a fold over the parts in the order they appear. What is kept of a finished trial is one bit, its score,
and, of a recent one, its times.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray import yaml_text
from nao_ray._pool import manifest as manifests
from nao_ray._pool.budget import ChangedBudget, read_budget
from nao_ray._pool.faults import unreadable
from nao_ray._pool.holder import Holder, glance, is_dead
from nao_ray._pool.ledger import RANKED, standings
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.pace import Spans
from nao_ray._pool.sharing import read_sharing
from nao_ray._pool.storage import open_storage
from nao_ray._pool.tail import Tail
from nao_ray._pool.view import Driver, Finished, View
from nao_ray.errors import PoolError
from nao_ray.standings import Standing, Standings
from nao_ray.trial import TrialState

_TRIALS = (
    *RANKED, "failure_kind", "failure_message", "genotype", "num_params", "round", "node", "wall_seconds", "started_at",
    "finished_at", "retry_of",
)  # fmt: skip
_EVENTS = ("kind", "trial_id", "at", "node", "phase", "retry_of")

_LAST = 8
"""Finished trials that are shown."""
_TREND = 40
"""Points of the trend."""
_START_TOLERANCE = 2.0
"""Seconds by which the system's note of when a process started may be late."""


class Watch:
    """Looks at a pool again and again."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Reads the manifest.

        Args:
            url: folder or URL of the pool.
            clock: seconds since 1970.

        Raises:
            PoolError: there is no pool, or it is of a newer nao_ray.
        """
        self._storage, self._clock = open_storage(url), clock
        self._manifest = manifests.read_manifest(self._storage)
        self._config = _config(self._manifest)
        self._storage.rungs = manifests.rungs(self._manifest)
        self._trials = Tail(self._storage, "trials", _TRIALS)
        self._events = Tail(self._storage, "events", _EVENTS)
        self._asked, self._finished, self._retries = Ids(), Ids(), Ids()
        self._open: dict[int, _Open] = {}  # unfinished
        self._states: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._epochs: Counter[int] = Counter()  # of a ladder
        self._scores: NDArray[np.float64] = np.empty(0)
        self._spans = Spans()
        self._standings = Standings()
        self._best: dict[str | None, Finished] = {}  # by weights version, as `Standings.of_versions`
        self._last: tuple[Finished, ...] = ()
        self._beat: tuple[str, int, float] | None = None
        self._changed: ChangedBudget | None = None
        self._at_work: list[AtWork] = []
        self._heard: float | None = None  # when a heartbeat was seen to change

    def look(self) -> View:
        """How the search stands now.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
        """
        with self._storage.moment():
            # events first: what finishes between the two reads is then seen as finished, not as missing
            events = self._events.read()
            self._trials.feed(self._fold_trials)
            self._fold_events(events)
            try:
                driver, holder = self._driver()
            except OSError as error:
                raise unreadable(self._storage.path("lease"), error, "nothing of the trials") from None
        return self._view(driver, holder)

    @property
    def at_work(self) -> Sequence[AtWork]:
        """The trials that were at work at the last look, in the order they were asked."""
        return self._at_work

    # -- folding ------------------------------------------------------------------------------------------

    def _fold_trials(self, data: pa.Table) -> None:
        ids = data["trial_id"].to_numpy()
        data = data.filter(pa.array(self._finished.add(ids)))
        self._asked.add(ids)  # a pool made of a table has no events
        if not data.num_rows:
            return
        self._retries.add(data["trial_id"].to_numpy()[_given(data["retry_of"])])
        self._states.update(_counts(data["state"]))
        self._failures.update(_counts(data["failure_kind"]))
        self._epochs.update(data["epochs"].to_pylist() if self._storage.rungs else ())
        found = standings(data)
        values = np.array([np.nan if standing is None else standing.score for standing in found], dtype=np.float64)
        data = data.append_column("score", pa.array(values, mask=~np.isfinite(values)))
        self._scores = np.concatenate([self._scores, values[np.isfinite(values)]])
        self._spans.add(_seconds(data["started_at"]), _seconds(data["finished_at"]), _given(data["phase"]))
        self._fold_best(data, found)
        newest = data.slice(max(0, data.num_rows - _LAST)).to_pylist()[::-1]
        last = [*map(_finished, newest), *self._last]
        if self._storage.rungs:  # of two folders
            last.sort(key=lambda trial: trial.finished_at or 0.0, reverse=True)
        self._last = tuple(last[:_LAST])

    def _fold_best(self, data: pa.Table, found: Sequence[Standing | None]) -> None:
        for standing in found:
            self._standings.add(standing)
        rows = {standing.trial_id: row for row, standing in enumerate(found) if standing is not None}
        new = {version: rows.get(best.trial_id) for version, best in self._standings.of_versions.items()}
        for version, row in new.items():
            if row is not None:
                self._best[version] = _finished(data.slice(row, 1).to_pylist()[0])

    def _fold_events(self, data: pa.Table) -> None:
        ids = data["trial_id"].to_numpy()
        self._asked.add(ids[pc.equal(data["kind"], "asked").to_numpy()])
        self._retries.add(ids[_given(data["retry_of"])])
        for row in data.filter(pa.array(~self._finished.have(ids))).to_pylist():
            began, phase, node = self._open.get(row["trial_id"], _Open())
            if row["kind"] == "asked":
                phase = row["phase"] is not None
            else:
                began, node = (row["at"].timestamp(), row["node"]) if row["kind"] == "attempt" else (None, None)
            self._open[row["trial_id"]] = _Open(began, phase, node)
        finished = self._finished.have(np.fromiter(self._open, np.int64, len(self._open))).tolist()
        self._open = {key: self._open[key] for key, over in zip(list(self._open), finished, strict=True) if not over}

    # -- the view -----------------------------------------------------------------------------------------

    def _driver(self) -> tuple[Driver, Holder | None]:
        holder = glance(self._storage)
        if holder is None:
            return Driver(state="none"), None
        if self._beat is not None and self._beat != (holder.token, holder.beats, holder.beat):
            self._heard = time.monotonic()
        self._beat = (holder.token, holder.beats, holder.beat)
        silent = max(0.0, self._clock() - holder.beat)
        if self._heard is not None:  # its clock may not be ours: what was seen to change counts
            silent = min(silent, time.monotonic() - self._heard)
        state: Literal["alive", "stale", "none"] = "alive"
        if holder.released:
            state = "none"
        elif is_dead(holder) or silent >= holder.expiry:
            state = "stale"
        driver = Driver(
            state=state,
            host=holder.host,
            pid=holder.pid,
            epoch=holder.epoch,
            silent_seconds=silent,
            note=holder.note if state == "alive" else "",
        )
        return driver, holder

    def _view(self, driver: Driver, holder: Holder | None) -> View:
        now = self._clock()
        running: list[tuple[float, bool]] = []
        total: int | None = None
        self._at_work = []
        if driver.state == "alive" and holder is not None:
            total = holder.total
            since = holder.started - _START_TOLERANCE
            for trial_id, (began, phase, node) in self._open.items():
                if began is not None and began >= since:
                    running.append((began, phase))
                    self._at_work.append(AtWork(trial_id, node, began))
        pace = self._spans.pace(now if driver.state == "alive" else None, running, self._workers())
        has_ended = holder is not None and self._spans.last > holder.started - _START_TOLERANCE
        completed, failed = self._states[TrialState.COMPLETED.value], self._states[TrialState.FAILED.value]
        return View(
            pool=self._storage.url,
            command=_text(self._manifest.get("command")),
            name=_text(self._config.get("name")),
            strategy=manifests.component(self._manifest, "strategy"),
            space=manifests.component(self._manifest, "space"),
            task=manifests.component(self._manifest, "task"),
            budget_trials=self._budget() if total is None else total,
            completed=completed,
            failed=failed,
            running=len(running),
            waiting=self._asked.count - completed - failed - len(running),
            failures=dict(self._failures.most_common()),
            metric=manifests.metric(self._manifest, negative=bool((self._scores < 0).any())),
            best=self._best.get(self._standings.version),
            last=self._last,
            trend=() if self._storage.rungs else _trend(self._scores),  # those of several rungs are no one series
            trials_per_hour=pace.per_hour,
            busy_share=pace.busy_share,
            workers=pace.workers,
            has_ended=has_ended,
            eta_seconds=self._left(driver, holder, now) if driver.state == "alive" and has_ended else None,
            rungs={epochs: self._epochs[epochs] for epochs in self._storage.rungs},
            sharing=self._sharing(),
            driver=driver,
        )

    def _budget(self) -> int | None:
        budget = self._config.get("budget")
        trials = budget.get("trials") if isinstance(budget, Mapping) else None
        trials = trials if self._changed is None else self._changed.now.trials
        retries = self._retries.count
        asked = self._asked.count - retries  # what the budget counts
        is_passed = isinstance(trials, int) and trials < asked  # so it was raised
        if is_passed or isinstance(self._storage, LocalStorage):  # elsewhere each look is a request
            with suppress(OSError):
                self._changed = read_budget(self._storage)
        if self._changed is not None:
            trials = self._changed.now.trials
        limits = (trials, self._manifest.get("planned"))
        # a resumed search may have more, of which its pool says nothing, and a plan may change
        return min((n + retries for n in limits if isinstance(n, int) and asked <= n), default=None)

    def _sharing(self) -> tuple[str, ...]:
        workers = self._config.get("workers")
        if not isinstance(workers, Mapping) or workers.get("gpus") != "auto":
            return ()
        with suppress(OSError):
            return tuple(shared.line for shared in read_sharing(self._storage))
        return ()

    def _workers(self) -> int | None:
        workers = self._config.get("workers")
        count = workers.get("count") if isinstance(workers, Mapping) else None
        return count if isinstance(count, int) else None

    def _left(self, driver: Driver, holder: Holder | None, now: float) -> float | None:
        if holder is not None and holder.left is not None:
            return max(0.0, holder.left - (driver.silent_seconds or 0.0))
        finished = self._states[TrialState.COMPLETED.value] + self._states[TrialState.FAILED.value]
        budget, pace = self._budget(), self._spans.pace(None, (), self._workers())
        if budget is None or not pace.per_hour:
            return None
        return max(0.0, max(0, budget - finished) * 3600 / pace.per_hour - max(0.0, now - self._spans.last))


class AtWork(NamedTuple):
    """A trial that a worker has."""

    trial_id: int
    node: str | None
    started: float
    """Seconds since 1970."""


class _Open(NamedTuple):
    """A trial that is not finished."""

    began: float | None = None
    """When its last attempt did."""
    phase: bool = False
    """It trains shared weights."""
    node: str | None = None


class Ids:
    """A set of trial ids that takes and answers whole columns."""

    def __init__(self) -> None:
        self._has: NDArray[np.bool_] = np.zeros(1024, dtype=np.bool_)
        self.count = 0

    def add(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add a column; returns which rows are the first of their id."""
        new = ~self.have(ids)
        first = np.zeros(len(ids), dtype=np.bool_)
        first[np.unique(ids, return_index=True)[1]] = True
        new &= first
        self._has[ids[new]] = True
        self.count += int(new.sum())
        return new

    def have(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of a column are in the set."""
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < 2**31:
            raise PoolError(f"trial ids {ids.min()} to {ids.max()} are not in [0, 2**31): no pool of a search")
        top = int(ids.max(initial=0)) + 1
        if top > len(self._has):
            self._has = np.concatenate([self._has, np.zeros(max(top, len(self._has)), dtype=np.bool_)])
        found: NDArray[np.bool_] = self._has[ids]
        return found


def _finished(row: Mapping[str, Any]) -> Finished:
    moment = row["finished_at"]
    facts = {name: row[name] for name in Finished.__dataclass_fields__ if name != "finished_at"}
    return Finished(**facts, finished_at=None if moment is None else moment.timestamp())


def _config(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    config = manifest.get("config", {})
    try:
        config = yaml_text.load_document(config) if isinstance(config, str) else config
    except yaml_text.YamlTextError:
        return {}
    return config if isinstance(config, Mapping) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(item["values"]): item["counts"] for item in pc.value_counts(column.drop_null()).to_pylist()}


def _given(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_valid(column).to_numpy()
    return found


def _seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of times as seconds since 1970, NaN where there is none."""
    found: NDArray[np.float64] = pc.fill_null(
        pc.divide(pc.cast(pc.cast(column, pa.int64()), pa.float64()), 1e6), np.nan
    ).to_numpy()
    return found


def _trend(values: NDArray[np.float64]) -> tuple[float, ...]:
    stretches = np.array_split(values, min(_TREND, len(values))) if len(values) else []
    return tuple(float(stretch.mean()) for stretch in stretches)
