"""Following a pool that grows: only parts that have not been read yet are read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

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
        self._storage, self._columns = storage, list(columns)
        self._folders = storage.finished if folder == "trials" else (folder,)
        self._read: dict[str, Mapping[str, object]] = {folder: {} for folder in self._folders}
        self._last = dict.fromkeys(self._folders, (-1, -1))

    def read(self) -> pa.Table:
        """Rows of the parts that are new, in the order written; of a ladder those of all rungs.

        After a merge rows come again, out of a few large parts: locally those that are not merged themselves keep their
        marks; on object storage, where names tell what a merged part holds, only if some of its rows are new.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """
        data: dict[str, pa.Table] = {}

        def look(folder: str, new: ds.Dataset) -> None:
            data[folder] = new.to_table(columns=self._columns)

        self._follow(look)
        return pa.concat_tables([checked(self._storage, folder, found) for folder, found in data.items()])

    def feed(self, take: Callable[[pa.Table], None]) -> None:
        """As `read`, but `take` is given the rows a few thousand at a time, so that a large pool takes little memory.

        Where parts are merged meanwhile, or cannot be read for a moment, rows come again within one call, too.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """

        def look(folder: str, new: ds.Dataset) -> None:
            for count, data in enumerate(gathered(self._batches(new), _ROWS), start=1):
                take(checked(self._storage, folder, data))
                if count % _BLOCKS == 0:
                    release()  # what is made of the rows leaves holes

        self._follow(look)

    def _batches(self, new: ds.Dataset) -> Iterator[pa.Table]:
        """A group of rows at a time: a fragment that is scanned whole reads far ahead."""
        for fragment in new.get_fragments():
            parts = fragment.split_by_row_group() if isinstance(fragment, ds.ParquetFileFragment) else [fragment]
            for part in parts:
                yield part.to_table(schema=new.schema, columns=self._columns, use_threads=False)

    def _follow(self, look: Callable[[str, ds.Dataset], None]) -> None:
        found: dict[str, Mapping[str, object]] = {}
        with self._storage.moment():
            for folder in self._folders:
                found[folder] = reading(self._storage, folder, partial(self._read_new, folder, look))
        for folder, marks in found.items():
            self._read[folder] = marks
            self._last[folder] = max((self._last[folder], *filter(None, map(number, marks))))

    def _read_new(self, folder: str, look: Callable[[str, ds.Dataset], None]) -> Mapping[str, object]:
        marks = self._storage.marks(folder)
        changed = [name for name, mark in marks.items() if self._read[folder].get(name) != mark]
        new = [name for name in changed if not self._holds_nothing_new(folder, name)]
        look(folder, dataset(self._storage, folder, new))
        after = self._storage.marks(folder) if self._storage.merges_in_place else marks
        if any(after.get(name) != mark for name, mark in marks.items()):
            raise FileNotFoundError(errno.ENOENT, "parts were merged while they were read", folder)
        return marks

    def _holds_nothing_new(self, folder: str, name: str) -> bool:
        last = number(name)
        return merged(name) is not None and last is not None and last <= self._last[folder]
