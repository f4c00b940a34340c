"""The pool remembers every trial: a folder of Parquet files, and the only state of a search.

    POOL/run.yaml            the frozen manifest
    POOL/trials/*.parquet    one row per finished trial: what users read
    POOL/events/*.parquet    proposals asked and attempts started, in order: what replay reads
    POOL/fits/fits.parquet   what the strategy says of itself, a row per round
    POOL/checkpoints/        how far trials are that take long, until they end
    POOL/warm_start.parquet  what was taken from earlier pools when the search began
    POOL/requests/           what is asked of the driver, until it is answered
    POOL/budget.json         the budget, where it was changed while the search ran
    POOL/gpus.json           how many trials a kind of GPU has at a time, where that is measured
    POOL/notes.json          what people noted beside trials
    POOL/logs/*.txt          what failed attempts can be understood by: the traceback, what was printed
    POOL/lease/              who may write
    POOL/quarantine/         truncated parts, moved here by the next driver

`pd.read_parquet(POOL + "/trials")` gives each trial once, with or without nao_ray. One driver at a time writes
(`PoolWriter`), under a lease; anyone reads (`PoolReader`), and a reader changes nothing.
"""

from __future__ import annotations

from nao_ray._pool.checkpoints import Checkpoints
from nao_ray._pool.columns import TABLES as SCHEMAS
from nao_ray._pool.columns import Column, columns
from nao_ray._pool.earlier import SCHEMA as EARLIER
from nao_ray._pool.final import Finals, checkpoint_file, read_file, write_page
from nao_ray._pool.lease import Lease
from nao_ray._pool.ledger import RANKED, Counts, standings
from nao_ray._pool.manifest import refuse_changes
from nao_ray._pool.query import Limits
from nao_ray._pool.reader import PoolReader
from nao_ray._pool.rows import EVENTS, TRIALS, size_columns, size_from
from nao_ray._pool.tables import to_bytes as to_parquet
from nao_ray._pool.tables import to_pandas
from nao_ray._pool.tail import Tail
from nao_ray._pool.view import Driver, Finished, View
from nao_ray._pool.watch import AtWork, Ids, Watch
from nao_ray._pool.writer import PoolWriter

__all__ = [
    "EARLIER",
    "EVENTS",
    "RANKED",
    "SCHEMAS",
    "TRIALS",
    "AtWork",
    "Checkpoints",
    "Column",
    "Counts",
    "Driver",
    "Finals",
    "Finished",
    "Ids",
    "Lease",
    "Limits",
    "PoolReader",
    "PoolWriter",
    "Tail",
    "View",
    "Watch",
    "checkpoint_file",
    "columns",
    "read_file",
    "refuse_changes",
    "size_columns",
    "size_from",
    "standings",
    "to_pandas",
    "to_parquet",
    "write_page",
]
