"""Merging small parts into large ones, and putting right what a crash left.

Rows are never seen twice, or not at all. The merged parts are written to a hidden folder, named for their driver, which
then takes the place of the old one at once. The old one is removed when it has been replaced, and replaced only by a
folder that holds as many rows.

Readers list a folder first, look each name up, then open them, and a swap may come between. So a merged part has the
name of the first of those it holds, and parts that are not merged keep theirs. Then
- who looks names up after the swap (and leaves out what is gone, as pyarrow does) finds all rows under those that stay;
- who has looked one up that the swap took away cannot open it, and fails: at once, loudly, and not when it tries again.
No passive storage can do more for a reader that opens by name what it has listed before. What is left is a reader that
opens the first of its parts after all others: the known ones begin with it. Our own look again (`steady`).
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.faults import READING, Fault, kind_of, line
from nao_ray._pool.groups import GROUP_ROWS, groups, large_part, open_part
from nao_ray._pool.local import LocalStorage, moved_away, sync_folder
from nao_ray._pool.quarantine import quarantine
from nao_ray._pool.renames import UNSUPPORTED
from nao_ray._pool.rows import is_current
from nao_ray._pool.storage import Guard, Storage
from nao_ray._pool.tables import SCHEMAS, refuse_strangers, survey, unreadable
from nao_ray.errors import PoolError, PoolWriteError

_LEASED = ("trials", "rungs", "events", "fits", "lease", "logs")
_UNLEASED = ("final", "weights")  # also written by full trainings, which hold no lease
_OLD_GATE = ".compaction-gate"  # earlier versions shut it while they merged
_LEFT_BEHIND = 3600.0  # seconds; a file is not half-written for that long

MAX_ROWS = 1_000_000  # of a merged part
MAX_BYTES = 256 * 2**20
_SMALL_ROWS = GROUP_ROWS // 4  # so few are always merged

_log = logging.getLogger(__name__)


def compact(storage: Storage, guard: Guard, epoch: int, *, whole: bool) -> list[str]:
    """Merge the parts of trials/, events/ and rungs/; returns the folders that were replaced, for `sweep`.

    `whole` merges everything up to the limits; otherwise only the newest parts, as far back as it pays: a part is
    taken while it has at most twice the rows of all newer ones, so that each row is rewritten a few times only. Parts
    of an earlier schema are always rewritten.
    `guard` is held for the swaps alone: merging may take longer than a driver may be silent.

    Raises:
        PoolError: the storage cannot swap folders, or a merged folder has not the rows of the old one.
        PoolWriteError: it could not be written; the pool is as before.
    """
    if not isinstance(storage, LocalStorage):
        raise PoolError(f"{storage.url} cannot be compacted in place: it has no rename of folders")
    replaced = []
    for folder in storage.journals:
        merge = _Merge(storage, folder, epoch)
        try:
            if merge.write(whole=whole):
                replaced.append(merge.swap(guard))
        except BaseException as error:
            with suppress(OSError):
                if storage.place_of_link(folder) != merge.new:  # it may be in use: an error may come after the swap
                    storage.remove(merge.new)
            if not isinstance(error, READING):
                raise
            is_damaged = kind_of(error) is Fault.DAMAGED
            raise (unreadable(storage, folder, error) if is_damaged else storage.failed(merge.new, error)) from None
    return replaced


def sweep(storage: Storage, replaced: Sequence[str]) -> None:
    """Remove the folders that a compaction has replaced; may take seconds, for some disks take 3 ms for each file."""
    for name in replaced:
        with suppress(OSError):  # left to the next driver
            storage.remove(name)


def recover(storage: Storage, epoch: int) -> bool:
    """Complete or roll back what dead drivers before this epoch left: a merge, half-written files, truncated parts.

    Returns:
        Whether there are parts of an earlier schema.

    Raises:
        PoolError: a folder is missing.
        PoolWriteError: a part cannot be read, so that it cannot be told whether it is truncated; it stays.
    """
    if isinstance(storage, LocalStorage):
        try:
            for folder in storage.journals:
                _recover_merge(storage, folder, epoch)
            storage.remove(*_half_written(storage))
        except OSError as error:
            raise storage.failed("trials", error) from None
    has_old = False
    for folder in storage.journals:
        truncated, is_old = _surveyed(storage, folder)
        has_old |= is_old
        for name in truncated:
            target = quarantine(storage, f"{folder}/{name}")
            _log.warning(
                "%s is truncated; moved to %s: its trials count as not finished", storage.path(folder, name), target
            )
    return has_old


def _surveyed(storage: Storage, folder: str) -> tuple[list[str], bool]:
    try:
        return survey(storage, folder)
    except READING as error:
        raise PoolWriteError(
            f"cannot read a part of {storage.path(folder)}: {line(error)}; nothing was moved: fix the storage, then "
            "try again"
        ) from None


# -- one folder -------------------------------------------------------------------------------------------


def _half_written(storage: LocalStorage) -> list[str]:
    """What a dead process left at the top (earlier versions: in the folders); of what has no lease by its age."""
    found = []
    for folder in ("", *_LEASED, *_UNLEASED):
        for name in storage.entries(folder):
            if name.startswith(".") and name.endswith(".tmp"):
                path = f"{folder}/{name}" if folder else name
                leased = (folder or name[1:].partition("-")[0]) in _LEASED
                if leased or _age(storage, path) > _LEFT_BEHIND:
                    found.append(path)
    return found


def _age(storage: LocalStorage, name: str) -> float:
    """Seconds since a file was written to, by the clock that dates files (the lease is of now); 0 when it is gone."""
    with suppress(FileNotFoundError):
        return os.path.getmtime(storage.path("lease/holder.json")) - os.path.getmtime(storage.path(name))
    return 0.0


def _recover_merge(storage: LocalStorage, folder: str, epoch: int) -> None:
    if not os.path.isdir(storage.path(folder)):
        if not storage.exists(moved_away(folder)):
            raise PoolError(f"pool {storage.url} has no {folder}/; restore it from a copy")
        storage.remove(folder)  # a link whose folder is gone
        storage.move(moved_away(folder), folder)
    used = storage.place_of_link(folder)
    for name in storage.entries():
        if name != used and _is_leftover(name, folder, epoch):
            storage.remove(name)
    storage.remove(f"{folder}/{_OLD_GATE}")


def _is_leftover(name: str, folder: str, epoch: int) -> bool:
    """Whether a folder is a merge's of a driver before this epoch."""
    if name == moved_away(folder) or name.startswith(f".{folder}-link-"):
        return True
    found = re.fullmatch(rf"\.{folder}-(?:new-)?e(\d+)(?:-[0-9a-f]+)?", name)
    return found is not None and int(found[1]) < epoch


class _Merge:
    """The successor of a folder."""

    def __init__(self, storage: LocalStorage, folder: str, epoch: int) -> None:
        self._storage, self._folder = storage, folder
        self.new = f".{folder}-e{epoch:06d}-{secrets.token_hex(4)}"
        """Its name: the driver's own, so that none adds to or removes another's."""
        self._names: list[str] = []

    def write(self, *, whole: bool) -> bool:
        """Write it, durably; False if there is nothing to merge."""
        storage, folder = self._storage, self._folder
        names = self._names = storage.parts(folder)
        refuse_strangers(storage, folder, names)
        rows, old = {}, set()
        for name in names:
            with open_part(storage.path(folder, name)) as part:  # a footer's own `schema` is a cycle of 100 kB with it
                rows[name] = part.metadata.num_rows
                if not is_current(part.schema_arrow, SCHEMAS[folder]):
                    old.add(name)
        keep = _kept(storage, folder, rows, whole=whole) - old
        runs = [(run, kept) for run, kept in _runs(names, keep)]
        if not any(len(run) > 1 or run[0] in old for run, _ in runs):
            return False
        os.mkdir(storage.path(self.new))
        with suppress(OSError):  # as open to others, where there is such a thing
            os.chmod(storage.path(self.new), os.stat(storage.path(folder)).st_mode & 0o7777)
        for run, kept in runs:
            if kept or (len(run) == 1 and run[0] not in old):
                _link(storage.path(folder, run[0]), storage.path(self.new, run[0]))
            else:
                self._write_merged(run)
        sync_folder(storage.path(self.new))
        merged = storage.parts(self.new)
        found = sum(_rows_of(storage.path(self.new, name)) for name in merged)
        if found != sum(rows.values()) or not set(merged) <= set(names):
            raise PoolError(
                f"merging {storage.path(folder)} gave {found} rows in {len(merged)} parts of {sum(rows.values())} in "
                f"{len(names)}; nothing was changed: `pool check` tells more"
            )
        return True

    def swap(self, guard: Guard) -> str:
        """Put it in the folder's place; returns the name that the old one has now."""
        with guard():
            if self._storage.parts(self._folder) != self._names:
                raise PoolError(
                    f"{self._storage.path(self._folder)} was changed while it was merged; nothing was replaced"
                )
            return self._storage.swap_folder(self._folder, self.new)

    def _write_merged(self, names: list[str]) -> None:
        """Merge parts into as few as the limits allow, under the first of their names; what comes last takes the rest.

        More than all names allow for is of earlier versions, whose limits and pages were others.
        """
        free = list(names)
        part: _Part | None = None
        schema = SCHEMAS[self._folder]
        try:
            paths = [self._storage.path(self._folder, name) for name in names]
            for group in groups(paths, schema):
                if part is not None and part.full and free:
                    part.close()
                    part = None
                if part is None:
                    part = _Part(self._storage.path(self.new, free.pop(0)), schema)
                part.write(group)
                del group
        finally:
            if part is not None:
                part.close()


def _rows_of(path: str) -> int:
    found: int = pq.read_metadata(path).num_rows
    return found


def _kept(storage: LocalStorage, folder: str, rows: dict[str, int], *, whole: bool) -> set[str]:
    """Parts that are carried over as they are, of those with so many rows."""
    keep: set[str] = set()
    newer_rows = 0
    for name, count in reversed(rows.items()):
        large = count >= MAX_ROWS // 2 or os.path.getsize(storage.path(folder, name)) >= MAX_BYTES // 2
        # once a part does not pay, none before it is looked at: merged parts stay in the order of the log
        if large or (not whole and (keep or count > max(2 * newer_rows, _SMALL_ROWS))):
            keep.add(name)
        newer_rows += count
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
    """The same part in another folder; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        with open(source, "rb") as original, open(target, "wb") as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())


class _Part:
    """A merged part being written."""

    def __init__(self, path: str, schema: pa.Schema) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._writer = large_part(self._file, schema)
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
