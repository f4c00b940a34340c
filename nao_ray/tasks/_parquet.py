"""Images in Parquet tables: the form data hubs serve.

An image is an encoded file (PNG, JPEG, ...), raw bytes (channels first; the shape has to be known), or a hub's struct
of `bytes` and `path`. Splits are told apart by a column, else by file names that begin with the split's name
(`train-00000-of-00002.parquet`), else every row is a training row. Rows of another split are never decoded, and files
of another split never opened.

Legend: `n` rows of a split, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from numpy.typing import NDArray

from nao_ray.errors import DataError
from nao_ray.tasks.base import Images

Shape = tuple[int, int, int]
_IMAGE_COLUMNS = ("image", "img")
_SPLIT_NAMES = ("train", "test", "validation", "valid", "val", "dev")
_BATCH_ROWS = 1024  # of encoded images held at a time
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Rows:
    """The rows of one split, by their labels."""

    dataset: Any
    filter: Any
    labels: NDArray[np.int64]
    """``[n]``, in the table's order."""


class Table:
    """A Parquet file, or a folder of them, at a path or an address.

    Raises:
        DataError: nothing there, unreadable, or without a column.
    """

    def __init__(
        self,
        path: str,
        *,
        image_columns: tuple[str, ...] = _IMAGE_COLUMNS,
        label_columns: tuple[str, ...] = ("label",),
        split_column: str = "split",
        train_split: str = "train",
    ) -> None:
        self.path = path
        self._image_columns, self._label_columns = image_columns, label_columns
        self._split_column, self._train_split = split_column, train_split
        self._filesystem, self._files, is_folder = _find(path)
        names = "|".join(map(re.escape, (train_split, *_SPLIT_NAMES)))
        starts = [re.match(f"({names})(?![a-z])", file.rpartition("/")[2]) for file in self._files if is_folder]
        self._split_of = {file: start[1] for file, start in zip(self._files, starts, strict=False) if start}
        """The split that a file's name begins with; empty where names say nothing."""

    def rows(self, split: str) -> Rows:
        """The rows of `split`, as the split column or the file names call it.

        Raises:
            DataError: there is no such split, or its labels are not integers.
        """
        dataset, condition = self._split(split)
        column = self._column(dataset, self._label_columns, "label")
        labels = _call(self.path, lambda: dataset.to_table(columns=[column], filter=condition))[column]
        if not pa.types.is_integer(labels.type):
            raise DataError(f"{self.path}: column {column} is {labels.type}, expected integers 0, 1, 2, ...")
        if labels.null_count:
            raise DataError(f"{self.path}: column {column} has {labels.null_count} empty labels")
        if not len(labels):
            raise DataError(f"{self.path}: has no {split} images")
        return Rows(dataset, condition, labels.to_numpy().astype(np.int64))

    def check_split(self, split: str) -> None:
        """Whether there are rows of `split`; reads no column but the one that names splits.

        Raises:
            DataError: there are none.
        """
        dataset, condition = self._split(split)
        if not _call(self.path, lambda: dataset.count_rows(filter=condition)):
            raise DataError(f"{self.path}: has no {split} images")

    def _split(self, split: str) -> tuple[Any, Any]:
        """The files that hold `split`, and which of their rows."""
        files, condition = self._files, None
        if self._split_of:
            files = [file for file in files if self._split_of.get(file) == split]
            if not files:
                raise DataError(f"{self.path}: no file is named {split}-*.parquet")
        dataset = self._open(files)
        if self._split_column in dataset.schema.names:
            condition = pc.field(self._split_column) == split
        elif not self._split_of and split != self._train_split:
            raise DataError(
                f"{self.path}: has no {split} images: no column {self._split_column!r} and no {split}-*.parquet; "
                "all its rows are for training and validation"
            )
        return dataset, condition

    def shape(self, rows: Rows) -> Shape:
        """``(C, H, W)`` of the first image."""
        column = self._column(rows.dataset, self._image_columns, "image")
        first = _call(self.path, lambda: rows.dataset.head(1, columns=[column], filter=rows.filter))[column][0]
        shape: Shape = _decode(_payload(first, self.path), None, f"{self.path}, first image").shape
        return shape

    def read(self, rows: Rows, shape: Shape, keep: NDArray[np.int64] | None = None, *, resize: bool = False) -> Images:
        """The images of `rows`, or of those at the ascending indices `keep` alone.

        Raises:
            DataError: an image cannot be decoded, or has another shape and `resize` is false.
        """
        keep = np.arange(len(rows.labels)) if keep is None else keep
        images = np.empty((len(keep), *shape), dtype=np.uint8)
        for place, index, value in self._values(rows, keep):
            where = f"{self.path}, image {index} of the split"
            image = _decode(_payload(value, where), shape, where, resize=resize)
            if image.shape != shape:
                hint = "set image_shape to resize" if not resize else "expected images of one shape"
                raise DataError(f"{where}: shape {image.shape}, expected {shape}; {hint}")
            images[place] = image
        return Images(images, rows.labels[keep])

    def _values(self, rows: Rows, keep: NDArray[np.int64]) -> Iterator[tuple[int, int, Any]]:
        """(position in `keep`, index in the split, value) of the kept rows, batch by batch."""
        column = self._column(rows.dataset, self._image_columns, "image")
        scanner = rows.dataset.scanner(columns=[column], filter=rows.filter, batch_size=_BATCH_ROWS)
        start = place = 0
        batches = scanner.to_batches()
        while (batch := _call(self.path, lambda: next(batches, None))) is not None:
            stop = start + batch.num_rows
            while place < len(keep) and keep[place] < stop:
                yield place, int(keep[place]), batch.column(0)[int(keep[place]) - start]
                place += 1
            start = stop
            if place == len(keep):
                return

    def _open(self, files: list[str]) -> Any:  # noqa: ANN401
        return _call(self.path, lambda: ds.dataset(files, format="parquet", filesystem=self._filesystem))

    def _column(self, dataset: Any, names: tuple[str, ...], what: str) -> str:  # noqa: ANN401
        for name in names:
            if name in dataset.schema.names:
                return name
        raise DataError(
            f"{self.path}: no {what} column; expected {' or '.join(names)}, the columns are "
            f"{', '.join(dataset.schema.names)}"
        )


def _find(path: str) -> tuple[Any, list[str], bool]:
    """The filesystem, the sorted Parquet files of a path or address, and whether that is a folder."""

    def find() -> tuple[Any, list[str], bool]:
        local = "://" not in path
        filesystem, root = (
            (pafs.LocalFileSystem(), str(Path(path).expanduser())) if local else pafs.FileSystem.from_uri(path)
        )
        info = filesystem.get_file_info(root)
        if info.type == pafs.FileType.NotFound:
            raise DataError(f"{path}: no such file or folder")
        if info.type == pafs.FileType.File:
            return filesystem, [root], False
        inside = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
        files = sorted(
            file.path
            for file in inside
            if file.type == pafs.FileType.File and file.extension == "parquet" and file.base_name[0] not in "._"
        )
        if not files:
            raise DataError(f"{path}: the folder has no *.parquet files")
        return filesystem, files, True

    found: tuple[Any, list[str], bool] = _call(path, find)
    return found


def _call(path: str, read: Any) -> Any:  # noqa: ANN401
    """What `read` returns; an error of Arrow's or the system's becomes a DataError of one line."""
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as Parquet: {reason}") from None


def _payload(value: Any, where: str) -> bytes:  # noqa: ANN401
    """The bytes of a cell: binary as it is, a struct's field `bytes`."""
    content = value.as_py()
    if isinstance(content, dict):
        content = content.get("bytes")
    if not isinstance(content, bytes):
        raise DataError(f"{where}: expected the bytes of an image, got {value.type} ({type(content).__name__})")
    return content


def _decode(content: bytes, shape: Shape | None, where: str, *, resize: bool = False) -> NDArray[np.uint8]:
    """``[C, H, W]``: raw bytes where their number fits `shape`, else an encoded image."""
    from PIL import Image

    if shape is not None and len(content) == int(np.prod(shape)) and not _is_encoded(content):
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = _MODES[shape[0]] if shape else ("L" if image.mode in ("1", "L", "I;16") else "RGB")
            picture = image if image.mode == mode else image.convert(mode)
            if shape and resize and picture.size != (shape[2], shape[1]):
                picture = picture.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        hint = "" if shape else "; raw bytes need image_shape"
        raise DataError(f"{where}: {len(content)} bytes that are no image{hint} ({type(error).__name__})") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _is_encoded(content: bytes) -> bool:
    return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def check_shape(shape: Shape) -> Shape:
    """``(C, H, W)`` with 1, 3 or 4 channels and at least one pixel; for configs."""
    if shape[0] not in _MODES or min(shape) < 1:
        raise ValueError(f"image_shape is (channels, height, width) with 1, 3 or 4 channels, got {shape}")
    return shape
