"""Merging small parts into large ones, and putting right what a crash left.

Rows are never seen twice, or not at all. The merged parts are written to a hidden folder beside the old one, which
two renames then put in its place. No name is ever used again, so a reader that listed the old folder and
opens a part after the renames gets FileNotFoundError.

One hole is left by readers that look each listed name up before they open any (pyarrow's folders) and leave out those
that are gone: listing, renames, look-up would give them an empty table. So every folder holds the hidden file
`GATE`, and for `GRACE` seconds after the renames it is a link that cannot be followed: such a reader stumbles over it,
loudly (OSError, "File name too long"; a link to nothing or to itself it would leave out as well).
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.faults import READING, Fault, kind_of, line
from nao_ray._pool.quarantine import quarantine
from nao_ray._pool.recent import Recent
from nao_ray._pool.storage import Guard, LocalStorage, Storage, sync_folder
from nao_ray._pool.tables import SCHEMAS, find_damaged, in_batches, refuse_strangers, unreadable
from nao_ray.errors import PoolError, PoolWriteError

GATE = ".compaction-gate"
_NOWHERE = "being-compacted-read-again-" * 12  # longer than a name may be (255)
GRACE = 0.1  # seconds; between a reader's listing and its look-up lie microseconds
FOLDERS = ("trials", "events")
_WRITTEN = (*FOLDERS, "fits", "lease")
_SHARED = ("final", "weights")  # also written by full trainings, which hold no lease
_LEFT_BEHIND = 3600.0  # seconds; a file is not half-written for that long

MAX_ROWS = 1_000_000  # of a merged part
MAX_BYTES = 256 * 2**20
_GROUP_ROWS = 16_384  # rows held in memory and written as one row group

_log = logging.getLogger(__name__)


def part_name(epoch: int, number: int) -> str:
    """Name of a part: sorted, parts are in the order written; never used twice."""
    return f"e{epoch:06d}-{number:08d}.parquet"


def compact(storage: Storage, guard: Guard, recent: Recent, epoch: int, number: int, *, whole: bool) -> int:
    """Merge the parts of trials/ and events/ into parts numbered from `number` on; returns the next number.

    `whole` merges everything up to the limits; otherwise only the newest parts, as far back as it pays: a part is
    taken while it has at most twice the rows of all newer ones, so that each row is rewritten a few times only.
    `guard` is held for the renames alone: merging may take longer than a driver may be silent.

    Raises:
        PoolError: the storage cannot swap folders.
        PoolWriteError: it could not be written; the pool is as before.
    """
    if not isinstance(storage, LocalStorage):
        raise PoolError(
            f"{storage.url} cannot be compacted in place: object storage has no rename of folders; copy the pool to a "
            "disk, compact it there, copy it back"
        )
    sweep(storage)
    swapped = []
    try:
        for folder in FOLDERS:
            used = _merge(storage, recent, folder, epoch, number, whole=whole)
            number += used
            if used:
                _swap(storage, folder, _new(folder, epoch), guard)
                swapped.append(folder)
    finally:
        try:
            time.sleep(GRACE if swapped else 0)
        finally:
            for folder in swapped:
                _open_gate(storage, folder)
    return number


def sweep(storage: Storage) -> None:
    """Remove the folders that a compaction has replaced; may take seconds, for some disks take 3 ms for each file."""
    for folder in FOLDERS:
        with suppress(OSError):  # left to the next one
            storage.remove(_old(folder))


def add_gate(storage: Storage, folder: str) -> None:
    """Give a new folder its gate, open."""
    if isinstance(storage, LocalStorage):
        storage.write(f"{folder}/{GATE}", b"")


def needs_recovery(storage: Storage) -> bool:
    """Whether `recover` would change anything."""
    if isinstance(storage, LocalStorage):
        for folder in FOLDERS:
            leftovers = [_old(folder), *_unfinished(storage, folder)]
            closed = os.path.islink(storage.path(folder, GATE))
            if not storage.exists(folder) or closed or any(storage.exists(name) for name in leftovers):
                return True
        if any(_half_written(storage, folder) for folder in (*_WRITTEN, *_SHARED)):
            return True
    return any(find_damaged(storage, folder) for folder in FOLDERS)


def recover(storage: Storage) -> None:
    """Complete or roll back what a dead driver left: a compaction, half-written files, truncated parts.

    Raises:
        PoolWriteError: a part cannot be read, so that it cannot be told whether it is truncated; it stays.
    """
    if isinstance(storage, LocalStorage):
        for folder in FOLDERS:
            _recover_compaction(storage, folder)
        for folder in (*_WRITTEN, *_SHARED):
            for name in _half_written(storage, folder):
                storage.remove(f"{folder}/{name}")
    for folder in FOLDERS:
        for name in _truncated(storage, folder):
            target = quarantine(storage, f"{folder}/{name}")
            _log.warning(
                "%s is truncated; moved to %s: its trials count as not finished", storage.path(folder, name), target
            )


def _truncated(storage: Storage, folder: str) -> list[str]:
    try:
        return find_damaged(storage, folder)
    except READING as error:
        raise PoolWriteError(
            f"cannot read a part of {storage.path(folder)}: {line(error)}; nothing was moved: fix the storage, then "
            "try again"
        ) from None


# -- one folder -------------------------------------------------------------------------------------------


def _half_written(storage: LocalStorage, folder: str) -> list[str]:
    """What a dead process left; in `_SHARED` by its age."""
    names = [name for name in storage.entries(folder) if name.startswith(".") and name.endswith(".tmp")]
    return [name for name in names if folder not in _SHARED or _age(storage.path(folder, name)) > _LEFT_BEHIND]


def _age(path: str) -> float:
    """Seconds since a file was written to; 0 when it is gone."""
    with suppress(FileNotFoundError):
        return time.time() - os.path.getmtime(path)
    return 0.0


def _new(folder: str, epoch: int) -> str:
    # with the epoch: a driver that was replaced in the middle of merging cannot add to its successor's folder
    return f".{folder}-new-e{epoch:06d}"


def _unfinished(storage: LocalStorage, folder: str) -> list[str]:
    return [name for name in storage.entries() if name.startswith(f".{folder}-new-")]


def _old(folder: str) -> str:
    return f".{folder}-old"


def _recover_compaction(storage: LocalStorage, folder: str) -> None:
    if not storage.exists(folder):
        # between the renames: the merged parts are complete, for they are synced before the first; of several
        # folders the one of the last epoch, for no older driver can have begun to rename
        whole = [name for name in (_old(folder), *_unfinished(storage, folder)) if storage.exists(name)]
        if not whole:
            raise PoolError(f"pool {storage.url} has no {folder}/; restore it from a copy")
        storage.move(whole[-1], folder)
    for name in (*_unfinished(storage, folder), _old(folder)):
        storage.remove(name)
    _open_gate(storage, folder)


def _swap(storage: LocalStorage, folder: str, new: str, guard: Guard) -> None:
    try:
        with guard():
            try:
                storage.move(folder, _old(folder))
                storage.move(new, folder)
            except BaseException:
                _recover_compaction(storage, folder)
                raise
    except OSError as error:
        raise storage.failed(folder, error) from None
    finally:
        storage.remove(new)  # gone already unless something was raised


def _open_gate(storage: LocalStorage, folder: str) -> None:
    gate = f"{folder}/{GATE}"
    if os.path.islink(storage.path(gate)) or not os.path.exists(storage.path(gate)):
        storage.remove(gate)  # first, for a full disk forbids only what comes next
        with suppress(PoolWriteError):
            storage.write(gate, b"")


def _merge(storage: LocalStorage, recent: Recent, folder: str, epoch: int, number: int, *, whole: bool) -> int:
    """Write the folder's successor; returns the part numbers used, 0 if there is nothing to merge."""
    new = _new(folder, epoch)
    used = 0
    try:
        names = storage.parts(folder)
        refuse_strangers(storage, folder, names)
        keep = _kept(storage, recent, folder, names, whole=whole)
        if len(names) - len(keep) < 2:
            return 0
        storage.remove(new)
        storage.make_folder(new)
        for run, kept in _runs(names, keep):
            if kept:
                _link(storage.path(folder, run[0]), storage.path(new, part_name(epoch, number + used)))
                used += 1
            else:
                used += _write_merged(storage, recent, folder, run, epoch, number + used)
        with suppress(OSError):  # a file system without links: the hole of a few microseconds stays
            os.symlink(_NOWHERE, storage.path(new, GATE))
        sync_folder(storage.path(new))
    except BaseException as error:
        with suppress(OSError):
            storage.remove(new)
        if not isinstance(error, READING):
            raise
        raise (
            unreadable(storage, folder, error) if kind_of(error) is Fault.DAMAGED else storage.failed(new, error)
        ) from None
    return used


def _kept(storage: LocalStorage, recent: Recent, folder: str, names: list[str], *, whole: bool) -> set[str]:
    """Parts that are carried over as they are."""
    keep: set[str] = set()
    newer_rows = 0
    for name in reversed(names):
        path = storage.path(folder, name)
        known = recent.get(folder, name)
        rows = pq.read_metadata(path).num_rows if known is None else known.num_rows
        large = rows >= MAX_ROWS // 2 or os.path.getsize(path) >= MAX_BYTES // 2
        # once a part does not pay, none before it is looked at: merged parts stay in the order of the log
        if large or (not whole and (keep or rows > max(2 * newer_rows, _GROUP_ROWS // 16))):
            keep.add(name)
        newer_rows += rows
    return keep


def _runs(names: list[str], keep: set[str]) -> list[tuple[list[str], bool]]:
    """Neighbours that are merged together, and kept parts one by one; in order."""
    runs: list[tuple[list[str], bool]] = []
    for name in names:
        if name not in keep and runs and not runs[-1][1]:
            runs[-1][0].append(name)
        else:
            runs.append(([name], name in keep))
    return runs


def _link(source: str, target: str) -> None:
    """The same part under a new name; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except PermissionError:
        with open(source, "rb") as original, open(target, "wb") as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())


def _write_merged(storage: LocalStorage, recent: Recent, folder: str, names: list[str], epoch: int, number: int) -> int:
    """Merge parts into as few as the limits allow; returns their number."""
    schema = SCHEMAS[folder]
    part: _Part | None = None
    written = 0
    try:
        for group in _groups(_batches(storage, recent, folder, names)):
            if part is not None and part.full:
                part.close()
                part = None
            if part is None:
                part = _Part(storage.path(_new(folder, epoch), part_name(epoch, number + written)), schema)
                written += 1
            part.write(pa.Table.from_batches(group, schema))
    finally:
        if part is not None:
            part.close()
    return written


def _batches(storage: LocalStorage, recent: Recent, folder: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of parts, in order."""
    for cached, run in groupby(names, lambda name: recent.get(folder, name) is not None):
        if cached:
            for data in (recent.get(folder, name) for name in run):
                assert data is not None
                yield from data.to_batches()
        else:
            paths = [storage.path(folder, name) for name in run]
            yield from in_batches(paths, SCHEMAS[folder], _GROUP_ROWS)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterable[list[pa.RecordBatch]]:
    """Batches, gathered to at least `_GROUP_ROWS` rows; at least one group, of no batches if need be."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        if rows >= _GROUP_ROWS:
            yield group
            group, rows = [], 0
    yield group


class _Part:
    """A merged part being written."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)
        self._rows = 0

    @property
    def full(self) -> bool:
        return self._rows >= MAX_ROWS or self._file.tell() >= MAX_BYTES

    def write(self, data: pa.Table) -> None:
        self._writer.write_table(data)
        self._rows += data.num_rows

    def close(self) -> None:
        try:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
