"""The rows of a pool a little at a time: what is in memory does not grow with the pool."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nao_ray._pool.faults import READING, Fault, kind_of
from nao_ray._pool.groups import aligned, columns_of, gathered, open_part
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import SCHEMAS, checked, dataset, reading, steady, unreadable
from nao_ray.memory import release

_PARTS = 32  # small ones opened together: a footer each
_VALUES = 2**15  # at a time, a list as 16: some 250 whole rows, thousands of a few columns
_BATCHES = 16  # after which memory is given back: what is made of the rows leaves holes
_RESTARTS = 60
_PAUSE = 0.05  # seconds


def stream(storage: Storage, folder: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of `trials` or `events` in the order written, some `_VALUES` values at a time.

    Where parts are merged, or cannot be read for a moment, all rows come again, from the first: whoever takes them
    knows them by their numbers.

    Args:
        storage: of the pool.
        folder: `trials` or `events`.
        columns: of the rows; all unless given.

    Raises:
        PoolError: a part is damaged.
        PoolReadError: the parts cannot be read at the moment.
    """
    for restarts in range(_RESTARTS + 1):
        try:
            with storage.moment():
                names = reading(storage, folder, lambda: storage.parts(folder))
                yield from _groups(storage, folder, names, columns)
        except READING as error:
            if kind_of(error) is not Fault.TRANSIENT or restarts == _RESTARTS:
                raise unreadable(storage, folder, error) from None
            time.sleep(_PAUSE)
        else:
            release()
            return


def stream_finished(storage: Storage, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of all finished trials, as `stream`: of a ladder all rungs, some of them twice."""
    for folder in storage.finished:
        yield from stream(storage, folder, columns)


def read_some(
    storage: Storage, folder: str, columns: Sequence[str] | None = None, trial_ids: Sequence[int] | None = None
) -> pa.Table:
    """Some columns, or some rows, of `trials` or `events`, in the order written; little else is in memory meanwhile.

    Raises:
        PoolError: a part is damaged.
        PoolReadError: the parts cannot be read at the moment.
    """
    schema = _schema(folder, columns)
    wanted = None if trial_ids is None else pa.array(trial_ids, pa.int64())

    def read(names: Sequence[str]) -> pa.Table:
        found = [schema.empty_table()]
        for data in _groups(storage, folder, names, columns, wanted):
            data = data if wanted is None else data.filter(pc.is_in(data["trial_id"], value_set=wanted))
            if len(data):
                found.append(data)
        return pa.concat_tables(found)

    with storage.moment():
        found = steady(storage, folder, read).combine_chunks()
    release()
    return found


def read_finished(
    storage: Storage, columns: Sequence[str] | None = None, trial_ids: Sequence[int] | None = None
) -> pa.Table:
    """As `read_some` of all finished trials, of a ladder all rungs, each once; `trial_id` is among the columns.

    Raises:
        PoolError: a part is damaged.
        PoolReadError: the parts cannot be read at the moment.
    """
    with storage.moment():
        found = pa.concat_tables([read_some(storage, folder, columns, trial_ids) for folder in storage.finished])
    first = np.unique(found["trial_id"].to_numpy(), return_index=True)[1]
    return found.take(np.sort(first))


def _schema(folder: str, columns: Sequence[str] | None) -> pa.Schema:
    whole = SCHEMAS[folder]
    return whole if columns is None else pa.schema(map(whole.field, columns), metadata=whole.metadata)


def _groups(
    storage: Storage, folder: str, names: Sequence[str], columns: Sequence[str] | None, wanted: pa.Array | None = None
) -> Iterator[pa.Table]:
    """`wanted`: trials; what certainly holds none of them may be left out."""
    schema = _schema(folder, columns)
    rows = _VALUES // sum(16 if pa.types.is_list(field.type) else 1 for field in schema)
    for first in range(0, len(names), _PARTS):
        fragments = dataset(storage, folder, names[first : first + _PARTS]).get_fragments()
        for data in gathered(
            chain.from_iterable(_rows_of(fragment, schema, rows, wanted) for fragment in fragments), rows
        ):
            yield checked(storage, folder, data)


def _rows_of(fragment: ds.Fragment, schema: pa.Schema, rows: int, wanted: pa.Array | None) -> Iterator[pa.Table]:
    """The rows of a part; not read by the fragment itself, which reads ahead 90 MB of a large one."""
    if not isinstance(fragment, ds.ParquetFileFragment):  # in memory
        yield aligned(fragment.to_table(columns=schema.names), schema)
        return
    with open_part(fragment.open()) as part:
        there = columns_of(part, schema)
        for number in range(part.num_row_groups):
            if wanted is not None and not _holds(part, number, wanted):
                continue
            if part.metadata.row_group(number).num_rows <= rows:  # three times as fast as a batch
                yield aligned(part.read_row_group(number, columns=there, use_threads=False), schema)
                continue
            for count, batch in enumerate(part.iter_batches(rows, [number], columns=there, use_threads=False), start=1):
                yield aligned(batch, schema)
                if count % _BATCHES == 0:
                    release()


def _holds(part: pq.ParquetFile, group: int, wanted: pa.Array) -> bool:
    """Whether a group of rows has one of these trials: a column is read in a tenth of the time of all."""
    found = part.read_row_group(group, columns=["trial_id"], use_threads=False)["trial_id"]
    return bool(pc.any(pc.is_in(found, value_set=wanted)).as_py())
