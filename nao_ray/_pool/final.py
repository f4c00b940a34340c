"""What is written beside a pool's rows, without its lease: full trainings and the report.

Of a full training a row with the test score is in `final/`, its checkpoint in `weights/`. Each is a file named for the
training, written whole: of a training that runs twice at once the first row stays. A folder that is no pool holds them
in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool import rows
from nao_ray._pool.finite import finite
from nao_ray._pool.storage import open_storage
from nao_ray._pool.tables import to_bytes
from nao_ray.errors import PoolError

_HEADER = 100 * 2**20  # bytes; safetensors allows no more


class Finals:
    """The full trainings of a pool, or of any other folder or URL."""

    def __init__(self, url: str | Path) -> None:
        """Nothing is read or made.

        Raises:
            PoolError: there is no such kind of URL.
        """
        self._storage = open_storage(url)

    @property
    def url(self) -> str:
        """Folder or URL."""
        return self._storage.url

    def row(self, name: str) -> rows.Row | None:
        """The row of a training; None while it has none.

        Raises:
            PoolError: the file is damaged.
        """
        file = _row_file(name)
        if not self._storage.exists(file):
            return None
        path = self._storage.path(file)
        try:
            with self._storage.open(file) as source:
                (row,) = finite(pq.read_table(source)).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            raise PoolError(f"{path} is damaged ({why}); remove it, the test split is then read anew") from None
        return dict(row)

    def add(self, row: Mapping[str, Any]) -> rows.Row:
        """Write the row of a training that has none; returns the one that is recorded.

        Raises:
            PoolError: there is one, and the file is damaged.
            PoolWriteError: it could not be written.
        """
        self._storage.make_folder("final")
        if not self._storage.create(_row_file(row["name"]), bytes(to_bytes(rows.table([row], rows.FINAL)))):
            return self.row(row["name"]) or dict(row)
        return dict(row)

    def has_row(self, name: str) -> bool:
        """Whether a training has its row."""
        return self._storage.exists(_row_file(name))

    def checkpoint_path(self, name: str) -> str:
        """Where the checkpoint of a training is, for messages."""
        return self._storage.path(checkpoint_file(name))

    def checkpoint(self, name: str) -> bytes | None:
        """The checkpoint of a training; None where there is none.

        Raises:
            PoolError: it cannot be read.
        """
        file = checkpoint_file(name)
        if not self._storage.exists(file):
            return None
        try:
            return self._storage.read(file)
        except OSError as error:
            raise PoolError(f"cannot read {self._storage.path(file)}: {' '.join(str(error).split())}") from None

    def checkpoint_header(self, name: str) -> bytes | None:
        """The checkpoint without its tensors; None where there is none.

        Raises:
            PoolError: it cannot be read.
        """
        file = checkpoint_file(name)
        try:
            length = self._storage.read(file, 8)
            return self._storage.read(file, 8 + min(_HEADER, int.from_bytes(length, "little")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PoolError(f"cannot read {self._storage.path(file)}: {' '.join(str(error).split())}") from None

    def write_checkpoint(self, name: str, data: bytes) -> None:
        """Write the checkpoint of a training, in the place of the one before.

        Raises:
            PoolWriteError: it could not be written.
        """
        self._storage.make_folder("weights")
        self._storage.write(checkpoint_file(name), data)


def _row_file(name: str) -> str:
    return f"final/{name}.parquet"


def checkpoint_file(name: str) -> str:
    """The checkpoint of a training, from its folder on."""
    return f"weights/{name}.safetensors"


def read_file(folder: str, name: str) -> bytes:
    """A file of a folder or URL, whole.

    Raises:
        PoolError: there is no such kind of URL.
        OSError: it cannot be read.
    """
    return open_storage(folder).read(name)


def write_page(url: str, page: str) -> str:
    """Write `report.html` of a pool; returns where it is.

    Raises:
        PoolWriteError: the pool cannot be written.
    """
    storage = open_storage(url)
    storage.write("report.html", page.encode())
    return storage.path("report.html")
