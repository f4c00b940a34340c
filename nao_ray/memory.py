"""What a process holds: a driver's goes back to the system, a training's stays at hand from step to step."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

_WORTH = 8 * 2**20
"""Bytes that a process must have grown by: to go through a large heap takes 30 ms, however little is given back."""
_least: int | None = None  # bytes resident at an earlier call, the fewest


def release() -> None:
    """Give back what Arrow and, where it can (glibc), the C library hold unused, if the process has grown since.

    Parquet's writer takes tens of megabytes for its columns, which the C library keeps for the next time.
    """
    global _least
    now = _resident()
    if now is not None and _least is not None and now < _least + _WORTH:
        _least = min(_least, now)
        return
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _least = _resident()


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_KEPT = 2**30
"""Bytes: a block up to this size comes from the heap, and the heap gives nothing back that is less than twice that."""


@cache
def keep() -> None:
    """From now on the C library, where it is glibc, keeps what is freed, until `release`.

    A training step takes the tensors that the one before has freed. Large ones went back to the system each time, and
    came again page by page, each cleared: a tenth of a step of a small network (measured).
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None and choose(_MMAP_THRESHOLD, _KEPT):
        choose(_TRIM_THRESHOLD, 2 * _KEPT - 1)


def _resident() -> int | None:
    """Bytes of this process that are in memory; None: not told here."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
