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
from nao_ray.trial import Trial


def read_log(storage: Storage) -> list[Trial]:
    """Every trial asked, by id: see `PoolReader.log`."""
    # events first: what finishes between the two reads is then seen as finished, not as missing
    events = read(storage, "events")
    finished = read(storage, "trials")
    log: dict[int, Trial] = {}
    for row in rows.dicts(finished):
        log.setdefault(row["trial_id"], rows.trial_from(row))
    pending = events.filter(pc.invert(pc.is_in(events["trial_id"], value_set=finished["trial_id"].combine_chunks())))
    for row in rows.dicts(pending.sort_by("seq")):
        trial_id = row["trial_id"]
        if row["kind"] == "asked":
            log.setdefault(trial_id, Trial(proposal=rows.proposal_from(row), asked_at=row["at"]))
        elif trial_id in log and row["attempt"] >= log[trial_id].attempt:
            facts = {"attempt": row["attempt"], "node": row["node"], "started_at": row["at"]}
            log[trial_id] = replace(log[trial_id], **facts)
    return [log[trial_id] for trial_id in sorted(log)]


def read_best(storage: Storage, n: int) -> pa.Table:
    """The rows of the best completed trials, best first: see `PoolReader.best`."""
    ranking = Standings(standings(read(storage, "trials", list(RANKED))), keep=n)
    top = pa.array([standing.trial_id for standing in ranking.top()], pa.int64())
    found = read(storage, "trials", None, pc.field("trial_id").isin(top))
    # a join cannot carry lists: put the few rows in order by hand
    place = pc.index_in(found["trial_id"], value_set=top)
    return found.take(pc.sort_indices(place))
