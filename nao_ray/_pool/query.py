"""SQL over a pool: one statement that reads, in a DuckDB that can reach neither files nor network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Timer

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.faults import line
from nao_ray._pool.finite import finite, finite_view
from nao_ray._pool.fits import read_fits
from nao_ray._pool.rows import FINAL, TRIALS
from nao_ray._pool.storage import Storage
from nao_ray._pool.stream import read_finished
from nao_ray._pool.tables import dataset, steady, to_pandas
from nao_ray.errors import PoolError

_SETTINGS = (
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",  # no reading of the caller's own variables
    "SET TimeZone = 'UTC'",
    "SET lock_configuration = true",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may take that somebody else sends."""

    rows: int
    """Of the result; the others are left out."""
    seconds: float
    memory: str = "2GB"


_OPERATOR = duckdb.token_type.operator


def sql(storage: Storage, query: str, limits: Limits | None = None) -> pd.DataFrame:
    """The result of one SELECT over the views `trials`, `rungs`, `fits` and `final`.

    Of a ladder `rungs` has every finished trial, `trials` each architecture once; else they are the same.

    Raises:
        PoolError: the query is wrong, is not one SELECT, takes longer than it may, or the pool cannot be read.
    """
    try:
        with storage.moment():
            return steady(storage, "trials", lambda names: _run(storage, names, query, limits))
    except duckdb.InterruptException:
        raise PoolError(f"sql: stopped after {limits.seconds if limits else 0:g} s; ask for less") from None
    except duckdb.Error as error:
        raise PoolError(f"sql: {line(error)}") from None


@contextmanager
def _stopped_after(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """A block whose query is interrupted when it takes longer."""
    if seconds is None:
        yield
        return
    timer = Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _run(storage: Storage, names: list[str], query: str, limits: Limits | None = None) -> pd.DataFrame:
    with (
        duckdb.connect(":memory:") as connection,
        _stopped_after(connection, None if limits is None else limits.seconds),
    ):
        if limits is not None:
            connection.execute(f"SET memory_limit = '{limits.memory}'")
        connection.register("trials_as_stored", dataset(storage, "trials", names))
        connection.execute(f"CREATE TEMP VIEW trials AS {finite_view('trials_as_stored', TRIALS)}")
        for name, read in _BESIDE.items():
            named = name in query.lower()  # else it is not looked for
            connection.register(name, read(storage) if named else pa.table({"nothing": pa.array([], pa.null())}))
        for setting in _SETTINGS:
            connection.execute(setting)
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise PoolError("sql: give one SELECT over the tables trials, rungs, fits and final; a pool is only read")
        try:
            result = connection.sql(
                statements[0] if limits is None else _first(statements[0].query, limits)
            ).to_arrow_table()
        except duckdb.Error as error:
            if "No such file" in str(error):
                raise FileNotFoundError(str(error)) from None  # merged meanwhile: read it again
            if "reading the stream" in str(error):
                raise pa.ArrowInvalid(str(error)) from None
            raise
        twice = [name for name, count in Counter(result.column_names).items() if count > 1]
        if twice:
            raise PoolError(f"sql: {twice[0]} is there twice; name the columns, or rename one (AS)")
        return to_pandas(_with_durations(result))


def _first(query: str, limits: Limits) -> str:
    """The query of the first rows; as text it stops reading earlier than `Relation.limit`."""
    text = query.encode()
    ends = [at for at, kind in duckdb.tokenize(query) if text[at : at + 1] == b";" and kind == _OPERATOR]
    whole = text[: ends[0]] if ends else text  # one statement has no other end
    return f"SELECT * FROM (\n{whole.decode()}\n) LIMIT {limits.rows}"


def _with_durations(data: pa.Table) -> pa.Table:
    """Differences of times, which DuckDB gives as months, days and nanoseconds, as durations; months stay."""
    for place, field in enumerate(data.schema):
        values = data.column(place).to_pylist() if pa.types.is_interval(field.type) else []
        if values and not any(value is not None and value.months for value in values):
            spans = [None if v is None else timedelta(days=v.days, microseconds=v.nanoseconds / 1000) for v in values]
            data = data.set_column(place, field.name, pa.chunked_array([pa.array(spans, pa.duration("us"))]))
    return data


def _final(storage: Storage) -> pa.Table:
    names = [name for name in storage.entries("final") if name.endswith(".parquet") and not name.startswith(".")]
    tables = [pq.read_table(pa.BufferReader(storage.read(f"final/{name}"))) for name in names]
    if not tables:
        return FINAL.empty_table()
    return finite(pa.concat_tables(tables, promote_options="permissive"))


_BESIDE = {"fits": read_fits, "final": _final, "rungs": read_finished}
"""Tables beside the trials."""
