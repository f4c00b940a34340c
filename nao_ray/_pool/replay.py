"""Trials read back: the log that strategies are rebuilt from, and the best ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray import pareto
from nao_ray._pool import rows
from nao_ray._pool.ledger import RANKED, IdSet, standings
from nao_ray._pool.storage import Storage
from nao_ray._pool.stream import read_some, stream, stream_finished
from nao_ray._pool.tables import ids
from nao_ray.metric import BY_COLUMN
from nao_ray.pareto import Aim
from nao_ray.standings import Standings
from nao_ray.trial import FailureKind, Trial

_WITH_DRIVER = "the death of their driver"


def stream_log(storage: Storage) -> Iterator[Trial]:
    """Every trial asked, once: see `PoolReader.stream_log`."""
    with storage.moment():
        yield from _stream_log(storage)


def _stream_log(storage: Storage) -> Iterator[Trial]:
    # what is asked later than this is left out: it may know of trials that finish after they were read
    last = max((pc.max(data["seq"]).as_py() for data in stream(storage, "events", ["seq"]) if len(data)), default=-1)
    finished = IdSet()
    for data in stream_finished(storage, rows.LOGGED):
        for row in rows.dicts(data):
            if row["trial_id"] not in finished:
                finished.add(row["trial_id"])
                yield rows.trial_from(row)
    yield from _unfinished(storage, last, finished)


def _unfinished(storage: Storage, last: int, finished: IdSet) -> list[Trial]:
    """What was asked up to the event `last` and is not finished, by id."""
    pending: dict[int, rows.Row] = {}  # by seq: rows may come twice
    for data in stream(storage, "events"):
        known = pa.array([number in finished for number in ids(data, "trial_id")], pa.bool_())
        some = data.filter(pc.and_(pc.invert(known), pc.less_equal(data["seq"], last)))
        pending |= {row["seq"]: row for row in rows.dicts(some)}
    found: dict[int, Trial] = {}
    open_attempts: set[int] = set()  # trials whose last attempt is not known to have ended
    for _, row in sorted(pending.items()):
        trial_id = row["trial_id"]
        if row["kind"] == "asked":
            found.setdefault(trial_id, Trial(proposal=rows.proposal_from(row), asked_at=row["at"]))
        elif trial_id in found:
            found[trial_id] = _fold_attempt(found[trial_id], row, open_attempts)
    for trial_id in open_attempts:
        found[trial_id] = replace(found[trial_id], ends=(*found[trial_id].ends, _WITH_DRIVER))
    return [found[trial_id] for trial_id in sorted(found)]


def _fold_attempt(trial: Trial, row: rows.Row, open_attempts: set[int]) -> Trial:
    """A trial after an attempt was started, or left."""
    message, ends = row.get("message"), trial.ends
    if row["kind"] == "left":
        open_attempts.discard(trial.trial_id)
        return replace(trial, ends=(*ends, str(message))) if _counts(message) else trial
    if row["attempt"] < trial.attempt:
        return trial
    if trial.trial_id in open_attempts and row["attempt"] > trial.attempt:
        message = message or _WITH_DRIVER
        ends = (*ends, message) if _counts(message) else ends
    if row.get("message") is not None:  # earlier drivers did not say when they left one in order
        open_attempts.add(trial.trial_id)
    return replace(trial, attempt=row["attempt"], node=row["node"], started_at=row["at"], ends=ends)


def _counts(message: str | None) -> bool:
    return bool(message) and not str(message).startswith(FailureKind.ENVIRONMENT)


def read_best(storage: Storage, n: int, aims: Sequence[Aim] = ()) -> tuple[pa.Table, list[int]]:
    """The rows of the best completed trials, best first, and the Pareto rank of each: see `PoolReader.best`."""
    chosen, placed = _best_of_several(storage, aims) if aims else (_best_by_score(storage, n), [])
    top = pa.array(chosen[:n], pa.int64())
    found = read_some(storage, "trials", None, top.to_pylist())
    # a join cannot carry lists: put the few rows in order by hand
    place = pc.index_in(found["trial_id"], value_set=top)
    return found.take(pc.sort_indices(place)), placed[:n]


def _best_by_score(storage: Storage, n: int) -> list[int]:
    ranking, seen = Standings(keep=n), IdSet()
    for data in stream(storage, "trials", RANKED):
        for standing in standings(data):
            if standing is not None and standing.trial_id not in seen:
                seen.add(standing.trial_id)
                ranking.add(standing)
    return [standing.trial_id for standing in ranking.top()]


def _best_of_several(storage: Storage, aims: Sequence[Aim]) -> tuple[list[int], list[int]]:
    """Trials by their Pareto rank, in a rank by the score, then by id; and the ranks."""
    trial_ids, values = read_aims(storage, aims)
    order = pareto.order(values)
    return trial_ids[order].tolist(), pareto.ranks(values)[order].tolist()


def read_aims(storage: Storage, aims: Sequence[Aim]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids ``[N]`` of the trials with a score, ascending, and ``[N, K]`` values, the score first; NaN: not known.

    Of a ladder of fidelities those of the highest rung that was reached: others do not compare with them.
    """
    others = [aim for aim in aims if aim.column not in BY_COLUMN]
    found: dict[int, tuple[float, ...]] = {}
    highest = 0  # rung of a ladder: what is below it does not compare
    for data in stream(storage, "trials", (*RANKED, *(aim.column for aim in others))):
        columns = [data[aim.column].to_pylist() for aim in others]
        for standing, *row in zip(standings(data), *columns, strict=True):
            if standing is not None and standing.rung >= highest:
                found = found if standing.rung == highest else {}
                highest = standing.rung
                signed = (math.nan if v is None else aim.signed(float(v)) for aim, v in zip(others, row, strict=True))
                found[standing.trial_id] = (standing.score, *signed)
    trial_ids = sorted(found)
    shape = len(trial_ids), 1 + len(others)
    return np.array(trial_ids, dtype=np.int64), np.array([found[k] for k in trial_ids], dtype=np.float64).reshape(shape)
