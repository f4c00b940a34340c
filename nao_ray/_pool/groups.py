"""The rows of parts a group at a time, so that merging holds little of them, however large they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool.finite import finite
from nao_ray.memory import release

GROUP_ROWS = 4096
"""Rows of a merged part that are written, and read, at once, on disks and on object storage: full ones take 5 MB, and
merging holds little more."""
_LARGE_ROWS = 2 * GROUP_ROWS  # a group of a part of before, which is read by the batch
_BATCH_ROWS = 1024
_GATHERED = 512  # rows that are made one block: a block of a row or two takes tens of kilobytes for its columns alone
_PAGE_BYTES = 2**16


def large_part(where: Any, schema: pa.Schema) -> pq.ParquetWriter:  # noqa: ANN401 - a file or a sink of Arrow's
    """Writes a part of many rows, in small pages: a reader holds a page and a dictionary of each column, unpacked."""
    limits = {"data_page_size": _PAGE_BYTES, "dictionary_pagesize_limit": _PAGE_BYTES}
    return pq.ParquetWriter(where, schema, compression="zstd", write_page_checksum=True, **limits)


def open_part(where: Any) -> pq.ParquetFile:  # noqa: ANN401 - a path or a file of Arrow's
    """A part to be read a little at a time, each page against its checksum."""
    return pq.ParquetFile(where, buffer_size=_PAGE_BYTES, pre_buffer=False, page_checksum_verification=True)


def aligned(data: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in the columns of a schema, null where a part of before lacks one."""
    if isinstance(data, pa.Table) and data.schema.equals(schema):
        return data.replace_schema_metadata(schema.metadata)
    there = set(data.schema.names)
    columns = [
        data.column(field.name) if field.name in there else pa.nulls(data.num_rows, field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def columns_of(part: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    """Columns of a schema that a part has."""
    names = set(part.schema_arrow.names)  # made anew at each look
    return [name for name in schema.names if name in names]


def groups(parts: Iterable[Any], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of parts in order, `GROUP_ROWS` at a time, with nulls for figures that are no finite numbers.

    What was taken for a group is given back when the next is asked for: drop it before that. At least one comes, be it
    empty.

    Args:
        parts: paths or files of Arrow's, and tables.
        schema: of what comes; parts of before may lack columns of it.
    """
    found, rows, is_first = [schema.empty_table()], 0, True
    for data in gathered(chain.from_iterable(_tables(part, schema) for part in parts), _GATHERED):
        found.append(data)
        rows += data.num_rows
        del data  # nothing of a group is held while the next is read
        while rows >= GROUP_ROWS:
            whole = pa.concat_tables(found)
            found = [schema.empty_table()]
            yield finite(whole.slice(0, GROUP_ROWS))
            rows, is_first = rows - GROUP_ROWS, False
            if rows:
                found.append(whole.slice(GROUP_ROWS))
            del whole
            release()
    if rows or is_first:
        yield finite(pa.concat_tables(found))


def gathered(tables: Iterable[pa.Table], least: int) -> Iterator[pa.Table]:
    """Tables of one schema, neighbours of few rows as one of at least so many: what is done costs per table."""
    block: list[pa.Table] = []
    rows = 0
    for data in tables:
        if data.num_rows >= least and not block:
            yield data
        else:
            block.append(data)
            rows += data.num_rows
        del data
        if rows >= least:
            whole = pa.concat_tables(block).combine_chunks()
            block, rows = [], 0
            yield whole
            del whole
    if block:
        yield pa.concat_tables(block).combine_chunks()


def _tables(where: Any, schema: pa.Schema) -> Iterator[pa.Table]:  # noqa: ANN401
    """A part by its groups, one column after the other; those of many rows by the batch, all columns at once."""
    if isinstance(where, pa.Table):
        yield aligned(where, schema)
        return
    with open_part(where) as part:
        there = columns_of(part, schema)
        for number in range(part.num_row_groups):
            if part.metadata.row_group(number).num_rows <= _LARGE_ROWS:
                yield aligned(part.read_row_group(number, columns=there, use_threads=False), schema)
            else:
                for batch in part.iter_batches(_BATCH_ROWS, [number], columns=there, use_threads=False):
                    yield aligned(batch, schema)
