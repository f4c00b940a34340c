"""Giving memory back to the system after work that took much of it for a moment."""

from __future__ import annotations

import ctypes

import pyarrow as pa


def release() -> None:
    """Give back what Arrow and, where it can (glibc), the C library hold unused.

    What Parquet's writer takes for its columns comes from the C library, which keeps it for the next time: without this
    a driver that merged 20,000 trials stayed 60 MB larger.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
