"""States of trials that take long, a file each, written by their workers; removed once the trial is final.

On a ladder of fidelities the state that a rung pauses with stays until the next rung has ended, or the search has.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from nao_ray._pool.faults import READING
from nao_ray._pool.ledger import Ledger
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.storage import Storage
from nao_ray.trial import Trial

FOLDER = "checkpoints"
_SUFFIX = ".safetensors"
_DIGITS = 9
_LEAST_SECONDS = 10.0  # of a trial on object storage that may have a checkpoint; removing one is a request


class Checkpoints:
    """The states kept in one pool. A state appears whole or not at all; of two writers the last one counts."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, trial_id: int) -> bytes | None:
        """None: there is none. Raises OSError."""
        with suppress(FileNotFoundError):
            return self._storage.read(_file(trial_id))
        return None

    def write(self, trial_id: int, state: bytes) -> None:
        """Raises PoolWriteError."""
        self._storage.make_folder(FOLDER)
        self._storage.write(_file(trial_id), state)

    def forget(self, trials: Iterable[Trial]) -> None:
        """Remove those of trials that are final; what cannot be removed is left to the next driver."""
        is_local = isinstance(self._storage, LocalStorage)
        for trial in trials:
            if (parent := trial.proposal.parent_trial_id) is not None:
                with suppress(*READING):
                    self._storage.remove(_file(parent))
            if trial.score is not None and self._pauses_at(trial.proposal.fidelity.epochs):
                continue
            seconds = (
                (trial.finished_at - trial.started_at).total_seconds()
                if trial.finished_at is not None and trial.started_at is not None
                else _LEAST_SECONDS
            )
            if is_local or seconds >= _LEAST_SECONDS:
                with suppress(*READING):
                    self._storage.remove(_file(trial.trial_id))

    def sweep(self, ledger: Ledger, *, is_over: bool = False) -> None:
        """Remove those of trials that are final, which an earlier driver or a late worker has left.

        Args:
            ledger: of the pool.
            is_over: nothing goes on with a trial that has paused, or it then trains from the start.
        """
        with suppress(*READING):
            for name in self._storage.entries(FOLDER):
                number = name.removesuffix(_SUFFIX)
                if not (number.isdigit() and len(number) == _DIGITS and int(number) in ledger.finished):
                    continue
                if is_over or not (self._storage.rungs and ledger.may_go_on(int(number))):
                    self._storage.remove(f"{FOLDER}/{name}")

    def _pauses_at(self, epochs: int | None) -> bool:
        return epochs in self._storage.rungs[:-1]


def _file(trial_id: int) -> str:
    return f"{FOLDER}/{trial_id:0{_DIGITS}d}{_SUFFIX}"
