"""How fast a search is, from when its trials ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RECENT = 4096
"""Finished trials whose times are kept."""
_WINDOW = 900.0
"""Seconds that are looked back, or `_FEWEST` trials if they take longer."""
_FEWEST = 20
_PAUSE = 600.0
"""A gap between trials up to this many seconds counts as search (a controller that fits), a longer one does not."""
_HELD = 0.01
"""Share of the time for which so many trials must have run at once to count as workers: clocks of nodes differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast, lately."""

    per_hour: float | None = None
    """Trials finished per hour."""
    busy_share: float | None = None
    """Share of the workers' time that went into trials, in [0, 1]."""
    workers: int | None = None


class Spans:
    """When the last finished trials ran, in the order they ended."""

    def __init__(self) -> None:
        self._starts: NDArray[np.float64] = np.empty(0)
        self._ends: NDArray[np.float64] = np.empty(0)
        self._joint: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)

    @property
    def last(self) -> float:
        """When the last one ended, seconds since 1970; 0 before any has."""
        return float(self._ends[-1]) if len(self._ends) else 0.0

    def add(self, starts: NDArray[np.float64], ends: NDArray[np.float64], joint: NDArray[np.bool_]) -> None:
        """Add finished trials, ``[N]`` each, seconds since 1970; those with a NaN are left out.

        `joint`: all workers were at it together, as in training shared weights; several at a time shared them.
        """
        known = np.isfinite(starts) & np.isfinite(ends)
        starts, ends = np.append(self._starts, starts[known]), np.append(self._ends, ends[known])
        joint = np.append(self._joint, joint[known])
        order = np.argsort(ends, kind="stable")[-_RECENT:]
        self._starts, self._ends, self._joint = starts[order], ends[order], joint[order]

    def pace(self, now: float | None, running: Sequence[tuple[float, bool]], workers: int | None) -> Pace:
        """The pace up to `now`, or up to the last end where None.

        Args:
            now: seconds since 1970.
            running: start and `joint` of each trial at work.
            workers: how many there are, if that is known.
        """
        if not len(self._ends):
            return Pace(workers=workers)
        end = float(self._ends[-1]) if now is None else max(now, float(self._ends[-1]))
        count = min(max(_FEWEST, int((self._ends > end - _WINDOW).sum())), len(self._ends))
        # from the end before the first that counts: whatever ran since then has ended since then, or runs
        before = len(self._ends) - count - 1
        begin = float(self._ends[before] if before >= 0 else self._starts.min())
        starts = np.append(self._starts[-count:], [start for start, _ in running])
        ends = np.append(self._ends[-count:], [end] * len(running))
        joint = np.append(self._joint[-count:], [joint for _, joint in running]).astype(np.bool_)
        starts = np.clip(starts, begin, end)
        ends = np.maximum(ends, starts)
        seconds = _covered(np.append(starts, end), np.append(ends, end))
        if seconds <= 0:
            return Pace(workers=workers)
        at_once = max(_at_once(starts, ends, seconds), workers or 1)
        busy = float((ends - starts)[~joint].sum()) + at_once * _united(starts[joint], ends[joint])
        share = min(1.0, busy / (at_once * seconds))
        return Pace(per_hour=count * 3600 / seconds, busy_share=share, workers=at_once)


def _covered(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Seconds from the first start to the last end, without pauses."""
    order = np.argsort(starts)
    reached = np.maximum.accumulate(ends[order])
    gaps = starts[order][1:] - reached[:-1]
    return float(reached[-1] - starts[order][0] - gaps[gaps > _PAUSE].sum())


def _united(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Seconds in which any of the trials ran."""
    order = np.argsort(starts)
    before = np.append(-np.inf, np.maximum.accumulate(ends[order])[:-1])
    return float(np.maximum(0, ends[order] - np.maximum(starts[order], before)).sum()) if len(starts) else 0.0


def _at_once(starts: NDArray[np.float64], ends: NDArray[np.float64], seconds: float) -> int:
    """The most trials that ran at once for at least `_HELD` of the time."""
    moments = np.concatenate([starts, ends])
    steps = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    order = np.lexsort((steps, moments))  # an end before a start at the same moment
    levels = np.cumsum(steps[order])[:-1]
    lengths = np.diff(moments[order])
    for level in range(int(levels.max(initial=0)), 0, -1):
        if lengths[levels >= level].sum() >= _HELD * seconds:
            return level
    return 0
