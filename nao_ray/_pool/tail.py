"""Following a pool that grows: only parts that have not been read yet are read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import checked, dataset, reading


class Tail:
    """The new rows of `trials` or `events`, at each call those since the last; it writes nothing."""

    def __init__(self, storage: Storage, folder: str, columns: Sequence[str]) -> None:
        self._storage, self._folder, self._columns = storage, folder, list(columns)
        self._read: frozenset[str] = frozenset()

    def read(self) -> pa.Table:
        """Rows of the parts that are new, in the order written.

        A compaction gives every part a new name, for no name is used twice: the rows then come again, out of a few
        large files.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """
        names, data = reading(self._storage, self._folder, self._read_new)
        data = checked(self._storage, self._folder, data)
        self._read = names
        return data

    def _read_new(self) -> tuple[frozenset[str], pa.Table]:
        names = self._storage.parts(self._folder)
        new = [name for name in names if name not in self._read]
        return frozenset(names), dataset(self._storage, self._folder, new).to_table(columns=self._columns)
