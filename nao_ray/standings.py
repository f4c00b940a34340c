"""Which trial is the best: one fold for the driver, the pool, those who watch, loggers and reports.

Scores with shared weights only count until a network with weights of its own has one, and of those only scores of one
version are compared: of the newest, which is the version of the last trial asked that has a score.

On a ladder of fidelities the highest rung that has been reached comes first: a score after 3 epochs is not compared
with one after 27.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_Rank = tuple[int, float, int]
"""Rung, score and minus the id."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A scored trial among the others."""

    score: float
    """More is better."""
    trial_id: int
    weights_version: str | None = None
    """The shared weights that the score was taken with; None: weights of its own."""
    rung: int = 0
    """Of a further rung of a ladder its epochs; 0: the first, or there is none."""


class Standings:
    """The best of the trials added so far, whatever their order; each trial is added once."""

    def __init__(self, standings: Iterable[Standing | None] = (), keep: int = 1) -> None:
        """As described above.

        Args:
            standings: the first ones.
            keep: how many of the best are remembered.
        """
        self._keep = keep
        self._best: dict[str | None, Standing] = {}  # by version
        self._top: dict[str | None, list[_Rank]] = {}  # heaps: the worst first
        self._newest = (-1, "")  # the last trial asked that was scored with shared weights, and its version
        for standing in standings:
            self.add(standing)

    def add(self, standing: Standing | None) -> bool:
        """Take a trial in, None if it has no score; returns whether it is the best now."""
        if standing is None or not math.isfinite(standing.score):
            return False
        version = standing.weights_version
        if version is not None:
            if None in self._best:
                return False
            self._newest = max(self._newest, (standing.trial_id, version))
        elif None not in self._best:
            self._best, self._top = {}, {}
        best = self._best.get(version)
        if best is None or _rank(standing) > _rank(best):
            self._best[version] = standing
        heap = self._top.setdefault(version, [])
        (heapq.heappush if len(heap) < self._keep else heapq.heappushpop)(heap, _rank(standing))
        return self.best == standing

    @property
    def version(self) -> str | None:
        """The shared weights whose scores are compared; None: scores of networks with weights of their own are."""
        return self._newest[1] if self._best and None not in self._best else None

    @property
    def of_versions(self) -> Mapping[str | None, Standing]:
        """The best of each version, as long as they may count: any trial that comes may make another one the newest."""
        return self._best

    @property
    def best(self) -> Standing | None:
        """The first of all."""
        return self._best.get(self.version)

    def top(self) -> list[Standing]:
        """The best ones, best first, ties by the number of the trial; as many as are kept."""
        version = self.version
        ranks = sorted(self._top.get(version, ()), reverse=True)
        return [Standing(score, -minus, version, rung) for rung, score, minus in ranks]


def after(epochs: int) -> str:
    """Of which rung a score is, for people: "after 9 epochs"."""
    return f"after {epochs} epoch{'s' * (epochs != 1)}"


def _rank(standing: Standing) -> _Rank:
    return standing.rung, standing.score, -standing.trial_id
