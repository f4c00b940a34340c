"""The rows of a ladder of fidelities: ``trials/`` has each family of rungs once, at the highest that was completed.

A further rung is recorded in ``rungs/``, with the row that it goes on from, if that is the family's first: from then on
the trial is finished. Then the part of ``trials/`` that held the family's row so far is replaced at once by one that
holds the new row instead: whoever reads the folder sees the family once, before and after. A crash between the two
loses nothing, for `Behind` finds what the next driver has to put right. A rung that fails leaves its family's row as it
is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from nao_ray._pool.groups import aligned, columns_of, groups, large_part, open_part
from nao_ray._pool.journal import Journal
from nao_ray._pool.storage import Storage
from nao_ray._pool.stream import read_some, stream
from nao_ray._pool.tables import ids
from nao_ray.errors import PoolError, PoolReadError, PoolWriteError, StorageError
from nao_ray.trial import Trial, TrialState

_log = logging.getLogger(__name__)


class Rise(NamedTuple):
    """A family whose row in trials/ is to be another one."""

    before: int
    """The trial whose row is there."""
    row: pa.Table
    """That is to be there."""


class Behind:
    """The families that have come further than trials/ says, as one driver finds and leaves them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rises: list[Rise] = []

    def look(self) -> None:
        """Take up what earlier drivers have left.

        Raises:
            PoolError: a part is damaged.
        """
        self._rises = [Rise(before, _row_of(self._storage, now)) for before, now in _left(self._storage)]

    def record(self, trials: Sequence[Trial], data: pa.Table, journal: Journal) -> None:
        """Record further rungs, which are then finished.

        Args:
            trials: that have ended, each with a parent.
            data: their rows, one each.
            journal: of the driver.

        Raises:
            FencedError: another driver has taken over.
            PoolWriteError: nothing was recorded.
        """
        parents = [trial.proposal.parent_trial_id or 0 for trial in trials if trial.score is not None]
        try:
            before = [journal.find(parent) for parent in parents]
        except PoolReadError as error:
            raise PoolWriteError(str(error)) from None
        firsts = [row.filter(pc.field("parent_trial_id").is_null()) for row in before]  # others are there
        journal.append("rungs", pa.concat_tables([*firsts, data]))
        rows = (data.slice(k, 1) for k, trial in enumerate(trials) if trial.score is not None)
        self._rises += map(Rise, parents, rows)

    def catch_up(self, journal: Journal) -> None:
        """See to it that trials/ has them; what cannot be done now is done later.

        Raises:
            FencedError: another driver has taken over.
        """
        while self._rises:
            try:
                journal.replace(*self._rises[0])
            except (PoolError, StorageError) as error:
                number = self._rises[0].row["trial_id"][0]
                _log.warning("trial %s stands in rungs/ alone for the moment: %s", number, error)
                return
            del self._rises[0]


def _left(storage: Storage) -> list[tuple[int, int]]:
    """Whose row is there, and whose is to be."""
    if not storage.rungs:
        return []
    shown = {number for data in stream(storage, "trials", ["trial_id"]) for number in ids(data, "trial_id")}
    parents: dict[int, int] = {}
    for data in stream(storage, "rungs", ["trial_id", "parent_trial_id", "state"]):
        done = data.filter(pc.field("parent_trial_id").is_valid() & (pc.field("state") == TrialState.COMPLETED.value))
        parents |= zip(ids(done, "trial_id"), ids(done, "parent_trial_id"), strict=True)
    tops = parents.keys() - set(parents.values()) - shown
    found = []
    for top in sorted(tops):
        below = parents[top]
        while below in parents and below not in shown:
            below = parents[below]
        found.append((below, top))
    return found


def _row_of(storage: Storage, trial_id: int) -> pa.Table:
    return read_some(storage, "rungs", None, [trial_id]).slice(0, 1)


def rows_of(part: object, trial_ids: Sequence[int], schema: pa.Schema) -> pa.Table:
    """The rows of these trials in a part: a path or a file of Arrow's, or a table."""
    wanted = pa.array(trial_ids, pa.int64())
    if isinstance(part, pa.Table):
        return part.filter(pc.is_in(part["trial_id"], value_set=wanted))
    with open_part(part) as file:
        if not pc.any(pc.is_in(file.read(columns=["trial_id"])["trial_id"], value_set=wanted)).as_py():
            return schema.empty_table()
        data = aligned(file.read(columns=columns_of(file, schema)), schema)
    return data.filter(pc.is_in(data["trial_id"], value_set=wanted))


def swapped(parts: Sequence[Any], schema: pa.Schema, before: int, row: pa.Table) -> memoryview:
    """The rows of parts, without that of one trial and with another one, as one part."""
    sink = pa.BufferOutputStream()
    with large_part(sink, schema) as writer:
        for group in groups([*parts, row], schema):
            writer.write_table(group.filter(pc.field("trial_id") != before))
            del group
    return memoryview(sink.getvalue())
