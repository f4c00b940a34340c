"""A pool as its driver writes it: under a lease, one driver at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from pathlib import Path
from threading import RLock
from typing import Any, Self

import pyarrow as pa

from nao_ray._pool import manifest as manifests
from nao_ray._pool import rows, tables
from nao_ray._pool.budget import Limits, write_budget
from nao_ray._pool.earlier import EARLIER_HASH, digest
from nao_ray._pool.earlier import NAME as EARLIER_FILE
from nao_ray._pool.families import Behind
from nao_ray._pool.faults import unreadable
from nao_ray._pool.fits import add_fits
from nao_ray._pool.journal import Journal, open_journal
from nao_ray._pool.lease import Clock, Lease, acquire
from nao_ray._pool.ledger import Counts, Ledger, add_tables, load_ledger
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.logs import Logs
from nao_ray._pool.names import part_name
from nao_ray._pool.reader import PoolReader
from nao_ray._pool.sharing import write_sharing
from nao_ray._pool.storage import Guard, Storage, open_storage
from nao_ray._pool.weights import keep_weights
from nao_ray.errors import FencedError, PoolError, StorageError
from nao_ray.sharing import Shared
from nao_ray.trial import Attempt, Diagnostics, Proposal, Trial

LEASE_EXPIRY = 30.0
"""Seconds without a heartbeat after which a driver on another host counts as dead."""

_QUIET_WITHIN = 5.0  # seconds that giving the pool free waits for a write in another thread

_FOLDERS = ("trials", "events", "fits", "lease", "weights", "final", "logs")
_RUNGS = "rungs"  # beside them where the search has a ladder of fidelities

_EMPTY = part_name(0, 0)  # keeps trials/ readable before the first trial

_log = logging.getLogger(__name__)


class PoolWriter(PoolReader):
    """A pool to read and, once it is acquired, to write. Made by `create` and `open`, which change no pool."""

    def __init__(self, storage: Storage, manifest: dict[str, Any]) -> None:
        super().__init__(storage, manifest)
        self._strategy = manifests.component(manifest, "strategy")
        self._task = manifests.component(manifest, "task")
        self._lock = RLock()
        self._lease: Lease | None = None
        self._ops: rows.Ops | None = None
        self._ledger = Ledger()
        self._unsure = False
        self._logs = Logs(storage)
        self._journal: Journal | None = None
        self._behind = Behind(storage)

    @classmethod
    def create(cls, url: str | Path, manifest: Mapping[str, Any], earlier: bytes | None = None) -> Self:
        """A new pool in a folder that is missing or empty.

        Args:
            url: a folder, or an address of object storage: s3://, gs://, az:// or abfs(s)://.
            manifest: plain data (YAML); its `config` names the `strategy` and the `task` that the rows repeat.
            earlier: Parquet, in the columns of `EARLIER`: what the search learns from beside its own trials.

        Raises:
            PoolError: there is a pool, or something else, already.
            PoolWriteError: it cannot be written.
            ValueError: the manifest is not plain data.
        """
        if earlier is not None:
            manifest = {**manifest, EARLIER_HASH: digest(earlier)}
        text = manifests.to_text(manifest)
        if cls.exists(url):
            raise PoolError(f"{url} is a pool already; resume it, or choose another folder")
        storage = open_storage(url)
        manifests.refuse_other_files(storage, (*_FOLDERS, _RUNGS), _EMPTY, (EARLIER_FILE,))
        storage.make_folder()
        if isinstance(storage, LocalStorage):
            storage.make_swappable("trials", "events")
        for folder in (*_FOLDERS, _RUNGS) if manifests.rungs(manifest) else _FOLDERS:
            storage.make_folder(folder)
        storage.write(f"trials/{_EMPTY}", tables.to_bytes(rows.TRIALS.empty_table()))
        if earlier is not None:
            storage.write(EARLIER_FILE, earlier)
        if not storage.create(manifests.NAME, text.encode()):
            raise PoolError(f"{storage.url} has just been made by another driver; resume it")
        return cls(storage, manifests.from_text(text, manifests.NAME))

    def acquire(
        self,
        expiry: float = LEASE_EXPIRY,
        wait: float = 0.0,
        ops: rows.Ops | None = None,
        clock: Clock | None = None,
    ) -> Lease:
        """Become the driver that writes; use as a context manager.

        What a dead driver left half-done is put right then, with a warning in the log.

        Args:
            expiry: seconds of silence after which others may take over.
            wait: seconds to wait for another driver to end; one that gives no sign of life is watched for its expiry.
            ops: names a genotype's operations, `SearchSpace.ops_by_cell`; without it their columns are null.
            clock: of the seconds that pass for this driver.

        Raises:
            PoolError: another driver is alive; says host, pid and the age of its heartbeat.
            StorageError: the lease cannot be read or written.
        """
        try:
            lease = acquire(self._storage, expiry, wait, manifests.NAME, clock)
        except OSError as error:
            raise unreadable(self._storage.path("lease"), error, "nothing of the trials") from None
        try:
            with self._lock, self._storage.moment():
                journal = open_journal(self._storage, lease)
                with lease.guard():
                    journal.take_over(lease.unsealed)
                lease.note_sealed()
                if journal.has_old():
                    _log.info("pool %s is of an earlier nao_ray: its parts are given the columns of this one", self.url)
                    manifests.renew(self._storage, lease.guard)
                journal.renew()
                self._ledger = load_ledger(self._storage)
                self._unsure = False
                lease.is_quiet = self._is_quiet
                self._lease, self._journal, self._ops = lease, journal, ops
                self.checkpoints.sweep(self._ledger)
                self._behind.look()
                self._behind.catch_up(journal)
        except BaseException:
            lease.release()
            raise
        return lease

    def record_asked(self, proposals: Sequence[Proposal], asked_at: datetime, attempts: Sequence[Attempt] = ()) -> None:
        """Record proposals before anything is started, with `attempts` in one write; known ones are left out.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was recorded; may be tried again.
        """
        with self._recording():
            new = {item.trial_id: item for item in reversed(proposals) if item.trial_id not in self._ledger.asked}
            first = self._ledger.next_seq
            events = [rows.asked_row(first + i, new[key], asked_at) for i, key in enumerate(sorted(new))]
            events += [
                rows.attempt_row(first + i, Attempt(*attempt)) for i, attempt in enumerate(attempts, start=len(events))
            ]
            self._append("events", rows.table(events, rows.EVENTS))
            self._ledger.next_seq += len(events)
            for trial_id in new:
                self._ledger.note_asked(trial_id)
            self._compact_if_due()

    def say(self, note: str, total: int | None = None, seconds_left: float | None = None) -> None:
        """Tell those who watch, with the next heartbeats.

        Args:
            note: what is wrong at the moment; empty: nothing.
            total: trials that the search comes to, as far as can be told; None: it cannot.
            seconds_left: that it still takes, from now on, likewise.
        """
        if self._lease is not None:
            self._lease.say(" ".join(note.split()), total, seconds_left)

    def record_left(self, attempts: Sequence[Attempt]) -> None:
        """Record that attempts end in order with their driver.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was recorded; may be tried again.
        """
        with self._recording():
            events = [
                rows.attempt_row(seq, Attempt(*attempt), kind="left")
                for seq, attempt in enumerate(attempts, start=self._ledger.next_seq)
            ]
            self._append("events", rows.table(events, rows.EVENTS))
            self._ledger.next_seq += len(events)

    def record_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Record attempts (trial_id, attempt, node, time) before they are started.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was recorded; may be tried again.
        """
        self.record_asked((), datetime.min, attempts)

    def record_finished(self, trials: Sequence[Trial]) -> list[Trial]:
        """Record final rows; returns the trials recorded, without those that have a final row already.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was recorded; may be tried again.
            ValueError: a trial is running or has no `log_index`.
        """
        with self._recording():
            new: dict[int, Trial] = {}
            for trial in trials:
                if trial.trial_id not in self._ledger.finished:
                    new.setdefault(trial.trial_id, trial)
            if not new:
                self._append("trials", rows.TRIALS.empty_table())
            for rises, some in groupby(new.values(), key=lambda trial: trial.proposal.parent_trial_id is not None):
                self._record_rows(list(some), rises=rises)
            if self._journal is not None:
                self._behind.catch_up(self._journal)
            self.checkpoints.forget(new.values())
            self._compact_if_due()
            return list(new.values())

    def _record_rows(self, trials: Sequence[Trial], *, rises: bool) -> None:
        """Neighbours in the log: further rungs, or none of them one."""
        ended = [rows.trial_row(trial, self._strategy, self._task, self._ops) for trial in trials]
        data = rows.table(ended, rows.TRIALS)
        if rises:
            self._guard()
            assert self._journal is not None
            self._behind.record(trials, data, self._journal)
        else:
            self._append("trials", data)
        for trial in trials:
            parent = trial.proposal.parent_trial_id
            self._ledger.note_finished(trial.trial_id, trial.state.value, trial.standing, parent)

    def record_fits(self, fits: Sequence[Diagnostics]) -> None:
        """Record a strategy's diagnostics; rows of a `round` that is recorded already are left out.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was recorded; may be tried again.
            ValueError: a row has no integer `round`.
        """
        with self._recording():
            add_fits(self._storage, fits, self._guard())

    def record_tables(self, trials: pa.Table, events: pa.Table) -> None:
        """Record rows made elsewhere, in the columns of `TRIALS` and `EVENTS`; the caller sees to it that they are new.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: they were not all recorded.
        """
        with self._recording():
            self._append("events", events.cast(rows.EVENTS))
            self._append("trials", trials.cast(rows.TRIALS))
            add_tables(self._ledger, events, trials)

    def write_weights(self, version: str, weights: bytes, training: int | None = None) -> None:
        """Keep a version of shared weights as `weights/VERSION.safetensors`; of each training the last `KEPT_WEIGHTS`.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was kept; may be tried again.
        """
        with self._recording():
            keep_weights(self._storage, version, weights, self._guard(), training)

    def record_log(self, trial_id: int, attempt: int, text: str) -> None:
        """Keep what a failed attempt can be understood by, as `logs/TRIAL-ATTEMPT.txt`; `KEPT_LOGS` are kept.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was kept.
        """
        with self._lock:
            self._logs.add(trial_id, attempt, text, self._guard())

    def record_budget(self, before: tuple[int | None, float | None], now: tuple[int | None, float | None]) -> None:
        """Let another budget (trials, seconds) hold from now on instead of `before`, and of those it stood for.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was changed.
        """
        with self._lock:
            write_budget(self._storage, Limits(*before), Limits(*now), self._guard())

    def record_sharing(self, found: Sequence[Shared]) -> None:
        """How many trials each kind of GPU has at a time.

        Raises:
            FencedError: another driver has taken over, or there is no lease.
            PoolWriteError: nothing was changed.
        """
        with self._lock:
            write_sharing(self._storage, found, self._guard())

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """A block that records. After an interrupt, which may have come on either side of a write, look again."""
        with self._lock:
            if self._unsure or (self._journal is not None and not self._journal.quiet):
                if self._journal is not None and self._lease is not None and not self._lease.released:
                    self._journal.settle()
                self._ledger = load_ledger(self._storage)
                self._unsure = False
            try:
                yield
            except (StorageError, FencedError, ValueError):
                raise
            except OSError as error:
                self._unsure = True
                raise self._storage.failed("", error) from None
            except BaseException:
                self._unsure = True
                raise

    def _guard(self) -> Guard:
        if self._lease is None or self._lease.released:
            raise FencedError(f"pool {self.url} is written under a lease only: acquire() it first")
        return self._lease.guard

    def _append(self, folder: str, data: pa.Table) -> None:
        guard = self._guard()
        if not data.num_rows:
            with guard():
                return
        assert self._journal is not None
        self._journal.append(folder, data)

    def _is_quiet(self) -> bool:
        """Whether nothing of ours may still land; asked once the lease is released, so that nothing more is begun."""
        if not self._lock.acquire(timeout=_QUIET_WITHIN):
            return False
        try:
            return self._journal is not None and self._journal.quiet
        finally:
            self._lock.release()

    def counts(self) -> Counts:
        """As `PoolReader.counts`; free while we drive."""
        with self._lock:
            driving = self._lease is not None and not self._lease.released
            return self._ledger.counts() if driving else super().counts()

    def end(self) -> None:
        """The search has come to its end: nothing goes on with what has paused on a ladder of fidelities."""
        with self._lock:
            if self._storage.rungs:
                self.checkpoints.sweep(self._ledger, is_over=True)

    # -- upkeep -------------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Merge the parts into as few as make sense. Under our own lease, or one taken for the moment.

        Raises:
            PoolError: another driver is alive.
            PoolWriteError: it could not be written; the pool is as before.
        """
        if self._lease is not None and not self._lease.released:
            self._compact(whole=True)
            return
        with self.acquire():
            self._compact(whole=True)

    def _compact(self, *, whole: bool) -> None:
        with self._lock:
            self._guard()
            assert self._journal is not None
            self._journal.merge(whole=whole)

    def _compact_if_due(self) -> None:
        if self._journal is None or not self._journal.is_due():
            return
        try:
            self._compact(whole=False)
        except (PoolError, StorageError) as error:
            # what had to be recorded is recorded: try again later
            _log.warning("pool %s was not compacted: %s", self.url, error)
