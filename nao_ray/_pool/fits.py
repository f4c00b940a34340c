"""The strategy's diagnostics: one small file, written anew with each round, so that it always has one schema."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.faults import READING, patient, unreadable
from nao_ray._pool.finite import finite, number
from nao_ray._pool.quarantine import quarantine
from nao_ray._pool.storage import Guard, Storage
from nao_ray._pool.tables import to_bytes, with_pandas_integers
from nao_ray.errors import PoolError
from nao_ray.trial import Diagnostics

FITS = "fits/fits.parquet"
_LOST = "what the strategy said of its rounds so far; the search goes on, its driver moves the file to quarantine/"

_log = logging.getLogger(__name__)


def read_fits(storage: Storage) -> pa.Table:
    """One row per round, in order; without columns but `round` where there are none.

    Raises:
        PoolError: the file is damaged.
        PoolReadError: it cannot be read at the moment.
    """
    try:
        data = patient(lambda: storage.glance(FITS), merged=False)
        return finite(pq.read_table(pa.BufferReader(data), page_checksum_verification=True))
    except FileNotFoundError:
        return pa.table({"round": pa.array([], pa.int64())})
    except READING as error:
        raise unreadable(storage.path(FITS), error, _LOST) from None


def add_fits(storage: Storage, fits: Sequence[Diagnostics], guard: Guard) -> None:
    """Add rows whose `round`, with their `seed_index` where they have one, is not there yet.

    A file that is damaged is moved to quarantine/ and begun anew: a search does not depend on it.

    Raises:
        PoolReadError: what is there cannot be read at the moment.
        PoolWriteError: nothing was recorded.
        ValueError: a row has no integer `round`.
    """
    try:
        recorded = read_fits(storage)
    except PoolError as error:
        _log.warning("%s", error)
        with guard():
            quarantine(storage, FITS)
        recorded = read_fits(storage)
    known = {_key(row) for row in recorded.select(_keys(recorded)).to_pylist()}
    new: dict[tuple[object, object], Diagnostics] = {}
    for row in fits:
        if not isinstance(row.get("round"), int):
            raise ValueError(f"diagnostics without an integer round: {dict(row)}")
        if _key(row) not in known:
            new.setdefault(_key(row), row)
    if not new:
        return
    merged = _joined(recorded, list(new.values()))
    merged = merged.sort_by([(name, "ascending") for name in _keys(merged)])
    storage.write(FITS, to_bytes(with_pandas_integers(merged)), guard)


def _keys(rows: pa.Table) -> list[str]:
    """Columns that tell rows apart."""
    return [name for name in ("round", "seed_index") if name in rows.column_names]


def _key(row: Diagnostics) -> tuple[object, object]:
    """What tells it from the others."""
    return row["round"], row.get("seed_index")


def _joined(recorded: pa.Table, new: Sequence[Diagnostics]) -> pa.Table:
    """Rows added; those recorded become Python's only where a column is text in one and numbers in the other."""
    try:
        return pa.concat_tables([recorded, _table(new)], promote_options="permissive")
    except pa.ArrowTypeError:
        return _table([*recorded.to_pylist(), *new])


def _table(rows: Sequence[Diagnostics]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[float | int | str | None]) -> Any:  # noqa: ANN401 - an array of any type
    """A column of one kind: text if any value is text, floats if any is a float."""
    if any(isinstance(value, str) for value in values):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if any(isinstance(value, float) for value in values):
        return pa.array([None if value is None else number(float(value)) for value in values], pa.float64())
    return pa.array(values)
