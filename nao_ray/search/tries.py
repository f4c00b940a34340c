"""Trials that are not finished, and how often they have been tried, over all drivers of the pool.

An attempt counts unless it ended in order with its driver, or for the environment's sake. One that was under way when a
driver died may have been the cause, e.g. of its node's end, or not: after a restart such trials come after all others,
those with one try left one at a time, so that what ends the next driver is known, and none is tried for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from nao_ray.trial import FailureKind, Trial, TrialState

LEAST_TRIES = 3
"""Drivers that may die over a trial, however few attempts a worker's loss allows."""
_SHOWN = 150  # characters of how an attempt ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Which attempts are repeated."""

    max_attempts: int = 3
    """Attempts per trial, over all drivers of the pool."""
    kinds: frozenset[FailureKind] = frozenset({FailureKind.LOST})


@dataclass(slots=True)
class Entry:
    """A trial that is not finished."""

    trial: Trial
    tries: int = 0
    """Attempts that count, the present one with them."""
    is_begun: bool = False
    """Its next attempt is recorded."""
    ends: list[str] = field(default_factory=list)
    """How those before the present one ended."""
    before: str = ""
    """How the last one did, to be recorded with the next."""
    since: float = 0.0
    """When the present one was submitted, by the loop's clock."""
    is_suspect: bool = False
    """One more driver's death, and it is the cause: nothing else that may be is tried beside it."""

    def final(self, ended: Trial) -> Trial:
        """The trial as it is recorded, of which this was the last attempt."""
        if ended.failure_kind is not FailureKind.LOST or not self.ends:
            return ended
        last = f"{ended.failure_kind}: {(ended.failure_message or '')[:_SHOWN]}"
        return replace(ended, failure_message=summary([*self.ends, last]))

    @property
    def has_attempt(self) -> bool:
        """The pool knows of an attempt, which may be under way for all that it knows."""
        return self.last_attempt > 0

    @property
    def last_attempt(self) -> int:
        """Number of the last one recorded."""
        return self.trial.attempt + self.is_begun

    def note_end(self, kind: FailureKind, message: str) -> None:
        """The present attempt has ended, and another is to come."""
        self.before = f"{kind}: {message[:_SHOWN]}"
        if kind is FailureKind.ENVIRONMENT:
            self.tries -= 1
        else:
            self.ends.append(self.before)


def take_up(log: Iterable[Trial], max_attempts: int) -> tuple[list[Entry], list[Trial]]:
    """What a new driver finds unfinished, in the order to be tried; and what no further attempt is made at."""
    running = sorted((trial for trial in log if trial.state is TrialState.RUNNING), key=lambda trial: trial.trial_id)
    most = max(LEAST_TRIES, max_attempts)
    over = [trial for trial in running if len(trial.ends) >= most]
    entries = [
        Entry(trial, tries=len(trial.ends), ends=list(trial.ends), is_suspect=len(trial.ends) == most - 1)
        for trial in running
        if len(trial.ends) < most
    ]
    if all(entry.trial.proposal.phase is None for entry in entries):  # else the order is that of the weights
        entries.sort(key=lambda entry: len(entry.ends))
    return entries, over


def choose(queue: Iterable[Entry], room: int, *, beside_suspect: bool) -> list[Entry]:
    """Those of a queue that can be tried now, in so much room: of the suspects one at a time."""
    found: list[Entry] = []
    if room <= 0:
        return found
    for entry in queue:
        if not (entry.is_suspect and beside_suspect):
            found.append(entry)
            beside_suspect = beside_suspect or entry.is_suspect
        if len(found) == room:
            break
    return found


def summary(ends: Sequence[str]) -> str:
    """How attempts ended, in a line."""
    counts = Counter(ends).most_common()
    how = counts[0][0] if len(counts) == 1 else "; ".join(f"{text} ({count})" for text, count in counts)
    return f"{len(ends)} attempts ended with {how}"
