"""CIFAR-10 and CIFAR-100 as people have them on disk: binary version, Python version, or a Parquet table.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

The Python version (what torchvision downloads) is a pickle. It is read without unpickling: `pickletools` disassembles
the file, and only its byte strings and integers are taken: nothing in it is ever called or built, whatever it says.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError, MissingDataError
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.image_task import ImageTask, ImageTaskConfig
from nao_ray.tasks.images.labels import Classes
from nao_ray.tasks.images.parquet import Table
from nao_ray.tasks.images.picture_task import read_rows
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role

_STORED = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_TRAINING: Literal[1] = 1
_TESTING: Literal[2] = 2
"""Where the files' names are in a form."""
_GIVEN_OUT = "https://www.cs.toronto.edu/~kriz/cifar.html"
_STRINGS = ("STRING", "BYTES", "UNICODE")
_INTEGERS = ("INT", "BININT", "BININT1", "BININT2")


class CifarConfig(ImageTaskConfig):
    """Where the images are."""

    path: str | None = None
    """Folder of the binary version or of the Python version (or the folder above it, as torchvision downloads it), or a
    Parquet table: a file, a folder of files, or an s3:// or gs:// address."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    image_size: Literal[8, 16, 32] = 32
    """Side of the images, in pixels. Below 32 each pixel is the mean of a square and a child costs a quarter or less
    (downsampled as in Chrabaszcz, Loshchilov, Hutter, 2017, arXiv 1707.08819, by box filter)."""


class CifarTask(ImageTask[CifarConfig]):
    """Reads whichever form `path` holds; a task gives file names and columns."""

    _binary: tuple[str, tuple[str, ...], tuple[str, ...]]
    """Binary version: folder, training files, test files."""
    _python: tuple[str, tuple[str, ...], tuple[str, ...]]
    """Python version: the same."""
    _label_bytes: int
    """Bytes before the pixels of a binary record; the last one is the label."""
    _label_key: str
    """Key of the labels in the Python version."""
    _label_columns: tuple[str, ...]
    """Columns of the labels in a Parquet table, the first that is there counts."""

    def __init__(self, config: CifarConfig) -> None:
        super().__init__(config)
        self.image_shape = (3, config.image_size, config.image_size)

    def training_rows(self) -> Images:
        return splits.shrink(self._read(test=False), self.config.image_size)

    def test_rows(self) -> Images:
        return splits.shrink(self._read(test=True), self.config.image_size)

    def validation_rows(self) -> Images | None:
        if self._table is None or self._table.labels("validation") is None:
            return None
        return splits.shrink(self._read_table(self._table, "validation"), self.config.image_size)

    def _read(self, *, test: bool) -> Images:
        found = self._batches(test=test)
        if found is None:
            assert self._table is not None
            return self._read_table(self._table, "test" if test else "train")
        paths, read = found
        if missing := [path for path in paths if not path.is_file()]:
            raise MissingDataError(f"{missing[0]}: cannot be read: no such file; download {self.name} again")
        return _join([read(path) for path in paths])

    def _files(self) -> list[FileIdentity] | None:
        if self._table is not None:
            return self._table.files(("train", "validation"))
        found = self._batches(test=False)
        return None if found is None else [FileIdentity.of(path) for path in found[0] if path.is_file()]

    def _layout(self) -> tuple[str, tuple[str, ...]]:
        return ("", ()) if self._table is None else self._table.told()

    @property
    def _validation_is_given(self) -> bool:
        return self._table is not None and self._table.labels("validation") is not None

    def _batches(self, *, test: bool) -> tuple[list[Path], Callable[[Path], Images]] | None:
        """The files of the binary or the Python version, and what reads one; None: it is a table."""
        path = self.config.path
        if path is None:
            raise DataError(
                f"task {self.name}: no data; give task.path, e.g. --set task.path=data/{self._binary[0]}, unpacked "
                f"from {_GIVEN_OUT}"
            )
        folder = Path(path).expanduser()
        forms = ((self._binary, self._read_binary), (self._python, self._read_python))
        for sought in (_TRAINING, _TESTING):  # evaluation needs no training files
            for form, read in forms:
                for place in (folder, folder / form[0]):
                    if (place / form[sought][0]).is_file():
                        return [place / file for file in form[_TESTING if test else _TRAINING]], read
        if "://" not in path and not folder.exists():
            raise DataError(
                f"{path}: no such file or folder; task.path says where the data are, given out at {_GIVEN_OUT}"
            )
        if folder.is_dir() and not any(folder.rglob("*.par*")) and not any(folder.rglob("*.pq")):
            raise DataError(
                f"{path}: no {self.name} here; expected {self._binary[1][0]}, {self._python[1][0]} or *.parquet files, "
                f"given out at {_GIVEN_OUT}"
            )
        return None

    def _read_binary(self, path: Path) -> Images:
        """Records of label bytes and 3072 pixels, channels first."""
        data, record = _bytes(path), self._label_bytes + _PIXELS
        if not len(data) or len(data) % record:
            raise DataError(f"{path}: {len(data)} bytes are not whole records of {record}; download it again")
        records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
        images = records[:, self._label_bytes :].reshape(-1, *_STORED)
        return Images(images, records[:, self._label_bytes - 1].astype(np.int64))

    def _read_python(self, path: Path) -> Images:
        data, labels = _disassemble(path, self._label_key)
        if not len(labels) or len(data) != len(labels) * _PIXELS:
            raise DataError(f"{path}: not a batch of {self.name}: {len(data)} bytes of pixels, {len(labels)} labels")
        return Images(np.frombuffer(data, dtype=np.uint8).reshape(-1, *_STORED), labels)

    @cached_property
    def _table(self) -> Table | None:
        if self._batches(test=False) is not None:
            return None
        return Table(str(self.config.path), label_columns=self._label_columns)

    def _read_table(self, table: Table, role: Role) -> Images:
        numbers = self._numbers(table, role)
        sizes = None
        if role != "test" and self._validation_is_given:
            sizes = (len(self._numbers(table, "train")), len(self._numbers(table, "validation")))
        return read_rows(table, role, numbers, None if role == "test" else self._kept(numbers, role, sizes), _STORED)

    def _numbers(self, table: Table, role: Role) -> NDArray[np.int64]:
        return Classes.numbered(self.num_classes).numbers(table.check(role), f"{self._where}, {role} rows")

    @property
    def _where(self) -> str:
        return f"task {self.name}, {self.config.path}"


def _join(parts: list[Images]) -> Images:
    return Images(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _disassemble(path: Path, label_key: str) -> tuple[bytes, NDArray[np.int64]]:
    """The longest byte string of a pickle, and the integers between the string `label_key` and the next string."""
    data, labels, collecting = b"", list[int](), False
    try:
        for opcode, argument, _ in pickletools.genops(_bytes(path)):
            if isinstance(argument, bytes | bytearray | str) and any(kind in opcode.name for kind in _STRINGS):
                text = argument.encode("latin-1", "replace") if isinstance(argument, str) else bytes(argument)
                collecting = text == label_key.encode()
                data = max(data, text, key=len)
            elif collecting and isinstance(argument, int) and opcode.name in _INTEGERS:
                labels.append(argument)
    except ValueError as error:
        raise DataError(f"{path}: not a Python batch of CIFAR: {error}") from None
    return data, np.array(labels, dtype=np.int64)
