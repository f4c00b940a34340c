"""How one driver writes the parts of a pool; one class for each kind of storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import pyarrow as pa

from nao_ray._pool.lease import Lease
from nao_ray._pool.storage import Storage


class Journal(ABC):
    """The parts of one epoch, in `trials/` and `events/`."""

    quiet = True
    """Nothing of ours is on its way that may still land."""

    @abstractmethod
    def take_over(self, unsealed: Iterable[int]) -> None:
        """Put right what earlier drivers have left, and see to it that nothing of theirs lands any more.

        Args:
            unsealed: epochs of which a part may still be on its way.

        Raises:
            PoolError: a part is damaged.
            PoolWriteError: something cannot be read or put right; it stays as it is.
        """

    @abstractmethod
    def has_old(self) -> bool:
        """Whether a part that was taken over is of an earlier schema, which plain readers cannot join with ours.

        Raises:
            PoolError: a part is damaged.
            PoolReadError: one cannot be read.
        """

    @abstractmethod
    def renew(self) -> None:
        """Rewrite the parts of earlier schemas, before the first of ours; changes nothing where there is none.

        Raises:
            FencedError: another driver has taken over.
            PoolError: a part is damaged.
            PoolWriteError: they could not be written; the next driver goes on.
        """

    @abstractmethod
    def append(self, folder: str, data: pa.Table) -> None:
        """Write a part.

        Raises:
            FencedError: another driver has taken over.
            PoolWriteError: it was not written; unless `quiet`, it may still land until `settle`.
        """

    @abstractmethod
    def find(self, trial_id: int) -> pa.Table:
        """The row of a trial in trials/; none where it is not there.

        Raises:
            PoolError: a part is damaged.
            PoolWriteError: one cannot be read at the moment.
        """

    @abstractmethod
    def replace(self, before: int, row: pa.Table) -> None:
        """Put a row of trials/ in the place of that of the trial `before`, at once; nothing to do if it is there.

        Raises:
            FencedError: another driver has taken over.
            PoolError: a part is damaged.
            PoolWriteError: it may not have been done; may be tried again.
        """

    @abstractmethod
    def settle(self) -> None:
        """After a failed write that may still land: see to it that it does not, or has.

        Raises:
            FencedError: another driver has taken over.
            PoolError: a part is damaged.
            PoolWriteError: it is not settled.
        """

    @abstractmethod
    def is_due(self) -> bool:
        """Whether merging pays; not at once again after it has failed."""

    @abstractmethod
    def merge(self, *, whole: bool) -> None:
        """Merge parts into few.

        Args:
            whole: all up to the limits; otherwise as far back as it pays.

        Raises:
            FencedError: another driver has taken over.
            PoolError: a part is damaged.
            PoolWriteError: it could not be written; the pool is as before.
        """


def open_journal(storage: Storage, lease: Lease) -> Journal:
    """The journal of the lease's epoch."""
    from nao_ray._pool.local import LocalStorage
    from nao_ray._pool.local_journal import LocalJournal
    from nao_ray._pool.object_journal import ObjectJournal
    from nao_ray._pool.objects import ObjectStorage

    if isinstance(storage, ObjectStorage):
        return ObjectJournal(storage, lease.epoch, lease.guard)
    assert isinstance(storage, LocalStorage)
    return LocalJournal(storage, lease.epoch, lease.guard)
