"""The parts that a driver wrote of late, held for merging."""

from __future__ import annotations

import pyarrow as pa

from nao_ray._pool.tables import SCHEMAS
from nao_ray.memory import release

_BYTES = 8 * 2**20
_LOOSE_PARTS = 64  # held as tables of their own


class Recent:
    """Parts as this driver wrote them, so that merging them need not read thousands of small files again.

    A table of a few rows takes tens of kilobytes for its columns alone, so neighbours are held as one.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, list[pa.Table]] = {folder: [] for folder in SCHEMAS}
        self._loose: dict[str, list[pa.Table]] = {folder: [] for folder in SCHEMAS}  # the block to come
        self._places: dict[str, tuple[int, int, int]] = {}  # of a part: block, first row, rows
        self._bytes = 0

    def add(self, folder: str, name: str, data: pa.Table) -> None:
        """Remember a part, while there is room."""
        if self._bytes + data.nbytes > _BYTES:
            return
        blocks, loose = self._blocks[folder], self._loose[folder]
        first = sum(part.num_rows for part in loose)
        self._places[f"{folder}/{name}"] = (len(blocks), first, data.num_rows)
        self._bytes += data.nbytes
        loose.append(data)
        if len(loose) == _LOOSE_PARTS:
            blocks.append(pa.concat_tables(loose).combine_chunks())
            loose.clear()

    def get(self, folder: str, name: str) -> pa.Table | None:
        """A part, None if it has to be read."""
        place = self._places.get(f"{folder}/{name}")
        if place is None:
            return None
        number, first, count = place
        blocks = self._blocks[folder]
        block = blocks[number] if number < len(blocks) else pa.concat_tables(self._loose[folder])
        return block.slice(first, count)

    def clear(self) -> None:
        """Forget them: they are merged."""
        for tables in (*self._blocks.values(), *self._loose.values()):
            tables.clear()
        self._places.clear()
        self._bytes = 0
        release()  # what merging took, too
