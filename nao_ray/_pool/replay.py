"""Trials read back: the log that strategies are rebuilt from, and the best ones."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from nao_ray._pool import rows
from nao_ray._pool.ledger import RANKED, standings
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import read
from nao_ray.standings import Standings
from nao_ray.trial import FailureKind, Trial

_WITH_DRIVER = "the death of their driver"


def read_log(storage: Storage) -> list[Trial]:
    """Every trial asked, by id: see `PoolReader.log`."""
    # events first: what finishes between the two reads is then seen as finished, not as missing
    events = read(storage, "events")
    finished = read(storage, "trials")
    log: dict[int, Trial] = {}
    for row in rows.dicts(finished):
        log.setdefault(row["trial_id"], rows.trial_from(row))
    pending = events.filter(pc.invert(pc.is_in(events["trial_id"], value_set=finished["trial_id"].combine_chunks())))
    open_attempts: set[int] = set()  # trials whose last attempt is not known to have ended
    for row in rows.dicts(pending.sort_by("seq")):
        trial_id = row["trial_id"]
        if row["kind"] == "asked":
            log.setdefault(trial_id, Trial(proposal=rows.proposal_from(row), asked_at=row["at"]))
        elif trial_id in log:
            log[trial_id] = _fold_attempt(log[trial_id], row, open_attempts)
    for trial_id in open_attempts:
        log[trial_id] = replace(log[trial_id], ends=(*log[trial_id].ends, _WITH_DRIVER))
    return [log[trial_id] for trial_id in sorted(log)]


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


def read_best(storage: Storage, n: int) -> pa.Table:
    """The rows of the best completed trials, best first: see `PoolReader.best`."""
    ranking = Standings(standings(read(storage, "trials", list(RANKED))), keep=n)
    top = pa.array([standing.trial_id for standing in ranking.top()], pa.int64())
    found = read(storage, "trials", None, pc.field("trial_id").isin(top))
    # a join cannot carry lists: put the few rows in order by hand
    place = pc.index_in(found["trial_id"], value_set=top)
    return found.take(pc.sort_indices(place))
