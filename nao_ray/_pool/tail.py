"""Following a pool that grows: only parts that have not been read yet are read."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

import pyarrow as pa

from nao_ray._pool.names import merged, number
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import checked, dataset, reading


class Tail:
    """The new rows of `trials` or `events`, at each call those since the last; it writes nothing."""

    def __init__(self, storage: Storage, folder: str, columns: Sequence[str]) -> None:
        self._storage, self._folder, self._columns = storage, folder, list(columns)
        self._read: Mapping[str, object] = {}
        self._last = (-1, -1)

    def read(self) -> pa.Table:
        """Rows of the parts that are new, in the order written.

        After a merge rows come again, out of a few large parts: locally those that are not merged themselves keep their
        marks; on object storage, where names tell what a merged part holds, only if some of its rows are new.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """
        with self._storage.moment():
            marks, data = reading(self._storage, self._folder, self._read_new)
        data = checked(self._storage, self._folder, data)
        self._read = marks
        self._last = max((self._last, *filter(None, map(number, marks))))
        return data

    def _read_new(self) -> tuple[Mapping[str, object], pa.Table]:
        marks = self._storage.marks(self._folder)
        changed = [name for name, mark in marks.items() if self._read.get(name) != mark]
        new = [name for name in changed if not self._holds_nothing_new(name)]
        data = dataset(self._storage, self._folder, new).to_table(columns=self._columns)
        after = self._storage.marks(self._folder) if self._storage.merges_in_place else marks
        if any(after.get(name) != mark for name, mark in marks.items()):
            raise FileNotFoundError(errno.ENOENT, "parts were merged while they were read", self._folder)
        return marks, data

    def _holds_nothing_new(self, name: str) -> bool:
        last = number(name)
        return merged(name) is not None and last is not None and last <= self._last
