"""Trials as a file that is sent while it is made: whatever its size, a few hundred rows are in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nao_ray.page.trial import plain
from nao_ray.pool import TRIALS

Form = Literal["csv", "parquet"]
TYPES: dict[Form, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
"""Kinds of files, and what a browser is told of them."""


def export(tables: Iterable[pa.Table], form: Form) -> Iterator[bytes]:
    """The bytes of the file, a piece at a time; lists are JSON in CSV. Without a row it has its columns alone."""
    sink = _Sink()
    with pa.PythonFile(sink, mode="w") as file, _writer(file, form) as writer:
        for data in tables:
            writer.write_table(_flat(data) if form == "csv" else data.cast(TRIALS))
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever Arrow hands over
        self._kept.append(bytes(data))
        return len(self._kept[-1])

    def close(self) -> None:
        """What is kept can still be taken."""

    def taken(self) -> bytes:
        found, self._kept = b"".join(self._kept), []
        return found


def _writer(file: pa.NativeFile, form: Form) -> Any:  # noqa: ANN401 - two classes of Arrow's
    if form == "parquet":
        return pq.ParquetWriter(file, TRIALS, compression="zstd")
    return pyarrow.csv.CSVWriter(file, _flat(TRIALS.empty_table()).schema)


def _flat(data: pa.Table) -> pa.Table:
    """Lists as JSON."""
    for place, field in enumerate(data.schema):
        if pa.types.is_list(field.type):
            texts = [None if v is None else json.dumps(plain(v)) for v in data.column(place).to_pylist()]
            data = data.set_column(place, field.name, pa.array(texts, pa.string()))
    return data
