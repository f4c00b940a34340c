"""A driver runs for days beside its workers: what it took for a moment goes back to the system."""

from __future__ import annotations

import ctypes

import pyarrow as pa


def release() -> None:
    """Give back what Arrow and, where it can (glibc), the C library hold unused.

    Parquet's writer takes tens of megabytes for its columns, which the C library keeps for the next time.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
