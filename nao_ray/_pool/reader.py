"""A pool as anyone may read it: nothing is written, renamed, made or removed, whatever state a writer has left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nao_ray._pool import health, query, replay, rows, tables
from nao_ray._pool import manifest as manifests
from nao_ray._pool.budget import ChangedBudget, read_budget
from nao_ray._pool.checkpoints import Checkpoints
from nao_ray._pool.earlier import EARLIER_HASH, read_earlier
from nao_ray._pool.faults import patient, unreadable
from nao_ray._pool.fits import read_fits
from nao_ray._pool.ledger import Counts, load_ledger
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.logs import read_logs
from nao_ray._pool.mailbox import Mailbox
from nao_ray._pool.notes import Note, read_notes, write_note
from nao_ray._pool.sharing import read_sharing
from nao_ray._pool.storage import Storage, open_storage
from nao_ray._pool.stream import read_finished, read_some, stream_finished
from nao_ray._pool.tail import Tail
from nao_ray._pool.watch import Ids
from nao_ray._pool.weights import read_weights
from nao_ray.errors import ConfigError, PoolError
from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.pareto import Aim, Front
from nao_ray.sharing import Shared
from nao_ray.trial import Trial


class PoolReader:
    """A pool, to read. Made by `open`."""

    def __init__(self, storage: Storage, manifest: dict[str, Any]) -> None:
        self._storage = storage
        self.manifest = manifest
        storage.rungs = manifests.rungs(manifest)

    @property
    def url(self) -> str:
        """Folder or URL."""
        return self._storage.url

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of its search's ladder of fidelities, ascending; (): it has none."""
        return self._storage.rungs

    @property
    def metric(self) -> Metric:
        """What its trials are measured by."""
        return manifests.metric(self.manifest)

    @classmethod
    def open(cls, url: str | Path) -> Self:
        """An existing pool.

        Raises:
            PoolError: it is missing, is no pool, or of a newer nao_ray.
        """
        storage = open_storage(url)
        return cls(storage, manifests.read_manifest(storage))

    @staticmethod
    def exists(url: str | Path) -> bool:
        """Whether there is a pool.

        Raises:
            PoolError: there is no such kind of place.
            PoolReadError: it cannot be reached.
        """
        storage = open_storage(url)
        try:
            return patient(lambda: storage.exists(manifests.NAME), merged=False)
        except OSError as error:
            raise unreadable(storage.path(manifests.NAME), error, "give a folder or an address") from None

    def log(self) -> list[Trial]:
        """Every trial asked, by id: finished ones as recorded, the others RUNNING with their highest attempt.

        Raises:
            PoolError: a part is damaged.
        """
        return sorted(self.stream_log(), key=lambda trial: trial.trial_id)

    def stream_log(self) -> Iterator[Trial]:
        """As `log`, in no order, and never more than a few thousand in memory.

        Raises:
            PoolError: a part is damaged.
        """
        return replay.stream_log(self._storage)

    def trials(
        self, columns: Sequence[str] | None = None, ids: Sequence[int] | None = None, *, rungs: bool = False
    ) -> pd.DataFrame:
        """Finished trials, by id: the columns of trials/, or those named; all trials, or those of `ids`.

        On a ladder of fidelities all trials are each architecture once, at its highest rung; with `rungs`, and of
        `ids`, each rung is a trial.

        Raises:
            PoolError: a part is damaged, or there is no such column.
        """
        _refuse_unknown(columns or (), "trials")
        wanted = None if columns is None else list(dict.fromkeys([*columns, "trial_id"]))
        if self._storage.rungs and (rungs or ids is not None):
            data = read_finished(self._storage, wanted, ids)
        elif wanted is None and ids is None:
            data = tables.read(self._storage, "trials")
        else:
            data = read_some(self._storage, "trials", wanted, ids)
        numbers = data["trial_id"].to_numpy()
        if (numbers[1:] < numbers[:-1]).any():
            data = data.sort_by("trial_id")
        return tables.to_pandas(data if columns is None else data.select(list(columns)))

    def find_trials(self, ids: Sequence[int], columns: Sequence[str] | None = None) -> list[rows.Row]:
        """Rows of a few finished trials, by id; of a large pool little else is read.

        Raises:
            PoolError: a part is damaged.
            PoolReadError: the parts cannot be read at the moment.
        """
        chosen = None if columns is None else list(dict.fromkeys([*columns, "trial_id"]))
        found: list[rows.Row] = read_finished(self._storage, chosen, ids).sort_by("trial_id").to_pylist()
        return found

    def stream_trials(
        self, ids: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Rows of finished trials, of a ladder of all rungs, in the order written, a few hundred at a time.

        Args:
            ids: of some trials; default: of all.
            columns: some, beside `trial_id`; default: all.

        Raises:
            PoolError: a part is damaged.
            PoolReadError: the parts cannot be read at the moment.
        """
        wanted = None if ids is None else pa.array(ids, pa.int64())
        seen = Ids()
        for data in stream_finished(self._storage, None if columns is None else ["trial_id", *columns]):
            data = data.filter(pa.array(seen.add(data["trial_id"].to_numpy())))  # rows come again after a merge
            data = data if wanted is None else data.filter(pc.is_in(data["trial_id"], value_set=wanted))
            if data.num_rows:
                yield data

    def earlier(self) -> pa.Table | None:
        """What the search learns from beside its own trials, in the columns of `EARLIER`; None: nothing.

        Raises:
            PoolError: it is missing or damaged.
        """
        expected = self.manifest.get(EARLIER_HASH)
        return None if expected is None else read_earlier(self._storage, str(expected))

    def fits(self) -> pd.DataFrame:
        """The strategy's diagnostics, one row per round.

        Raises:
            PoolError: the file is damaged.
        """
        return tables.to_pandas(read_fits(self._storage))

    def diagnostics(self) -> list[rows.Row]:
        """As `fits`, each round as the strategy told it, with None for what it did not tell.

        Raises:
            PoolError: the file is damaged.
        """
        told: list[rows.Row] = read_fits(self._storage).to_pylist()
        return told

    def best(self, n: int = 10) -> pd.DataFrame:
        """The `n` best completed trials: the best by their metric first, ties by id.

        Scores with shared weights are no match for those of networks with weights of their own: where there is one of
        these, they alone are ranked; before, the scores of the newest version.

        Of a search with several objectives the trials by their Pareto rank, a column more, in a rank by the metric.

        Raises:
            ConfigError: `n` is less than 1.
            PoolError: a part is damaged.
        """
        if n < 1:
            raise ConfigError(f"best({n}): expected how many trials, at least 1")
        with self._storage.moment():
            found, placed = replay.read_best(self._storage, n, self.objectives)
        best = tables.to_pandas(found)
        return best.assign(pareto_rank=placed) if self.objectives else best

    @property
    def objectives(self) -> tuple[Aim, ...]:
        """What its search aims at, the metric's column among them; () where that is all."""
        return manifests.objectives(self.manifest)

    def front(self) -> Front | None:
        """What its trials cover of several objectives; None: it aims at its metric alone.

        Raises:
            PoolError: a part is damaged.
        """
        if not self.objectives:
            return None
        with self._storage.moment():
            trial_ids, values = replay.read_aims(self._storage, self.objectives)
        own = [aim for aim in self.objectives if aim.column in BY_COLUMN]
        return Front.of(trial_ids, values, (*own, *(aim for aim in self.objectives if aim not in own)))

    def counts(self) -> Counts:
        """How far the search is: a read of a few columns.

        Raises:
            PoolError: a part is damaged.
        """
        with self._storage.moment():
            return load_ledger(self._storage).counts()

    def sql(self, select: str, limits: query.Limits | None = None) -> pd.DataFrame:
        """The result of one SELECT (DuckDB) over the tables `trials`, `rungs`, `fits` and `final`; it reaches no other.

        Args:
            select: the query.
            limits: what it may take; None: all there is.

        Raises:
            PoolError: the query is wrong, is not one SELECT, or takes longer than it may.
        """
        return query.sql(self._storage, select, limits)

    def read_weights(self, version: str) -> bytes:
        """A version of shared weights.

        Raises:
            PoolError: the pool does not have it, or not any more.
        """
        return read_weights(self._storage, version)

    @property
    def is_remote(self) -> bool:
        """Each look at a file is a request to object storage."""
        return not isinstance(self._storage, LocalStorage)

    @property
    def checkpoints(self) -> Checkpoints:
        """The states of trials that take long."""
        return Checkpoints(self._storage)

    @property
    def mailbox(self) -> Mailbox:
        """What is asked of the driver."""
        return Mailbox(self._storage)

    def changed_budget(self) -> ChangedBudget | None:
        """What holds instead of the config's budget; None: that does.

        Raises:
            PoolError: it cannot be read.
        """
        try:
            return read_budget(self._storage)
        except OSError as error:
            raise PoolError(f"{self.url}/budget.json cannot be read: {' '.join(str(error).split())}") from None

    def sharing(self) -> list[Shared]:
        """How many trials each kind of GPU has at a time, as was found; nothing where that cannot be read."""
        try:
            return read_sharing(self._storage)
        except OSError:
            return []

    def retries(self) -> dict[int, int]:
        """Failed trials that the user has asked for again, and as which trial, finished or not.

        Raises:
            PoolError: a part is damaged.
        """
        data = read_some(self._storage, "events", ["kind", "trial_id", "retry_of"])
        data = data.filter((pc.field("kind") == "asked") & pc.field("retry_of").is_valid())
        return dict(zip(tables.ids(data, "retry_of"), tables.ids(data, "trial_id"), strict=True))

    def logs(self, trial_id: int) -> list[str]:
        """What the trial's failed attempts can be understood by, a text for each that is kept.

        Raises:
            PoolError: one cannot be read.
        """
        try:
            return read_logs(self._storage, trial_id)
        except OSError as error:
            raise PoolError(f"{self.url}/logs cannot be read: {' '.join(str(error).split())}") from None

    def notes(self) -> dict[int, Note]:
        """What people noted beside trials, by the number of the trial: `star`, `text`, and when (`at`).

        Raises:
            PoolError: the file is damaged.
        """
        return read_notes(self._storage)

    def put_note(self, trial_id: int, star: bool, text: str) -> dict[int, Note]:
        """Note something beside a trial, instead of what was; neither star nor text: nothing. Returns all notes.

        Raises:
            PoolError: the note is longer than 10,000 characters, or the file is damaged.
            PoolWriteError: the pool cannot be written.
        """
        return write_note(self._storage, trial_id, star, text)

    def check(self) -> list[str]:
        """What is wrong, one line each: damaged parts, doubled or missing ids, trials without a final row."""
        with self._storage.moment():
            return health.check(self._storage)

    def follow(self, folder: str, columns: Sequence[str]) -> Tail:
        """The rows of `trials` or `events`, each time those that are new.

        Args:
            folder: `trials` or `events`.
            columns: of their rows.

        Raises:
            PoolError: there is no such column.
        """
        _refuse_unknown(columns, folder)
        return Tail(self._storage, folder, columns)


def _refuse_unknown(columns: Sequence[str], folder: str) -> None:
    known = {"trials": rows.TRIALS, "events": rows.EVENTS}[folder].names
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise PoolError(f"{folder} have no column {unknown[0]!r}; they have {', '.join(known)}")
