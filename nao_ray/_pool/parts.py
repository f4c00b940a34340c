"""Parts where there are no locks: names in a row, each written once, and none after the epoch is over.

A driver has one part on its way at a time, in `events/` or in `trials/`, and takes the next number only when it
landed. So whoever takes the pool over knows both names that can still come, and puts an empty part under each: what
arrives later finds its name taken. The same settles a write of our own that failed, for it may yet land.
"""

from __future__ import annotations

import re
from contextlib import nullcontext

import pyarrow as pa

from nao_ray._pool import compaction, tables
from nao_ray._pool.faults import READING
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolWriteError

_EMPTY = {folder: tables.SCHEMAS[folder].empty_table() for folder in compaction.FOLDERS}


def write(storage: Storage, name: str, data: pa.Table, guard: Guard) -> None:
    """Write a part under its own name.

    Raises:
        FencedError: by the guard: another driver has taken over.
        PoolWriteError: it was not written; on object storage it may yet be, unless it is sealed.
    """
    if isinstance(storage, LocalStorage):
        if not storage.create(name, tables.to_bytes(data), guard):
            raise PoolWriteError(f"{storage.path(name)} is there already, and is not replaced; trying the next number")
        return
    try:
        with guard():
            created = storage.create(name, tables.to_bytes(data))
        if created:
            return
        with guard():  # a successor's seal is no failure of ours
            raise PoolWriteError(f"{storage.path(name)} is there already: an earlier write landed after all")
    except OSError as error:
        raise storage.failed(name, error) from None


def seal(storage: Storage, epoch: int, guard: Guard = nullcontext) -> int:
    """Nothing of this epoch that is on its way lands after this; returns the next free number.

    Harmless a second time, also when the first one was cut short; without effect, and 0, where there are locks.

    Raises:
        PoolWriteError: it is not sealed.
    """
    if isinstance(storage, LocalStorage):
        return 0
    try:
        with guard():
            return _seal(storage, epoch)
    except READING as error:
        raise storage.failed("trials", error) from None


def _seal(storage: Storage, epoch: int) -> int:
    prefix = compaction.part_name(epoch, 0).partition("-")[0] + "-"
    there = {f"{folder}/{name}" for folder in compaction.FOLDERS for name in storage.parts(folder)}
    numbers = (re.fullmatch(rf"\w+/{prefix}(\d+)\.parquet", name) for name in there)
    last = max((int(found[1]) for found in numbers if found), default=-1)
    for number in (last, last + 1):  # the last one as well: the other folder's, where a seal was cut short
        for folder, empty in _EMPTY.items():
            name = f"{folder}/{compaction.part_name(epoch, number)}"
            if number >= 0 and name not in there:
                storage.create(name, tables.to_bytes(empty))
    return last + 2
