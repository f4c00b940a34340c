"""When a search stops."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from nao_ray.trial import Trial

_PAUSE_SECONDS = 600.0
"""A gap between trials up to this long counts as search (a controller that fits), a longer one as a stopped driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At the first limit reached nothing further is asked or started; what runs is finished."""

    trials: int | None = None
    """Proposals asked, over all drivers of the pool; failed trials that the user asks for again are none of them."""
    seconds: float | None = None
    """Wall time, over all drivers of the pool."""

    def __str__(self) -> str:
        parts = [f"{self.trials} trials"] if self.trials is not None else []
        parts += [f"{self.seconds / 3600:g} hours"] if self.seconds is not None else []
        return " and ".join(parts) or "without limit"

    @property
    def limits(self) -> tuple[int | None, float | None]:
        """As a pool keeps them."""
        return self.trials, self.seconds

    def changed(self, trials: int | None, seconds: float | None) -> Budget:
        """With other limits; None: as it was."""
        return Budget(
            trials=self.trials if trials is None else trials, seconds=self.seconds if seconds is None else seconds
        )

    def trials_left(self, asked: int, seconds: float) -> int | None:
        """How many proposals may still be asked after `asked` of them and `seconds`; None: no limit."""
        if self.out_of_time(seconds):
            return 0
        return None if self.trials is None else max(0, self.trials - asked)

    def out_of_time(self, seconds: float) -> bool:
        """Whether the wall time is used up."""
        return self.seconds is not None and seconds >= self.seconds

    def total(self, planned: int | None) -> int | None:
        """How many trials a strategy that plans so many will ask; None: no limit."""
        return min((limit for limit in (self.trials, planned) if limit is not None), default=None)

    def time_left(self, seconds: float) -> float | None:
        """Of the wall time, after `seconds` of it; None: no limit."""
        return None if self.seconds is None else max(0.0, self.seconds - seconds)


class Spans:
    """When trials ran: 16 bytes each."""

    def __init__(self) -> None:
        self._starts, self._ends = array("d"), array("d")  # seconds since 1970

    def add(self, trial: Trial) -> None:
        """Take a trial in, if it ran."""
        if trial.started_at is not None and trial.finished_at is not None:
            self._starts.append(trial.started_at.timestamp())
            self._ends.append(trial.finished_at.timestamp())

    @property
    def seconds_spent(self) -> float:
        """Wall time that the trials took together, from the first start to the last end.

        Trials that ran side by side count once. Gaps of more than ten minutes do not count: no driver ran.
        """
        starts, ends = np.asarray(self._starts), np.asarray(self._ends)
        if not len(starts):
            return 0.0
        order = np.lexsort((ends, starts))
        starts, ends = starts[order], ends[order]
        before = np.concatenate([starts[:1], np.maximum.accumulate(ends)[:-1]])  # the last end before each start
        begins = np.where(starts - before <= _PAUSE_SECONDS, before, starts)
        return float(np.maximum(0.0, ends - begins).sum())
