"""Pictures of a Parquet table one by one: of a row the group it is in is read, and kept until another is asked for."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray.errors import DataError
from nao_ray.tasks.images.sources import Index, Reader

_LARGE = 32 * 2**20  # bytes of a group that a picture may cost
_HELD = 2  # groups
_OPEN = 64  # files


class Groups(Reader):
    """The rows of a data set that a filter lets through."""

    def __init__(
        self,
        filesystem: Any,  # noqa: ANN401 - Arrow's, which has no types
        groups: list[tuple[str, int]],
        starts: Index,
        rows: Index | None,
        column: str,
        where: str,
    ) -> None:
        """Reads nothing.

        Args:
            filesystem: Arrow's.
            groups: file, and number of the group there, of each.
            starts: row of the data set that each group begins with.
            rows: of the data set, those that count; None: all.
            column: of the pictures.
            where: begins messages.
        """
        self._filesystem, self._groups, self._starts, self._rows = filesystem, groups, starts, rows
        self._column, self._where = column, where
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._held: OrderedDict[int, Any] = OrderedDict()

    @classmethod
    def of(cls, dataset: Any, chosen: Any, column: str, where: str) -> Groups:  # noqa: ANN401
        """Of an Arrow data set and the filter of its rows; reads the footers of its files.

        Raises:
            ArrowException, OSError: that fails.
        """
        found = [
            (fragment.path, group.id, group.num_rows, group.total_byte_size)
            for fragment in dataset.get_fragments()
            for group in fragment.row_groups
        ]
        counts, sizes = [count for *_, count, _ in found], [size for *_, size in found]
        starts = np.cumsum([0, *counts[:-1]])
        rows = None
        if chosen is not None:
            kept = dataset.to_table(columns={"kept": chosen})["kept"]
            rows = np.flatnonzero(kept.fill_null(False).to_numpy())
        reader = cls(dataset.filesystem, [(path, number) for path, number, *_ in found], starts, rows, column, where)
        if found and np.mean(sizes) > _LARGE:
            reader.note = (
                f"a picture costs the reading of its row group, {np.mean(counts):,.0f} rows of "
                f"{np.mean(sizes) / 2**20:,.0f} MiB: write them with a row_group_size of 100"
            )
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_held": OrderedDict()}  # nothing that is open travels

    def picture(self, index: int) -> tuple[str, bytes]:
        row = index if self._rows is None else int(self._rows[index])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        where = f"{self._where}, picture {index}"
        try:
            column = self._group(number)
        except (pa.ArrowException, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{where}: cannot be read as Parquet: {reason}") from None
        return where, payload(column[row - int(self._starts[number])], where)

    def _group(self, number: int) -> Any:  # noqa: ANN401
        if number not in self._held:
            path, group = self._groups[number]
            if path not in self._files:
                self._files[path] = pq.ParquetFile(path, filesystem=self._filesystem)
                _shorten(self._files, _OPEN)
            self._held[number] = self._files[path].read_row_group(group, columns=[self._column])[self._column]
            _shorten(self._held, _HELD)
        return self._held[number]


def _shorten(held: OrderedDict[Any, Any], most: int) -> None:
    while len(held) > most:
        held.popitem(last=False)


def payload(value: Any, where: str) -> bytes:  # noqa: ANN401
    """The bytes of a cell: binary as it is, a struct's field `bytes`.

    Raises:
        DataError: it holds none.
    """
    content = value.as_py()
    if isinstance(content, dict):
        content = content.get("bytes")
    if not isinstance(content, bytes):
        raise DataError(f"{where}: expected the bytes of an image, got {value.type} ({type(content).__name__})")
    return content
