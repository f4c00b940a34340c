"""Texts in files: a file for each split, a Parquet table, or files that are cut; here or at an address.

A file is of a split if a folder or a word of its name is one of `layouts.NAMES`. A table has the columns `text`, a line
a row, and `split` unless its files are named after splits; `line`, where there is one, is the order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from nao_ray.errors import DataError, MissingDataError
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import NAMES, Role, visible
from nao_ray.tasks.texts.reading import decode, with_end

T = TypeVar("T")

_SHOWN = 4
_TABLES = (".parquet", ".pq", ".parq")


class Files:
    """Those at a path: a file, or all of a folder that are of some kinds; where there are tables, those alone.

    Args:
        path: of a file or folder, or an address.
        kinds: endings of names, beside Parquet's.
        named: whether names may be those of splits.
        source: where such data are given out, in words that end messages.

    Raises:
        DataError: there is nothing.
    """

    def __init__(self, path: str, kinds: Collection[str], *, named: bool = True, source: str = "") -> None:
        self.path = path
        self._hint = source and f"; {source}"
        self._filesystem, self._files, is_folder = _call(path, lambda: _find(path, (*kinds, *_TABLES), self._hint))
        self._named = named and is_folder
        if not self._files:
            raise MissingDataError(f"{path}: has no files of text ({', '.join(kinds)}) or Parquet{self._hint}")

    @cached_property
    def splits(self) -> dict[Role, list[str]]:
        """The files of each split, by their names below the path; empty where no name is that of a split."""
        found = {name: {role for role in NAMES if self._named and _is_named(name, role)} for name in self._files}
        if vague := [name for name, roles in found.items() if len(roles) > 1]:
            raise DataError(f"{self.path}: {vague[0]} is named after two splits; rename it")
        named = {name: next(iter(roles)) for name, roles in found.items() if roles}
        if named and len(named) < len(found):
            other = next(name for name in found if name not in named)
            raise DataError(
                f"{self.path}: {next(iter(named))} is named after a split and {other} is not; remove one of them, "
                "point task.path at the files that are meant, or cut each file (text_folder's cut: true)"
            )
        return {role: [name for name in named if named[name] == role] for role in NAMES if role in named.values()}

    @property
    def is_cut(self) -> bool:
        """Whether there are no splits, so that every document is cut."""
        return not self.splits and not self._is_table

    @property
    def _is_table(self) -> bool:
        return any(name.endswith(_TABLES) for name in self._files)

    def documents(self, role: Role) -> list[str]:
        """The texts of a split, or all that are to be cut.

        Raises:
            DataError: there is none, or it is not text.
        """
        if not self.splits and self._is_table:
            return [self._rows(list(self._files), role)]
        names = list(self._files) if self.is_cut else self.splits.get(role, [])
        if not names:
            raise MissingDataError(
                f"{self.path}: has no {role} text: no file is named after {', '.join(NAMES[role])}; there are "
                f"{_list(self._files)}{self._hint}"
            )
        if self._is_table:
            return [self._rows(names, None)]
        return [decode(self._bytes(name), self._files[name].path) for name in names]

    def identities(self, roles: Collection[Role]) -> list[FileIdentity] | None:
        """What is read for these splits; None: that cannot be told."""
        names = [n for role in roles for n in self.splits.get(role, [])] if self.splits else list(self._files)
        infos = [self._files[name] for name in names]
        if isinstance(self._filesystem, pafs.LocalFileSystem):
            return _call(self.path, lambda: [FileIdentity.of(info.path) for info in infos])
        if any(info.mtime_ns is None for info in infos):
            return None
        scheme = self.path.partition("://")[0]
        return [FileIdentity(f"{scheme}://{info.path}", info.size or 0, info.mtime_ns or 0) for info in infos]

    def _bytes(self, name: str) -> bytes:
        def read() -> bytes:
            with self._filesystem.open_input_stream(self._files[name].path) as stream:
                data: bytes = stream.read()
                return data

        return _call(self._files[name].path, read)

    def _rows(self, names: Collection[str], role: Role | None) -> str:
        """The lines of a table's files; with `role`, those of its `split`."""
        paths = [self._files[name].path for name in names]
        tables = [_call(self.path, partial(pq.read_table, path, filesystem=self._filesystem)) for path in paths]
        table = _call(self.path, lambda: pa.concat_tables(tables))
        wanted = ("text",) if role is None else ("text", "split")
        if missing := [name for name in wanted if name not in table.column_names]:
            raise DataError(
                f"{self.path}: has no column {missing[0]}; expected text, split and perhaps line, there are "
                f"{_list(table.column_names)}"
            )
        if role is not None:
            values = pc.utf8_lower(table["split"].cast(pa.string()))
            table = table.filter(pc.is_in(values, pa.array(NAMES[role])))
            if not len(table):
                found = sorted(map(str, pc.unique(values).to_pylist()))
                raise MissingDataError(
                    f"{self.path}: has no {role} text: column split holds {_list(found)}{self._hint}"
                )
        if "line" in table.column_names:
            table = table.sort_by("line")
        column = table["text"]
        if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise DataError(f"{self.path}: column text is {column.type} with {column.null_count} nulls, expected text")
        return "".join(map(with_end, column.to_pylist()))


def _is_named(name: str, role: Role) -> bool:
    words = re.split(r"[^a-z]+", str(PurePosixPath(name.lower()).with_suffix("")))
    return any(word in NAMES[role] for word in words)


def _find(path: str, kinds: Collection[str], hint: str) -> tuple[Any, dict[str, Any], bool]:
    """The filesystem, the files by their names below the path, and whether that is a folder."""
    if "://" in path:
        filesystem, root = pafs.FileSystem.from_uri(path)
        root = root.rstrip("/")
    else:
        filesystem, root = pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))
    info = filesystem.get_file_info(root)
    if info.type == pafs.FileType.NotFound:
        raise MissingDataError(f"{path}: no such file or folder; task.path says where the text is{hint}")
    if info.type == pafs.FileType.File:
        return filesystem, {info.base_name: info}, False
    inside = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    files = {file.path[len(root) :].lstrip("/"): file for file in inside if file.type == pafs.FileType.File}
    names = sorted(name for name in visible(files) if name.lower().endswith(tuple(kinds)))
    tables = [name for name in names if name.endswith(_TABLES)]
    return filesystem, {name: files[name] for name in tables or names}, True


def _call(where: str, read: Callable[[], T]) -> T:
    """What `read` returns; an error of Arrow's or the system's becomes a DataError of one line."""
    try:
        return read()
    except ImportError as error:
        raise DataError(f"{where}: {error.msg.strip()} (pip install it, on the workers too)") from None
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{where}: cannot be read: {reason}") from None


def _list(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
