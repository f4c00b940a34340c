"""Reading the parts of a folder as one table, and what is wrong with a part."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nao_ray._pool import faults
from nao_ray._pool.catalogue import FORMAT, at_once
from nao_ray._pool.faults import READING, Fault, kind_of, patient
from nao_ray._pool.finite import finite
from nao_ray._pool.groups import GROUP_ROWS, open_part
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.names import number
from nao_ray._pool.objects import ObjectStorage
from nao_ray._pool.rows import EVENTS, LATER, SCHEMA_VERSION, TRIALS, is_current, metadata
from nao_ray._pool.storage import Storage
from nao_ray.errors import PoolError, PoolReadError

T = TypeVar("T")

SCHEMAS = {"trials": TRIALS, "rungs": TRIALS, "events": EVENTS}
_VERSIONS = frozenset(str(version) for version in range(1, SCHEMA_VERSION + 1))
_ALWAYS = ("trial_id", "log_index", "seq")
"""Columns that every row has."""

_LOST = {
    "rungs": "the rungs of trials in it, unless a copy is put back; with it moved elsewhere resume runs them again",
    "trials": "the results in it, unless a copy is put back; with it moved elsewhere resume runs its trials again",
    "events": "what was asked in it, unless a copy is put back; with it moved elsewhere the search goes on without",
}
_READERS = 16  # parts looked at at once, where each costs a round trip


def to_bytes(data: pa.Table) -> memoryview:
    """A table as a small Parquet file: compressed by zstd, each page with its checksum."""
    sink = pa.BufferOutputStream()
    # a dictionary and statistics of a row or two are half of the file
    pq.write_table(
        data, sink, compression="zstd", write_page_checksum=True, use_dictionary=False, write_statistics=False
    )
    return memoryview(sink.getvalue())


def dataset(storage: Storage, folder: str, names: Sequence[str] | None = None) -> ds.Dataset:
    """Parts of `trials` or `events`, by default all there are; to be read under `reading`.

    Raises:
        PoolError: one of them is something else that was put there.
    """
    names = storage.parts(folder) if names is None else names
    refuse_strangers(storage, folder, names)
    if not names:
        return ds.dataset(SCHEMAS[folder].empty_table())
    if isinstance(storage, ObjectStorage):
        return storage.catalogue.dataset(folder, names)
    assert isinstance(storage, LocalStorage)
    place = storage.place(folder)
    paths = [storage.path(place, name) for name in names]
    return ds.dataset(paths, schema=SCHEMAS[folder], format=FORMAT, filesystem=storage.filesystem)


def read(
    storage: Storage, folder: str, columns: list[str] | None = None, where: ds.Expression | None = None
) -> pa.Table:
    """Rows of `trials` or `events`, each once, in the order written.

    Raises:
        PoolError: a part is damaged; names it.
        PoolReadError: the parts cannot be read at the moment.
    """
    schema = SCHEMAS[folder]
    data = steady(
        storage, folder, lambda names: dataset(storage, folder, names).to_table(columns=columns, filter=where)
    )
    return checked(storage, folder, data).replace_schema_metadata(schema.metadata)


def checked(storage: Storage, folder: str, data: pa.Table) -> pa.Table:
    """Rows that were read, with nulls for figures that are no finite numbers.

    Raises:
        PoolError: a row lacks what every row has, because a part holds something else.
    """
    if any(data[name].null_count for name in _ALWAYS if name in data.column_names):
        _refuse_foreign(storage, folder, storage.parts(folder))
    return finite(data)


def refuse_strangers(storage: Storage, folder: str, names: Iterable[str]) -> None:
    """Refuse files among the parts that hold something else, whose rows would be read as empty ones.

    Only files that have not a part's name are looked into.

    Raises:
        PoolError: names the first, and what it is.
    """
    _refuse_foreign(storage, folder, [name for name in names if number(name) is None])


def _refuse_foreign(storage: Storage, folder: str, names: Iterable[str]) -> None:
    for name in names:
        what = damage(storage, folder, name)
        if what is not None and not what.startswith("truncated"):
            raise PoolError(f"{storage.path(folder, name)} is no part of this pool, it is {what}; move it elsewhere")


def steady(storage: Storage, folder: str, read: Callable[[list[str]], T]) -> T:
    """What `read` makes of the parts of a folder, none of which was merged away before it was done.

    Raises:
        PoolError: a part is damaged; says which, and what is lost.
        PoolReadError: the parts cannot be read at the moment.
    """

    def look() -> T:
        names = storage.parts(folder)
        found = read(names)
        if storage.merges_in_place and not set(names) <= set(storage.parts(folder)):
            raise FileNotFoundError(errno.ENOENT, "parts were merged while they were read", storage.path(folder))
        return found

    return reading(storage, folder, look)


def reading(storage: Storage, folder: str, read: Callable[[], T]) -> T:
    """What a reader of parts returns, tried again while the trouble is a transient one.

    Raises:
        PoolError: a part is damaged; says which, and what is lost.
        PoolReadError: the parts cannot be read at the moment.
    """
    for is_last in (False, True):
        try:
            return patient(read)
        except READING as error:
            found = unreadable(storage, folder, error)
            # what made no sense, and does when it is looked at, came wrongly: once more
            if is_last or isinstance(found, PoolError) or kind_of(error) is not Fault.DAMAGED:
                raise found from None
    raise AssertionError


def unreadable(storage: Storage, folder: str, error: BaseException) -> PoolError | PoolReadError:
    """The error of a folder whose parts cannot be read: names the part that is damaged, if one is.

    Args:
        storage: of the pool.
        folder: `trials` or `events`.
        error: what reading raised; what seems to be damage is looked at.
    """
    where = storage.path(folder)
    if isinstance(error, FileNotFoundError):
        return PoolError(f"the pool {storage.url} is gone, or was never whole: no {folder}/")
    if kind_of(error) is not Fault.DAMAGED:
        return faults.unreadable(where, error, "")
    try:
        for name in patient(lambda: storage.parts(folder)):
            found = broken(storage, f"{folder}/{name}")
            if found is not None:
                return faults.unreadable(storage.path(folder, name), found, _LOST[folder])
    except READING as other:
        return faults.unreadable(where, other, "")
    return faults.unreadable(where, faults.UnreachableError(faults.line(error)), "")


def broken(storage: Storage, name: str) -> BaseException | None:
    """What is wrong with a part's own bytes, which are all read, then looked at in memory; None when nothing is.

    Raises:
        OSError: they cannot be read.
    """
    try:
        data = patient(lambda: storage.read(name), merged=False)
    except FileNotFoundError:
        return None  # merged meanwhile
    try:
        with open_part(pa.BufferReader(data)) as part:
            _read_pages(part)
    except READING as error:
        return error
    return None


def _read_pages(part: pq.ParquetFile) -> None:
    for group in range(part.num_row_groups):
        if part.metadata.row_group(group).num_rows <= GROUP_ROWS:  # three times as fast as a batch
            part.read_row_group(group, use_threads=False)
        else:
            for _ in part.iter_batches(row_groups=[group]):
                pass


def wrong(storage: Storage, folder: str, name: str) -> str | None:
    """What is wrong with a part, which is read once, whole; None when nothing is.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with storage.open(f"{storage.place(folder)}/{name}") as file:
            part = open_part(pa.BufferReader(file.read_buffer()))
    except FileNotFoundError:
        return None  # merged meanwhile
    except READING as error:
        if kind_of(error) is not Fault.DAMAGED:
            raise
        return f"truncated or damaged: {faults.line(error)}"
    with part:
        what = _strangeness(part.schema_arrow, folder)
        if what is None:
            try:
                _read_pages(part)
            except READING as error:
                what = f"damaged: {faults.line(error)}"
    return what


def damage(storage: Storage, folder: str, name: str) -> str | None:
    """What is wrong with a part, by its footer; None when nothing is.

    Raises:
        OSError: it cannot be read.
    """
    return _look_at(storage, folder, name)[0]


def _look_at(storage: Storage, folder: str, name: str) -> tuple[str | None, pa.Schema | None]:
    """As `damage`, with the part's schema."""
    try:
        with storage.open(f"{storage.place(folder)}/{name}") as file:
            schema = pq.read_schema(file)
    except FileNotFoundError:
        return None, None  # merged meanwhile
    except READING as error:
        if kind_of(error) is not Fault.DAMAGED:
            raise
        return f"truncated or damaged: {faults.line(error)}", None
    return _strangeness(schema, folder), schema


def _strangeness(schema: pa.Schema, folder: str) -> str | None:
    version = (schema.metadata or {}).get(b"schema_version", b"none").decode("utf-8", "replace")
    if version not in _VERSIONS:
        return f"of schema version {version}, this nao_ray has {SCHEMA_VERSION}"
    missing = LATER - set(schema.names)
    expected = [field for field in SCHEMAS.get(folder, schema) if field.name not in missing]
    if not schema.equals(pa.schema(expected)):
        theirs, ours = ({field.name: field.type for field in fields} for fields in (schema, expected))
        wrong = sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))
        return f"not of the schema of {folder}/: {', '.join(wrong) or 'column order'}"
    return None


def survey(storage: Storage, folder: str) -> tuple[list[str], bool]:
    """By their footers: the parts of a folder that are truncated, and whether any is of an earlier schema.

    Raises:
        OSError: a part cannot be read to its end, so nothing can be said of it.
    """
    names = patient(lambda: storage.parts(folder))
    if isinstance(storage, LocalStorage):
        found = [_glance(storage, folder, name) for name in names]
    else:
        found = at_once(lambda name: _glance(storage, folder, name), names, _READERS)
    suspects = [name for name, (is_suspect, _) in zip(names, found, strict=True) if is_suspect]
    truncated = [name for name in suspects if _is_truncated(storage, folder, name)]
    return truncated, any(is_old for _, is_old in found)


def _glance(storage: Storage, folder: str, name: str) -> tuple[bool, bool]:
    """Whether a part's footer was not read, for whatever reason; and whether it is of an earlier schema."""
    try:
        what, schema = _look_at(storage, folder, name)
    except READING:
        return True, False
    is_old = what is None and schema is not None and not is_current(schema, SCHEMAS[folder])
    return what is not None and what.startswith("truncated"), is_old


def _is_truncated(storage: Storage, folder: str, name: str) -> bool:
    """Whether a part's own bytes are at fault, not the way to them: they are all read, then looked at in memory."""
    try:
        data = storage.read(f"{storage.place(folder)}/{name}")
    except FileNotFoundError:
        return False  # merged meanwhile
    try:
        pq.read_schema(pa.BufferReader(data))
    except READING:
        return True
    return False


def ids(data: pa.Table, column: str) -> list[int]:
    """An integer column without gaps, as a list."""
    found: list[int] = data[column].to_numpy().tolist()
    return found


def to_pandas(data: pa.Table) -> pd.DataFrame:
    """As `pd.read_parquet` would give it; integers with gaps become `Int64`."""
    frame: pd.DataFrame = data.to_pandas()
    for field in data.schema:
        if pa.types.is_integer(field.type) and data[field.name].null_count and frame[field.name].dtype != "Int64":
            frame[field.name] = pd.array(data[field.name].to_pylist(), dtype="Int64")
    return frame


def with_pandas_integers(data: pa.Table) -> pa.Table:
    """The table with metadata that makes pandas read its integers with gaps as `Int64`."""
    gaps = [item.name for item in data.schema if pa.types.is_integer(item.type) and data[item.name].null_count]
    return data.replace_schema_metadata(metadata(gaps))
