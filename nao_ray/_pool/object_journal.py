"""Writing the parts of a pool on object storage: each in one request, merged now and then, none after the epoch.

A driver has one part on its way at a time, in `events/` or in `trials/`, and takes the next number only when it
landed. So whoever takes the pool over knows both names that can still come, and puts an empty part under each: what
arrives later finds its name taken. The same settles a write of our own that failed, for it may yet land.

Merging is one request too: a merged part is created whole, and its name says which parts count no more (`names.py`).
Then these are removed. Whatever ends a merge, and whenever its requests arrive, our readers see each row once; others
that read the folder itself see rows twice from the one request to the other, and after a crash there until the next
driver. What a merge that ended there has left, the next driver removes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from nao_ray._pool import compaction, families, names
from nao_ray._pool.catalogue import DIGEST, Digest
from nao_ray._pool.faults import READING
from nao_ray._pool.groups import groups, large_part
from nao_ray._pool.journal import Journal
from nao_ray._pool.objects import ObjectStorage
from nao_ray._pool.storage import Guard
from nao_ray._pool.tables import SCHEMAS, reading, to_bytes, unreadable
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.memory import release

DIGEST_AT = 8
"""New parts, of both folders, at which the digest is written: so many does a reader read one by one."""
MERGE_AT = 400
"""Parts of a folder at which they are merged: both folders fit in one listing."""
MERGE_BYTES = 4 * 2**20
"""The same for the bytes of their rows, which the driver holds."""
MAX_BYTES = 16 * 2**20
"""Of a merged part; a larger one is merged no more."""
_RATIO = 8  # a merged part is merged again once an eighth of its bytes came after it

_EMPTY = {folder: bytes(to_bytes(schema.empty_table())) for folder, schema in SCHEMAS.items()}

_log = logging.getLogger(__name__)


class ObjectJournal(Journal):
    """The parts of one epoch, and those that it found."""

    def __init__(self, storage: ObjectStorage, epoch: int, guard: Guard) -> None:
        self._storage, self._epoch, self._guard = storage, epoch, guard
        self._next = 0
        self._merges = 0
        self._begun: dict[str, _Merge] = {}  # those that failed: they may land, so that they are what comes next
        self._old: dict[str, list[list[str]]] = {}  # parts of an earlier schema, as they are rewritten
        self._new = 0  # parts that are not in the digest
        self._wait = 0  # parts to come before merging is tried again
        self._small = {folder: _Rows(SCHEMAS[folder]) for folder in storage.journals}

    # -- taking over --------------------------------------------------------------------------------------

    def take_over(self, unsealed: Iterable[int]) -> None:
        with self._failures():
            for epoch in unsealed:
                if not self._seal(epoch):
                    self._storage.catalogue.forget()  # something landed before its seal
            try:
                reading(self._storage, "trials", self._learn)
            except PoolError:
                compaction.recover(self._storage, self._epoch)
                self._storage.catalogue.forget()
                reading(self._storage, "trials", self._learn)
            self._tidy()

    def has_old(self) -> bool:
        with self._failures():
            catalogue = self._storage.catalogue
            for folder, rows in self._small.items():
                small = [name for name, _ in rows.parts]
                self._old[folder] = [small] if catalogue.has_old(folder, small) else []
                self._old[folder] += [[name] for name in catalogue.old(folder, list(rows.merged))]
        return any(self._old.values())

    def renew(self) -> None:
        with self._failures():
            for folder, old in self._old.items():
                for parts in old:
                    merged = [name for name in parts if names.merged(name)]
                    newest = self._small[folder].table() if not merged else SCHEMAS[folder].empty_table()
                    self._carry_out(self._plan(folder, parts, self._joined(folder, merged, newest)))
                    self._storage.catalogue.forget()
            self._old.clear()
            self._digest()

    def settle(self) -> None:
        with self._failures(), self._guard():
            self._storage.catalogue.forget()
            self._seal(self._epoch)
            self._storage.catalogue.forget()
            reading(self._storage, "trials", self._learn)
        self.quiet = True

    @contextmanager
    def _failures(self, folder: str = "trials") -> Iterator[None]:
        try:
            yield
        except READING as error:
            raise unreadable(self._storage, folder, error) from None

    def _seal(self, epoch: int) -> bool:
        """Nothing of this epoch that is on its way lands after this; whether nothing had since the listing.

        Harmless a second time, also when the first one was cut short.
        """
        catalogue = self._storage.catalogue
        there = {f"{folder}/{name}" for folder in self._small for name in catalogue.names(folder)}
        last = max((place[1] for name in there if (place := _place(name)) and place[0] == epoch), default=-1)
        found = True
        for number in (last, last + 1):  # the last one as well: the other folder's, where a seal was cut short
            for folder in self._small:
                empty = _EMPTY[folder]
                name = f"{folder}/{names.part_name(epoch, number)}"
                if number >= 0 and name not in there:
                    found &= self._storage.create(name, empty)
                    catalogue.note(name, empty)
        if epoch == self._epoch:
            self._next = last + 2
        return found

    def _learn(self) -> None:
        self._new = 0
        catalogue = self._storage.catalogue
        for folder, rows in self._small.items():
            parts = [name for name in self._storage.parts(folder) if names.number(name)]
            rows.merged = {name: catalogue.size(folder, name) for name in parts if names.merged(name)}
            rows.clear()
            small = [name for name in parts if name not in rows.merged]
            for name, data in zip(small, catalogue.tables(folder, small), strict=True):
                rows.add(name, data)
            self._new += len(set(small) - catalogue.digested(folder))

    def _tidy(self) -> None:
        """Remove what earlier merges had no time to remove, and what they left too late.

        A merged part of an earlier driver is replaced by our own before anything that it holds is removed: if another
        one of a still earlier driver is on its way, it is ours that counts.
        """
        for folder, rows in self._small.items():
            there = self._storage.catalogue.names(folder)
            counting = set(names.counting(there))
            left = {name for name in there if names.number(name) and name not in counting}
            adopted = [name for name in rows.merged if names.covered(there, name)]
            for name in adopted:
                self._carry_out(self._plan(folder, [name], self._storage.read(f"{folder}/{name}")))
            if left:
                self._storage.remove(*(f"{folder}/{name}" for name in sorted(left)))
                self._storage.catalogue.forget()

    # -- recording ----------------------------------------------------------------------------------------

    def append(self, folder: str, data: pa.Table) -> None:
        name = names.part_name(self._epoch, self._next)
        self._next += 1
        self.quiet = False
        if not self._storage.create(f"{folder}/{name}", to_bytes(data)):
            with self._failures(), self._guard():  # a successor's seal is no failure of ours
                where = self._storage.path(folder, name)
                raise PoolWriteError(f"{where} is there already: an earlier write landed after all")
        self.quiet = True
        self._small[folder].add(name, data)
        self._new, self._wait = self._new + 1, self._wait - 1
        if self._new >= DIGEST_AT:
            self._digest()

    def find(self, trial_id: int) -> pa.Table:
        with self._failures():
            return self._look_for([trial_id])[1]

    def replace(self, before: int, row: pa.Table) -> None:
        """A merge of the newest parts, or of an older one alone, in which the row is another."""
        with self._failures():
            if "trials" in self._begun:
                self._carry_out(self._begun["trials"])
            parts, found = self._look_for([before, row["trial_id"][0].as_py()])
            if before in found["trial_id"].to_pylist():
                merged = [self._file(name) for name in parts if names.merged(name)]
                newest = [self._small["trials"].table()] if len(merged) < len(parts) else []
                data = families.swapped([*merged, *newest], SCHEMAS["trials"], before, row)
                self._carry_out(self._plan("trials", parts, data))
        if not found.num_rows:  # what it follows is lost
            self.append("trials", row)

    def _look_for(self, trial_ids: Sequence[int]) -> tuple[list[str], pa.Table]:
        """Parts of trials/ that are best merged where the row of one of these is to be another, and those rows."""
        rows, schema = self._small["trials"], SCHEMAS["trials"]
        again = self._to_merge_again(rows, whole=False) if rows.parts else []
        found = [families.rows_of(self._file(name), trial_ids, schema) for name in again]
        found.append(families.rows_of(rows.table(), trial_ids, schema))
        if any(data.num_rows for data in found):
            return [*again, *(name for name, _ in rows.parts)], pa.concat_tables(found)
        for name in reversed([name for name in rows.merged if name not in again]):
            data = families.rows_of(self._file(name), trial_ids, schema)
            if data.num_rows:
                return [name], data
        return [], schema.empty_table()

    def _file(self, name: str) -> pa.BufferReader:
        return pa.BufferReader(self._storage.read(f"trials/{name}"))

    def _digest(self) -> None:
        if not self._new:
            return
        self._new = 0  # also when it fails: readers then read more parts
        tables = {folder: rows.table() for folder, rows in self._small.items()}
        parts = {folder: list(rows.parts) for folder, rows in self._small.items()}
        try:
            self._storage.write(DIGEST, Digest(parts, tables).to_bytes())
        except PoolWriteError as error:
            _log.debug("no digest: %s", error)

    # -- merging ------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        is_large = any(len(rows.parts) >= MERGE_AT or rows.bytes >= MERGE_BYTES for rows in self._small.values())
        return is_large and self._wait <= 0

    def merge(self, *, whole: bool) -> None:
        self._wait = MERGE_AT
        with self._failures():
            for folder in self._small:
                if folder in self._begun:
                    self._carry_out(self._begun[folder])
                rows = self._small[folder]
                again = self._to_merge_again(rows, whole=whole)
                if len(again) + len(rows.parts) > 1:
                    data = self._joined(folder, again, rows.table())
                    self._carry_out(self._plan(folder, [*again, *(name for name, _ in rows.parts)], data))
        self._wait = 0
        release()

    def _plan(self, folder: str, parts: Sequence[str], data: bytes | memoryview) -> _Merge:
        self._merges += 1
        first, last = names.span(parts[0])[0], names.span(parts[-1])[1]
        merge = _Merge(folder, tuple(parts), names.Merged(self._epoch, self._merges, first, last).name, data)
        self._begun[folder] = merge
        return merge

    def _carry_out(self, merge: _Merge) -> None:
        with self._guard():  # a driver that was replaced merges no more
            if not self._storage.create(f"{merge.folder}/{merge.name}", merge.data):
                raise PoolWriteError(f"{self._storage.path(merge.folder, merge.name)} is there already")
        del self._begun[merge.folder]
        self._small[merge.folder].replace(merge.parts, merge.name, len(merge.data))
        with self._guard():
            self._storage.remove(*(f"{merge.folder}/{name}" for name in merge.parts))

    def _to_merge_again(self, rows: _Rows, *, whole: bool) -> list[str]:
        """The newest merged parts, as far back as it pays."""
        total, again = len(to_bytes(rows.table())), list[str]()
        for name, size in reversed(rows.merged.items()):
            if total + size > MAX_BYTES or (not whole and size > _RATIO * total):
                break
            total += size
            again.insert(0, name)
        return again

    def _joined(self, folder: str, again: Sequence[str], newest: pa.Table) -> memoryview:
        """The rows of merged parts and the newest ones in one file, a group of rows in memory at a time."""
        sink = pa.BufferOutputStream()
        schema = SCHEMAS[folder]
        with large_part(sink, schema) as writer:
            merged = (pa.BufferReader(self._storage.read(f"{folder}/{name}")) for name in again)
            for group in groups(chain(merged, [newest]), schema):
                writer.write_table(group)
                del group
        return memoryview(sink.getvalue())


@dataclass(frozen=True, slots=True)
class _Merge:
    folder: str
    parts: tuple[str, ...]
    """Those that are merged, in order."""
    name: str
    data: bytes | memoryview


class _Rows:
    """Parts since the last merge, and what they hold: neighbours as one table, for small ones take kilobytes each."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._tables: list[pa.Table] = []
        self.parts: list[tuple[str, int]] = []
        """Each with the number of its rows."""
        self.bytes = 0
        self.merged: dict[str, int] = {}
        """The merged parts before them, in order, and their bytes."""

    def add(self, name: str, data: pa.Table) -> None:
        self.parts.append((name, data.num_rows))
        self.bytes += data.nbytes
        self._tables.append(data)

    def table(self) -> pa.Table:
        """All of them."""
        data = pa.concat_tables([self._schema.empty_table(), *self._tables]).combine_chunks()
        self._tables = [data]
        return data

    def replace(self, parts: Sequence[str], name: str, size: int) -> None:
        """Some were merged: of the small ones the first, for more may have come since."""
        kept = [(old, name if old in parts else old) for old in self.merged]
        sizes = {**self.merged, name: size}
        self.merged = {new: sizes[new] for _, new in kept}
        self.merged[name] = size
        gone = sum(part in parts for part, _ in self.parts)
        rest = self.table().slice(sum(count for _, count in self.parts[:gone]))
        self.parts = self.parts[gone:]
        self._tables, self.bytes = [rest], rest.nbytes

    def clear(self) -> None:
        self._tables, self.bytes, self.parts = [], 0, []


def _place(name: str) -> tuple[int, int] | None:
    return names.number(name.rpartition("/")[2])
