"""A driver runs for days beside its workers: what it took for a moment goes back to the system."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import pyarrow as pa

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
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _least = _resident()


def _resident() -> int | None:
    """Bytes of this process that are in memory; None: not told here."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
