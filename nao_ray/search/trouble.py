"""What keeps trials from being evaluated and is no architecture's fault is borne for a while: nothing is lost by it."""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from dataclasses import dataclass

from nao_ray.errors import RunError
from nao_ray.search.clock import Clock
from nao_ray.trial import FailureKind, Trial, TrialState

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 120.0  # seconds
_TRIES = 3  # trials that are tried at a time where nothing else says that trials can be evaluated
_SHOWN = 300  # characters of a message
_COUNTED = 100  # failures in a row of which the commonest message is told
_REFUSED = 200  # architectures in a row outside of the constraints: these leave next to nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a search that gets nowhere ends, resumable."""

    trouble_seconds: float = 1800.0
    """Since the first error of the environment after which no trial was completed; a tenth of it before this driver has
    completed its first trial, when somebody may be watching."""
    failures: int | None = 10
    """FAILED trials in a row while the pool holds no completed one, five times as many when it does; None: any."""
    bears_failed_phases: bool = False
    """As the strategy's: a phase of shared weights may fail as any trial does."""


class Trouble:
    """Errors of the environment: how long to pause, how many trials to try again with, and when to give up."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        self._since: float | None = None
        self._pause = 0.0
        self._until = 0.0
        self._has_completed = False
        self.message: str | None = None
        """What is wrong at the moment, in a line."""

    def note_success(self) -> None:
        """A trial was completed, so trials can be."""
        if self.message is not None:
            _log.warning("trials can be evaluated again: the search goes on")
        self._has_completed, self._since, self.message = True, None, None

    def note_error(self, trial: Trial, node: str | None) -> None:
        """An attempt at `trial` ended with an error of the environment.

        Raises:
            RunError: no trial was completed for longer than the limit.
        """
        now = self._clock.seconds()
        where = f"trial {trial.trial_id} on {node or 'an unknown node'}"
        self.message = f"{where}: {(trial.failure_message or '')[:_SHOWN]}"
        limit = self._limits.trouble_seconds / (1 if self._has_completed else 10)
        if self._since is None:
            self._since, self._pause = now, _FIRST_PAUSE
            _log.warning(
                "the search pauses: %s: no architecture's fault; repair it, it is tried again, for %.0f s in all",
                self.message,
                limit,
            )
        elif now >= self._until:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:  # one more of those that ran
            return
        if now - self._since >= limit:
            raise RunError(
                f"no trial could be evaluated for {now - self._since:.0f} s, see workers.patience_seconds: "
                f"{self.message}; no trial is lost: repair it and resume"
            )
        self._until = now + self._pause

    @property
    def seconds_left(self) -> float | None:
        """Until trials are tried again; None: no pause."""
        if self._since is None or self._clock.seconds() >= self._until:
            return None
        return self._until - self._clock.seconds()

    def room(self, free: int, running: int) -> int:
        """Of `free` places beside `running` trials, those that may be used now."""
        if self._since is None:
            return free
        return 0 if self.seconds_left is not None else min(free, max(0, _TRIES - running))


class Failures:
    """FAILED trials in a row, of this driver."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = self._refused = 0
        self._row: deque[Trial] = deque(maxlen=_COUNTED)

    def note_end(self, trial: Trial) -> None:
        """A trial has its final row."""
        if trial.state is TrialState.COMPLETED:
            self._row.clear()
            self._count = self._refused = 0
        elif trial.failure_kind is FailureKind.LIMIT:
            self._refused += 1
            self._newest = trial
        elif trial.failure_kind is not FailureKind.CANCELLED:
            self._row.append(trial)
            self._count += 1

    def are_too_many(self, done: int) -> bool:
        """Whether nothing new begins unless one that runs is completed; `done`: completed trials of the pool."""
        limit = self._limits.failures
        if self._refused >= _REFUSED:
            return True
        return limit is not None and self._count >= limit * (5 if done else 1)

    def error(self) -> RunError:
        """What to raise when none that ran was completed."""
        if self._refused >= _REFUSED:
            message = (self._newest.failure_message or "")[:_SHOWN]
            return RunError(
                f"the constraints leave next to nothing: the last {self._refused} architectures are outside of them; "
                f"trial {self._newest.trial_id}: {message}; begin another pool with looser ones"
            )
        kinds = Counter(map(_sort_of, self._row))
        sort, count = kinds.most_common(1)[0]
        newest = next(trial for trial in reversed(self._row) if _sort_of(trial) == sort)
        what = f"{newest.failure_kind}: {(newest.failure_message or '')[:_SHOWN]}"
        how_many = "all" if count == len(self._row) else f"{count} of the last {len(self._row)}"
        return RunError(
            f"the last {self._count} trials failed, {how_many} alike; trial {newest.trial_id}: {what}; "
            "repair it and resume, or raise budget.failures"
        )


def _sort_of(trial: Trial) -> str:
    """What failures have in common that differ in numbers alone."""
    return f"{trial.failure_kind} {re.sub('[0-9]+', '0', trial.failure_message or '')}"
