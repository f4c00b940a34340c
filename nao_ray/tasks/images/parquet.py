"""Images in Parquet tables: the form data hubs serve.

An image is an encoded file (PNG, JPEG, ...), raw bytes (channels first; the shape has to be known), or a hub's struct
of `bytes` and `path`. A whole column is one or the other: raw if its type says so (binary of the fixed size of an
image), else encoded if its first value begins as an image file does, else raw. Splits are told apart by a column, or by
the paths of files (`layouts`); rows of another split are never decoded, and files of another split never opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from nao_ray.errors import DataError
from nao_ray.tasks.images import pictures, row_groups
from nao_ray.tasks.images.labels import Labels
from nao_ray.tasks.images.pictures import Shape
from nao_ray.tasks.images.sources import Index, Reader, Source
from nao_ray.tasks.parts import layouts
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role, Wanted

ImageFormat = Literal["auto", "encoded", "raw"]
T = TypeVar("T")

_IMAGE_COLUMNS = ("image", "img")
_EXTENSIONS = ("parquet", "pq", "parq")
_OPENED_AT_ONCE = 16
_BATCH_ROWS = 1024  # of encoded images held at a time
_LOOKED_AT = 1000  # rows that tell whether a column names splits
_FLAGS = frozenset({"is_train", "is_training", "is_test", "is_valid", "is_val", "is_validation"})
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class _Part:
    """The rows of one split."""

    dataset: Any
    filter: Any = None


class Table(Source):
    """A Parquet file, or a folder of them, at a path or an address.

    Raises:
        DataError: nothing there, unreadable, of an unknown layout, or without a column.
    """

    def __init__(
        self,
        path: str,
        *,
        image_columns: tuple[str, ...] = _IMAGE_COLUMNS,
        label_columns: tuple[str, ...] = ("label",),
        split_column: str | None = SPLIT_COLUMN,
        splits: Wanted | None = None,
        image_format: ImageFormat = "auto",
    ) -> None:
        self.path = path
        self._image_columns, self._label_columns = image_columns, label_columns
        self._split_column, self._wanted, self._format = split_column, splits or Wanted(), image_format
        self._filesystem, self._files, root = _find(path)
        self._root = root
        names = {name[len(root) :].lstrip("/"): name for name in self._files}
        layout = layouts.split_files(list(names), self._wanted, path) if root else layouts.Layout()
        self._notes = layout.notes
        self._named: dict[Role, list[str]] = {role: [names[n] for n in found] for role, found in layout.files.items()}
        """The files of each split; empty where names say nothing."""
        self._parts: dict[Role, _Part | None] = {}

    # -- splits -------------------------------------------------------------------------------------------

    def labels(self, role: Role) -> Labels | None:
        part = self._part(role)
        if part is None:
            return None
        name = self._column(part.dataset, self._label_columns, "label")
        column = _call(self.path, lambda: part.dataset.to_table(columns=[name], filter=part.filter))[name]
        if not len(column):
            raise DataError(f"{self.path}: has no {role} images: {self.told()[0]}")
        return Labels.of_column(column, name, f"{self.path}, {role} rows")

    def names(self, role: Role) -> tuple[str, ...] | None:
        part = self._part(role)
        if part is None:
            return None
        try:  # as data hubs write it
            about = json.loads((part.dataset.schema.metadata or {})[b"huggingface"])
            return tuple(about["info"]["features"][self._column(part.dataset, self._label_columns, "label")]["names"])
        except (KeyError, TypeError, ValueError):
            return None

    def told(self) -> tuple[str, tuple[str, ...]]:
        if self._named:
            counts = [f"{role}: {len(self._named[role])} file{'s' * (len(self._named[role]) > 1)}" for role in
                      layouts.ROLES if role in self._named]  # fmt: skip
            return ", ".join(counts), self._notes
        if self._by_column is None:
            what = f"{len(self._files)} file{'s' * (len(self._files) > 1)}"
            return f"{what} without splits, all rows train and validate", self._notes
        rows = [f"{role}: {sum(n for _, n in found):,} rows" for role, found in self._by_column.items() if role]
        return f"column {self._split_column}, {', '.join(rows)}", self._notes

    def files(self, roles: tuple[Role, ...]) -> list[FileIdentity] | None:
        paths = [file for role in roles for file in self._named.get(role, ())] if self._named else list(self._files)
        if any(self._files[path].mtime_ns is None for path in paths):
            return None
        if isinstance(self._filesystem, pafs.LocalFileSystem):
            return _call(self.path, lambda: [FileIdentity.of(path) for path in paths])
        infos = _call(self.path, lambda: self._filesystem.get_file_info(paths))
        scheme = self.path.partition("://")[0]
        return [FileIdentity(f"{scheme}://{info.path}", info.size or 0, info.mtime_ns or 0) for info in infos]

    def sizes(self, roles: tuple[Role, ...]) -> list[tuple[str, int]]:
        paths = [file for role in roles for file in self._named.get(role, ())] if self._named else list(self._files)
        names = [path[len(self._root) :].lstrip("/") if self._root else path.rpartition("/")[2] for path in paths]
        return [(name, self._files[path].size or 0) for name, path in zip(names, paths, strict=True)]

    def reader(self, role: Role) -> Reader:
        part = self._part(role)
        assert part is not None
        column = self._column(part.dataset, self._image_columns, "image")
        return _call(self.path, lambda: row_groups.Groups.of(part.dataset, part.filter, column, f"{self.path}, {role}"))

    def _part(self, role: Role) -> _Part | None:
        if role not in self._parts:
            self._parts[role] = self._named_part(role) if self._named else self._unnamed_part(role)
        return self._parts[role]

    def _named_part(self, role: Role) -> _Part | None:
        if role not in self._named:
            return None
        dataset = self._open(self._named[role])
        column = self._split_column
        if column is not None and column in dataset.schema.names:
            found = self._meaning(dataset, column)
            if set(found) - {role}:
                raise DataError(
                    f"{self.path}: files named {role} hold other rows by their column {column} "
                    f"({_values(found)}); task.split_column=null goes by the files alone"
                )
        return _Part(dataset)

    def _unnamed_part(self, role: Role) -> _Part | None:
        if self._by_column is None:
            return _Part(self._whole) if role == "train" else None
        values = [value for value, _ in self._by_column.get(role, ())]
        if not values:
            return None
        return _Part(self._whole, pc.field(self._split_column).isin(pa.array(values, self._split_type)))

    @cached_property
    def _whole(self) -> Any:  # noqa: ANN401
        return self._open(list(self._files))

    @property
    def _split_type(self) -> Any:  # noqa: ANN401
        kind = self._whole.schema.field(self._split_column).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    @cached_property
    def _by_column(self) -> dict[Role | None, list[tuple[Any, int]]] | None:
        """Values of the split column and how often they occur, by the split they mean; None: there is none."""
        column, names = self._split_column, self._whole.schema.names
        if column in names:
            return self._meaning(self._whole, str(column))
        if column not in (None, SPLIT_COLUMN):
            raise DataError(f"{self.path}: no split column {column}; the columns are {', '.join(names)}")
        if column is not None:
            self._refuse_unsaid_splits()
        return None

    def _meaning(self, dataset: Any, column: str) -> dict[Role | None, list[tuple[Any, int]]]:  # noqa: ANN401
        counts = _call(self.path, lambda: dataset.to_table(columns=[column]))[column].value_counts().to_pylist()
        found = {count["values"]: count["counts"] for count in counts}
        if None in found:
            raise DataError(f"{self.path}: {found[None]} rows have no value in the split column {column}")
        meaning = layouts.assign([str(value) for value in found], self._wanted, f"{self.path}, column {column}")
        parts: dict[Role | None, list[tuple[Any, int]]] = {}
        for value, count in found.items():
            parts.setdefault(meaning[str(value)], []).append((value, count))
        return parts

    def _refuse_unsaid_splits(self) -> None:
        """Refuse a table that tells splits apart by a column the config does not name."""
        used = {*self._image_columns, *self._label_columns}
        texts = [f.name for f in self._whole.schema if f.name not in used and _is_text(f.type)]
        head = _call(self.path, lambda: self._whole.head(_LOOKED_AT, columns=texts))
        known = {name for names in layouts.NAMES.values() for name in names}
        suspects = [name for name in self._whole.schema.names if name.lower() in _FLAGS]
        for name in texts:
            values = {str(value).lower() for value in head[name].unique().to_pylist()}
            suspects += [name] if values and values <= known else []
        if suspects:
            raise DataError(
                f"{self.path}: the column {suspects[0]} seems to name splits; set task.split_column={suspects[0]} of "
                "image_table (train_split and the others too, if they are called otherwise), or null if all rows train"
            )

    # -- pictures -----------------------------------------------------------------------------------------

    def is_raw(self, role: Role, shape: Shape | None) -> bool:
        if self._format != "auto":
            return self._format == "raw"
        part = self._part(role)
        assert part is not None
        kind = part.dataset.schema.field(self._column(part.dataset, self._image_columns, "image")).type
        if pa.types.is_fixed_size_binary(kind):
            return True
        _, where, first = next(self.pictures(role, np.zeros(1, dtype=np.int64)))
        if pictures.is_encoded(first):
            return False
        if shape is None or len(first) != int(np.prod(shape)):
            raise DataError(f"{where}: {len(first)} bytes that are no image; raw bytes need image_shape")
        return True

    def pictures(self, role: Role, keep: Index) -> Iterator[tuple[int, str, bytes]]:
        part = self._part(role)
        assert part is not None
        column = self._column(part.dataset, self._image_columns, "image")
        batches = part.dataset.scanner(columns=[column], filter=part.filter, batch_size=_BATCH_ROWS).to_batches()
        start = place = 0
        while place < len(keep) and (batch := _call(self.path, lambda: next(batches, None))) is not None:
            stop = start + batch.num_rows
            while place < len(keep) and keep[place] < stop:
                where = f"{self.path}, image {keep[place]} of the {role} split"
                yield place, where, row_groups.payload(batch.column(0)[int(keep[place]) - start], where)
                place += 1
            start = stop

    def _open(self, files: list[str]) -> Any:  # noqa: ANN401
        """The dataset of shards, once they were found to have the same columns."""

        def open_all() -> tuple[Any, list[Any]]:
            dataset = ds.dataset(files, format="parquet", filesystem=self._filesystem)
            with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:  # a request or two each, at an address
                return dataset, list(threads.map(lambda f: (f.path, f.physical_schema), dataset.get_fragments()))

        dataset, schemas = _call(self.path, open_all)
        used = {*self._image_columns, *self._label_columns, self._split_column}
        (first, expected), *others = schemas
        for path, schema in others:
            differing = set(schema.names) ^ set(expected.names)
            differing |= {
                n for n in used & set(schema.names) - differing if schema.field(n).type != expected.field(n).type
            }
            if differing:
                raise DataError(
                    f"{self.path}: {path} and {first} are not of one table: they differ in the columns "
                    f"{', '.join(sorted(differing))}"
                )
        return dataset

    def _column(self, dataset: Any, names: tuple[str, ...], what: str) -> str:  # noqa: ANN401
        for name in names:
            if name in dataset.schema.names:
                return name
        raise DataError(
            f"{self.path}: no {what} column; expected {' or '.join(names)}, the columns are "
            f"{', '.join(dataset.schema.names)}"
        )


def _find(path: str) -> tuple[Any, dict[str, Any], str]:
    """The filesystem, the sorted Parquet files of a path or address, and the folder they are in; "": it is a file."""

    def find() -> tuple[Any, dict[str, Any], str]:
        if "://" not in path:
            filesystem, root = pafs.LocalFileSystem(), os.path.abspath(Path(path).expanduser())
        else:
            filesystem, root = _at_address(path)
        info = filesystem.get_file_info(root)
        if info.type == pafs.FileType.NotFound:
            raise DataError(f"{path}: no such file or folder; task.path says where the data are")
        if info.type == pafs.FileType.File:
            return filesystem, {root: info}, ""
        inside = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
        below = {file.path[len(root) :].lstrip("/"): file for file in inside if file.type == pafs.FileType.File}
        found = [below[name] for name in sorted(layouts.visible(below))]
        files = {file.path: file for file in found if file.extension.lower() in _EXTENSIONS}
        if not files:
            raise DataError(f"{path}: the folder has no *.parquet files")
        return filesystem, files, root

    return _call(path, find)


def _at_address(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path there."""
    filesystem, root = pafs.FileSystem.from_uri(address)
    return filesystem, root.rstrip("/")


def _call(path: str, read: Callable[[], T]) -> T:
    """What `read` returns; an error of Arrow's or the system's becomes a DataError of one line."""
    try:
        return read()
    except ImportError as error:  # a filesystem that comes with a package of its own, e.g. hf://
        raise DataError(f"{path}: {error.msg.strip()} (pip install it, on the workers too)") from None
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as Parquet: {reason}") from None


def _is_text(kind: Any) -> bool:  # noqa: ANN401
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _values(found: dict[Role | None, list[tuple[Any, int]]]) -> str:
    return ", ".join(f"{value!r}: {count}" for values in found.values() for value, count in values)
