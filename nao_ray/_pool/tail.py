"""Following a pool that grows: only parts that have not been read yet are read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from nao_ray._pool.groups import gathered
from nao_ray._pool.names import merged, number
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import checked, dataset, reading
from nao_ray.memory import release

_ROWS = 4096  # that `feed` gives at once, at least
_BLOCKS = 8  # of them, after which memory is given back


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
        data: list[pa.Table] = []

        def look(new: ds.Dataset) -> None:
            data[:] = [new.to_table(columns=self._columns)]

        self._follow(look)
        return checked(self._storage, self._folder, data[0])

    def feed(self, take: Callable[[pa.Table], None]) -> None:
        """As `read`, but `take` is given the rows a few thousand at a time, so that a large pool takes little memory.

        Where parts are merged meanwhile, or cannot be read for a moment, rows come again within one call, too.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """

        def look(new: ds.Dataset) -> None:
            for count, data in enumerate(gathered(self._batches(new), _ROWS), start=1):
                take(checked(self._storage, self._folder, data))
                if count % _BLOCKS == 0:
                    release()  # what is made of the rows leaves holes

        self._follow(look)

    def _batches(self, new: ds.Dataset) -> Iterator[pa.Table]:
        """A group of rows at a time: a fragment that is scanned whole reads far ahead."""
        for fragment in new.get_fragments():
            parts = fragment.split_by_row_group() if isinstance(fragment, ds.ParquetFileFragment) else [fragment]
            for part in parts:
                yield part.to_table(schema=new.schema, columns=self._columns, use_threads=False)

    def _follow(self, look: Callable[[ds.Dataset], None]) -> None:
        with self._storage.moment():
            marks = reading(self._storage, self._folder, lambda: self._read_new(look))
        self._read = marks
        self._last = max((self._last, *filter(None, map(number, marks))))

    def _read_new(self, look: Callable[[ds.Dataset], None]) -> Mapping[str, object]:
        marks = self._storage.marks(self._folder)
        changed = [name for name, mark in marks.items() if self._read.get(name) != mark]
        new = [name for name in changed if not self._holds_nothing_new(name)]
        look(dataset(self._storage, self._folder, new))
        after = self._storage.marks(self._folder) if self._storage.merges_in_place else marks
        if any(after.get(name) != mark for name, mark in marks.items()):
            raise FileNotFoundError(errno.ENOENT, "parts were merged while they were read", self._folder)
        return marks

    def _holds_nothing_new(self, name: str) -> bool:
        last = number(name)
        return merged(name) is not None and last is not None and last <= self._last
