"""Following a pool that grows: only parts that have not been read yet are read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from nao_ray._pool.storage import Storage, patient
from nao_ray._pool.tables import checked, dataset, unreadable
from nao_ray.errors import PoolError


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
        """
        try:
            names, data = patient(self._read_new)
        except FileNotFoundError:
            raise PoolError(f"the pool {self._storage.url} is gone, or was never whole: no {self._folder}/") from None
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._storage, self._folder, error) from None
        data = checked(self._storage, self._folder, data)
        self._read = names
        return data

    def _read_new(self) -> tuple[frozenset[str], pa.Table]:
        names = self._storage.parts(self._folder)
        new = [name for name in names if name not in self._read]
        return frozenset(names), dataset(self._storage, self._folder, new).to_table(columns=self._columns)
