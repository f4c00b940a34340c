"""Full trainings: a row with the test score each, in `final/`, and a checkpoint each, in `weights/`.

Each is a file named for the training, written whole, so that neither needs the pool's lease: of a training that runs
twice at once the first row stays. A folder that is no pool holds them in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool import rows
from nao_ray._pool.finite import finite
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import to_bytes
from nao_ray.errors import PoolError

_HEADER = 100 * 2**20  # bytes; safetensors allows no more


def read_final(storage: Storage, name: str) -> rows.Row | None:
    """The row of a training; None while it has none.

    Raises:
        PoolError: the file is damaged.
    """
    file = _row_file(name)
    if not storage.exists(file):
        return None
    try:
        with storage.open(file) as source:
            (row,) = finite(pq.read_table(source)).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        why = " ".join(str(error).split())
        raise PoolError(
            f"{storage.path(file)} is damaged ({why}); remove it, the test split is then read anew"
        ) from None
    return dict(row)


def write_final(storage: Storage, row: Mapping[str, Any]) -> rows.Row:
    """Write the row of a training that has none; returns the one that is recorded.

    Raises:
        PoolError: there is one, and the file is damaged.
        PoolWriteError: it could not be written.
    """
    storage.make_folder("final")
    if not storage.create(_row_file(row["name"]), bytes(to_bytes(rows.table([row], rows.FINAL)))):
        return read_final(storage, row["name"]) or dict(row)
    return dict(row)


def has_final(storage: Storage, name: str) -> bool:
    """Whether a training has its row."""
    return storage.exists(_row_file(name))


def _row_file(name: str) -> str:
    return f"final/{name}.parquet"


def checkpoint_file(name: str) -> str:
    """Where the checkpoint of a training is."""
    return f"weights/{name}.safetensors"


def read_checkpoint(storage: Storage, name: str) -> bytes | None:
    """The checkpoint of a training; None where there is none.

    Raises:
        PoolError: it cannot be read.
    """
    file = checkpoint_file(name)
    if not storage.exists(file):
        return None
    try:
        return storage.read(file)
    except OSError as error:
        raise PoolError(f"cannot read {storage.path(file)}: {' '.join(str(error).split())}") from None


def read_checkpoint_header(storage: Storage, name: str) -> bytes | None:
    """The checkpoint without its tensors; None where there is none.

    Raises:
        PoolError: it cannot be read.
    """
    file = checkpoint_file(name)
    try:
        length = storage.read(file, 8)
        return storage.read(file, 8 + min(_HEADER, int.from_bytes(length, "little")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PoolError(f"cannot read {storage.path(file)}: {' '.join(str(error).split())}") from None


def write_checkpoint(storage: Storage, name: str, data: bytes) -> None:
    """Write the checkpoint of a training, in the place of the one before.

    Raises:
        PoolWriteError: it could not be written.
    """
    storage.make_folder("weights")
    storage.write(checkpoint_file(name), data)
