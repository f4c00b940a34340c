"""What a search took from earlier pools, frozen in its own when it began: its proposals do not change when they do."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.faults import READING, patient, unreadable
from nao_ray._pool.storage import Storage
from nao_ray.errors import PoolError

NAME = "warm_start.parquet"
EARLIER_HASH = "warm_start_hash"
"""Key of the manifest with the file's hash."""
SCHEMA = pa.schema([("pool", pa.string()), ("genotype", pa.string()), ("score", pa.float64())])
"""Address of the earlier pool, key of an architecture, and its score there, of which more is better."""
_REMEDY = "what it proposes follows from it; restore it from a copy"


def digest(data: bytes) -> str:
    """By which the manifest knows the file."""
    return hashlib.sha256(data).hexdigest()


def read_earlier(storage: Storage, expected: str) -> pa.Table:
    """The rows of the file, in the order they were frozen.

    Raises:
        PoolError: it is missing or damaged.
        PoolReadError: it cannot be read at the moment.
    """
    try:
        data = patient(lambda: storage.read(NAME), merged=False)
    except READING as error:
        raise unreadable(storage.path(NAME), error, _REMEDY) from None
    if digest(data) != expected:
        raise PoolError(f"{storage.path(NAME)} is not the one that the search began with: {_REMEDY}")
    return pq.read_table(pa.BufferReader(data)).select(SCHEMA.names)
