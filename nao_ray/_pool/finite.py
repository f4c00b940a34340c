"""Figures that are no finite numbers are null in a pool: a training that diverged has no score.

Databases rank NaN above every number, so that the best of a pool would be its worst. Rows are written with nulls;
pools of before, which hold NaN, are read with them. Embeddings, which are points and not figures, keep what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LISTS = ("curve", "alphas")
"""Columns of lists of figures."""


def number(value: float | None) -> float | None:
    """The figure, None unless it is finite."""
    return value if value is not None and math.isfinite(value) else None


def finite_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    """Rows to be written, with nulls for figures that are no finite numbers."""
    floats = frozenset(_floats(schema))
    return [
        {
            name: number(value) if name in floats else _numbers(value) if name in _LISTS else value
            for name, value in row.items()
        }
        for row in rows
    ]


def _numbers(values: Iterable[float | None] | None) -> list[float | None] | None:
    return None if values is None else [number(value) for value in values]


def finite(data: pa.Table) -> pa.Table:
    """A table that was read, with nulls for figures that are no finite numbers."""
    for place, field in enumerate(data.schema):
        column = data.column(place)
        if pa.types.is_floating(field.type) and not _all_finite(column):
            data = data.set_column(place, field, pc.if_else(pc.is_finite(column), column, None))
        elif field.name in _LISTS and pa.types.is_list(field.type) and not _all_finite(pc.list_flatten(column)):
            data = data.set_column(
                place, field, pa.chunked_array([[_numbers(values) for values in column.to_pylist()]], field.type)
            )
    return data


def _all_finite(column: pa.ChunkedArray) -> bool:
    return pc.all(pc.is_finite(column)).as_py() is not False


def finite_view(source: str, schema: pa.Schema) -> str:
    """The same in SQL (DuckDB): a SELECT over the table `source`."""
    replaced = [f"CASE WHEN isfinite({name}) THEN {name} END AS {name}" for name in _floats(schema)]
    replaced += [
        f"list_transform({name}, lambda x: CASE WHEN isfinite(x) THEN x END) AS {name}"
        for name in _LISTS
        if name in schema.names
    ]
    return f"SELECT * REPLACE ({', '.join(replaced)}) FROM {source}"


def _floats(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_floating(field.type)]
