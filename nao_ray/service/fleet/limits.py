"""How long an evaluation may take: as the config says, or by what others took."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from nao_ray.search.executor import Job
from nao_ray.trial import Fidelity

_log = logging.getLogger(__name__)

_TIMES = 10.0  # the median
_LEAST_SECONDS = 600.0
_ENOUGH, _REMEMBERED = 3, 101  # evaluations of a fidelity


class TimeLimits:
    """Of a call, from when its worker has begun with it; what a worker loads before its first one does not count.

    Args:
        seconds: None: none; `auto`: 10 times the median of what evaluations of the fidelity took, at least 10 minutes,
            once three have ended.
    """

    def __init__(self, seconds: float | Literal["auto"] | None) -> None:
        self._seconds = seconds
        self._took: defaultdict[Fidelity, deque[float]] = defaultdict(partial(deque, maxlen=_REMEMBERED))
        self._limits: dict[Fidelity, float] = {}
        self._told: dict[Fidelity, float] = {}

    def note(self, jobs: Sequence[Job], seconds: float) -> None:
        """A call for these jobs has ended well after so long."""
        if self._seconds != "auto" or jobs[0].proposal.phase is not None:
            return
        fidelity = jobs[0].proposal.fidelity
        took = self._took[_sort(fidelity)]
        took.append(seconds / len(jobs))
        if len(took) >= _ENOUGH:
            limit = max(_LEAST_SECONDS, _TIMES * statistics.median(took))
            self._limits[_sort(fidelity)] = limit
            if not 0.5 < limit / self._told.get(_sort(fidelity), limit * 2) < 2:
                self._told[_sort(fidelity)] = limit
                _log.info("a trial may take %.0f s from now on, see workers.timeout_seconds", limit)

    def of(self, jobs: Sequence[Job]) -> float | None:
        """Seconds for a call for these jobs; None: any time, also where they train shared weights."""
        if not jobs or jobs[0].proposal.phase is not None:
            return None
        if self._seconds != "auto":
            return self._seconds
        limit = self._limits.get(_sort(jobs[0].proposal.fidelity))
        return None if limit is None else max(_LEAST_SECONDS, limit * len(jobs))

    def message(self, seconds: float) -> str:
        """Why an evaluation was ended."""
        if self._seconds == "auto":
            return f"took longer than {seconds:.0f} s, 10 times what trials take, see workers.timeout_seconds"
        return f"took longer than workers.timeout_seconds {seconds:g}"


def _sort(fidelity: Fidelity) -> Fidelity:
    """What takes equally long."""
    return replace(fidelity, weights_version=None if fidelity.weights_version is None else "any")
