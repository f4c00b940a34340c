"""What a driver has to remember of a pool while it writes: ids and counters, never rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray._pool.rows import EVENTS, TRIALS
from nao_ray._pool.storage import Storage
from nao_ray._pool.stream import stream, stream_finished
from nao_ray._pool.tables import ids
from nao_ray.metric import SCORED, score_of
from nao_ray.standings import Standing, Standings
from nao_ray.trial import TrialState

_MAX_ID = 2**31


class IdSet:
    """A set of trial ids, one bit each; an id outside [0, 2**31) raises ValueError."""

    def __init__(self) -> None:
        self._bits: NDArray[np.uint8] = np.zeros(1024, dtype=np.uint8)

    def __contains__(self, number: int) -> bool:
        if not 0 <= number < _MAX_ID:
            raise ValueError(f"trial_id {number} is not in [0, 2**31): ids count up from 0")
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        """Add an id."""
        if number in self:
            return
        byte = number >> 3
        if byte >= len(self._bits):
            grown = np.zeros(max(byte + 1, 2 * len(self._bits)), dtype=np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        self._bits[byte] |= np.uint8(1 << (number & 7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How far a search is."""

    asked: int = 0
    completed: int = 0
    failed: int = 0
    best_score: float | None = None
    """Of the best completed trial (`Standings`): the value of the metric, negative if less is better."""
    best_trial_id: int | None = None

    @property
    def finished(self) -> int:
        """Completed or failed."""
        return self.completed + self.failed

    @property
    def running(self) -> int:
        """Asked, and without a final row."""
        return self.asked - self.finished


class Ledger:
    """Ids asked and finished, the best trial, the next numbers."""

    def __init__(self) -> None:
        self.asked = IdSet()
        self.finished = IdSet()
        self._scored = IdSet()
        self._gone_on = IdSet()
        self.next_seq = 0
        self.num_asked = 0
        self._states = {TrialState.COMPLETED.value: 0, TrialState.FAILED.value: 0}
        self._standings = Standings()

    def note_asked(self, trial_id: int) -> None:
        """A proposal was recorded."""
        if trial_id not in self.asked:
            self.asked.add(trial_id)
            self.num_asked += 1

    def note_finished(
        self, trial_id: int, state: str, standing: Standing | None, parent_trial_id: int | None = None
    ) -> None:
        """A final row was recorded; one that has a score has a standing, one that goes on with another its parent."""
        self.finished.add(trial_id)
        if standing is not None:
            self._scored.add(trial_id)
        if parent_trial_id is not None:
            self._gone_on.add(parent_trial_id)
        self.note_asked(trial_id)  # a pool made of a table has no events
        self._states[state] += 1
        self._standings.add(standing)

    def may_go_on(self, trial_id: int) -> bool:
        """Whether a finished trial has a score, and none has finished that goes on with it."""
        return trial_id in self._scored and trial_id not in self._gone_on

    def counts(self) -> Counts:
        """The counters now."""
        best = self._standings.best
        return Counts(
            asked=self.num_asked,
            completed=self._states[TrialState.COMPLETED.value],
            failed=self._states[TrialState.FAILED.value],
            best_score=None if best is None else best.score,
            best_trial_id=None if best is None else best.trial_id,
        )


def load_ledger(storage: Storage) -> Ledger:
    """The ledger of a pool as it stands."""
    ledger = Ledger()
    nothing = TRIALS.empty_table()
    for events in stream(storage, "events", ["seq", "trial_id", "kind"]):
        add_tables(ledger, events, nothing)
    nothing = EVENTS.empty_table()
    for trials in stream_finished(storage, RANKED):
        add_tables(ledger, nothing, trials)
    return ledger


def add_tables(ledger: Ledger, events: pa.Table, trials: pa.Table) -> None:
    """Note rows of `events` and `trials`."""
    ledger.next_seq = max([ledger.next_seq, *(seq + 1 for seq in ids(events, "seq"))])
    for trial_id in ids(events.filter(pc.field("kind") == "asked"), "trial_id"):
        ledger.note_asked(trial_id)
    facts = (trials[name].to_pylist() for name in ("state", "parent_trial_id"))
    for trial_id, standing, state, parent in zip(ids(trials, "trial_id"), standings(trials), *facts, strict=True):
        if trial_id not in ledger.finished:
            ledger.note_finished(trial_id, str(state), standing, parent)


_STANDING = ("trial_id", "state", "phase", "weights_version", "parent_trial_id", "epochs")
RANKED = (*_STANDING, *SCORED)
"""The columns that `standings` needs."""


def standings(trials: pa.Table) -> list[Standing | None]:
    """Where each row stands; None for one that failed or trained shared weights."""
    scores = map(score_of, *(trials[name].to_pylist() for name in SCORED))
    facts = zip(*(trials[name].to_pylist() for name in _STANDING), scores, strict=True)
    return [_standing(*row) for row in facts]


def _standing(
    trial_id: int,
    state: str,
    phase: str | None,
    version: str | None,
    parent: int | None,
    epochs: int | None,
    measured: float | None,
) -> Standing | None:
    score = measured if state == TrialState.COMPLETED and phase is None else None
    rung = 0 if parent is None else epochs or 0
    return None if score is None else Standing(score, trial_id, version, rung)
