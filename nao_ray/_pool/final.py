"""What is written beside a pool's rows, without its lease: full trainings and the report.

Of a full training a row with the test score is in `final/`, its checkpoint, a card and a picture in `weights/`. Each is
a file named for the training, written whole: of a training that runs twice at once the first row stays. A folder that
is no pool holds them in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool import rows
from nao_ray._pool.faults import READING, Fault, kind_of, patient, unreadable
from nao_ray._pool.finite import finite
from nao_ray._pool.groups import aligned
from nao_ray._pool.storage import open_storage
from nao_ray._pool.tables import to_bytes

_HEADER = 100 * 2**20  # bytes; safetensors allows no more
_SUFFIX = ".safetensors"
_RETRAIN = "move it elsewhere, and the training begins anew"


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
        """The row of a training, with nulls for columns that it was written without; None while it has none.

        Raises:
            PoolError: the file is damaged.
            PoolReadError: it cannot be read at the moment.
        """
        file = _row_file(name)
        lost = "its test score; move the file elsewhere, and the same command reads the test split anew"
        data = self._read(file, lost)
        if data is None:
            return None
        try:
            (row,) = finite(pq.read_table(pa.BufferReader(data), page_checksum_verification=True)).to_pylist()
        except (*READING, ValueError) as error:
            raise unreadable(self._storage.path(file), error, lost) from None
        return {name: row.get(name) for name in rows.FINAL.names}

    def _read(self, file: str, lost: str, length: int | None = None) -> bytes | None:
        """A file's bytes; None where it is not there."""
        try:
            return patient(lambda: self._storage.read(file, length), merged=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(self._storage.path(file), error, lost) from None

    def add(self, row: Mapping[str, Any]) -> rows.Row:
        """Write the row of a training that has none; returns the one that is recorded.

        Rows of an earlier nao_ray are first given the columns of this one: readers that know nothing of us take the
        columns of one file for those of all.

        Raises:
            PoolError: there is one, and the file is damaged.
            PoolReadError: a row that is there cannot be read at the moment.
            PoolWriteError: it could not be written.
        """
        self._storage.make_folder()
        self._storage.make_folder("final")
        self._renew()
        if not self._storage.create(_row_file(row["name"]), bytes(to_bytes(rows.table([row], rows.FINAL)))):
            return self.row(row["name"]) or dict(row)
        return {name: row.get(name) for name in rows.FINAL.names}

    def _renew(self) -> None:
        """Write rows of an earlier schema anew; what is damaged, or is no row of ours, stays as it is."""
        file = "final"
        try:
            for name in patient(lambda: self._storage.entries("final")):
                if name.endswith(".parquet") and name[0] not in "._":
                    file = f"final/{name}"
                    self._renew_row(file)
        except READING as error:
            raise unreadable(self._storage.path(file), error, "move it elsewhere") from None

    def _renew_row(self, file: str) -> None:
        try:
            data, tag = patient(lambda: self._storage.look(file), merged=False)
            found = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        except READING as error:
            if isinstance(error, FileNotFoundError) or kind_of(error) is Fault.DAMAGED:
                return
            raise
        if rows.is_earlier(found.schema, rows.FINAL):
            self._storage.swap(file, to_bytes(aligned(finite(found), rows.FINAL)), tag)

    def names(self) -> list[str]:
        """Of what has weights here: trainings that keep a checkpoint, and in a pool versions of shared weights.

        Raises:
            PoolReadError: the folder cannot be read at the moment.
        """
        try:
            found = patient(lambda: self._storage.entries("weights"))
        except READING as error:
            raise unreadable(self._storage.path("weights"), error, _RETRAIN) from None
        return [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX) and name[0] not in "._"]

    def has_row(self, name: str) -> bool:
        """Whether a training has its row."""
        return self._storage.exists(_row_file(name))

    def checkpoint_path(self, name: str) -> str:
        """Where the checkpoint of a training is, for messages."""
        return self._storage.path(checkpoint_file(name))

    def checkpoint(self, name: str) -> bytes | None:
        """The checkpoint of a training; None where there is none.

        Raises:
            PoolReadError: it cannot be read at the moment.
        """
        return self._read(checkpoint_file(name), _RETRAIN)

    def checkpoint_header(self, name: str) -> bytes | None:
        """The checkpoint without its tensors; None where there is none.

        Raises:
            PoolReadError: it cannot be read at the moment.
        """
        file = checkpoint_file(name)
        length = self._read(file, _RETRAIN, 8)
        if length is None:
            return None
        return self._read(file, _RETRAIN, 8 + min(_HEADER, int.from_bytes(length, "little")))

    def write_checkpoint(self, name: str, data: bytes) -> None:
        """Write the checkpoint of a training, in the place of the one before.

        Raises:
            PoolWriteError: it could not be written.
        """
        self._storage.make_folder()
        self._storage.make_folder("weights")
        self._storage.write(checkpoint_file(name), data)

    def write_beside(self, name: str, suffix: str, data: bytes) -> None:
        """Write a file beside the checkpoint of a training, named as that and `suffix`.

        Raises:
            PoolWriteError: it could not be written.
        """
        self._storage.make_folder()
        self._storage.make_folder("weights")
        self._storage.write(checkpoint_file(name) + suffix, data)


def _row_file(name: str) -> str:
    return f"final/{name}.parquet"


def checkpoint_file(name: str) -> str:
    """The checkpoint of a training, from its folder on."""
    return f"weights/{name}{_SUFFIX}"


def read_file(folder: str, name: str) -> bytes:
    """A file of a folder or URL, whole.

    Raises:
        PoolError: there is no such kind of URL.
        OSError: it cannot be read.
    """
    return open_storage(folder).read(name)


def write_page(url: str, page: str, name: str = "report.html") -> str:
    """Write a page of a pool; returns where it is.

    Raises:
        PoolWriteError: the pool cannot be written.
    """
    storage = open_storage(url)
    storage.write(name, page.encode())
    return storage.path(name)
