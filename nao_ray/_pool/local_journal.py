"""Writing the parts of a pool in a folder, under the lease's lock; merging swaps folders (`compaction.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Thread

import pyarrow as pa

from nao_ray._pool import compaction, families
from nao_ray._pool.faults import READING
from nao_ray._pool.journal import Journal
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.names import part_name
from nao_ray._pool.storage import Guard
from nao_ray._pool.tables import SCHEMAS, to_bytes, unreadable
from nao_ray.errors import PoolError, PoolWriteError, StorageError

COMPACT_AT = 1000
"""Small parts in a folder at which the driver merges them: a thousand opened files still read in a second."""


class LocalJournal(Journal):
    """Parts in local folders."""

    def __init__(self, storage: LocalStorage, epoch: int, guard: Guard) -> None:
        self._storage, self._epoch, self._guard = storage, epoch, guard
        self._next_part = 0
        self._has_old = False
        self._sweeper: Thread | None = None
        self._compact_at = COMPACT_AT
        self._small_parts = dict.fromkeys(storage.journals, 0)

    def take_over(self, unsealed: Iterable[int]) -> None:
        self._has_old = compaction.recover(self._storage, self._epoch)
        for folder in self._storage.journals:
            self._small_parts[folder] = len(self._storage.parts(folder))

    def has_old(self) -> bool:
        return self._has_old

    def renew(self) -> None:
        if self._has_old:
            self.merge(whole=True)
            self._has_old = False

    def append(self, folder: str, data: pa.Table) -> None:
        name = f"{folder}/{part_name(self._epoch, self._next_part)}"
        self._next_part += 1
        if not self._storage.create(name, to_bytes(data), self._guard):
            where = self._storage.path(name)
            raise PoolWriteError(f"{where} is there already, and is not replaced; trying the next number")
        self._small_parts[folder] += 1

    def find(self, trial_id: int) -> pa.Table:
        return self._look_for([trial_id])[1]

    def replace(self, before: int, row: pa.Table) -> None:
        name, found = self._look_for([before, row["trial_id"][0].as_py()])
        if name is None:  # what it follows is lost
            self.append("trials", row)
        elif before in found["trial_id"].to_pylist():
            path, schema = self._storage.path("trials", name), SCHEMAS["trials"]
            self._storage.replace(f"trials/{name}", families.swapped([path], schema, before, row), self._guard)

    def _look_for(self, trial_ids: Sequence[int]) -> tuple[str | None, pa.Table]:
        """The newest part of trials/ that has a row of these, and those rows."""
        storage, schema = self._storage, SCHEMAS["trials"]
        try:
            for name in reversed(storage.parts("trials")):
                found = families.rows_of(storage.path("trials", name), trial_ids, schema)
                if found.num_rows:
                    return name, found
        except READING as error:
            raise unreadable(storage, "trials", error) from None
        return None, schema.empty_table()

    def settle(self) -> None:
        """There is nothing to settle."""

    def is_due(self) -> bool:
        return max(self._small_parts.values()) >= self._compact_at

    def merge(self, *, whole: bool) -> None:
        if self._sweeper is not None:
            self._sweeper.join()
        try:
            replaced = compaction.compact(self._storage, self._guard, self._epoch, whole=whole)
        except (PoolError, StorageError):
            self._compact_at += COMPACT_AT
            raise
        self._compact_at = COMPACT_AT
        for folder in self._storage.journals:
            self._small_parts[folder] = 0
        if whole:
            compaction.sweep(self._storage, replaced)
        else:  # a search does not wait for it
            self._sweeper = Thread(target=compaction.sweep, args=(self._storage, replaced), daemon=True)
            self._sweeper.start()
