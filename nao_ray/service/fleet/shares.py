"""Several searches on one cluster: how many workers each may have, by priority, weight and limit.

Every search leaves a claim in the head's key-value store at each look, reads those of the others, and reckons what is
whose: all reckon the same from the same claims, so that nobody has to decide, and a driver that dies leaves a claim
that does not change any more. A search that has more than its share begins nothing further on what is too much;
what runs is never ended for another's sake.

Weighted max-min fairness: Bertsekas, Gallager, *Data Networks*, 1992, section 6.5.2; in whole workers.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from nao_ray.service.fleet.nodes import HeadAwayError

_log = logging.getLogger(__name__)

STALE_SECONDS = 30.0
"""Of a claim that does not change: its driver is dead."""
_USED_STEP = 600.0
"""Seconds of a device by which searches of equal claims take turns: workers that come and go cost some themselves."""


class Board(Protocol):
    """Where claims are left, by search."""

    def claims(self, search: str, mine: bytes) -> dict[str, bytes]:
        """Leave one's own; returns everybody's.

        Raises:
            HeadAwayError: the head does not answer.
        """

    def withdraw(self, search: str) -> None:
        """Take one's own away.

        Raises:
            HeadAwayError: the head does not answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a search may claim."""

    search: str = ""
    """Names it on the cluster; empty: it shares nothing with others."""
    weight: float = 1.0
    priority: int = 0
    max_gpus: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a search says of itself."""

    cpus: float
    """Of one worker, as `gpus`."""
    gpus: float
    wants: int
    """Workers that would find work, and that its settings allow."""
    holds: int
    """Workers that it has."""
    weight: float = 1.0
    priority: int = 0
    used: float = 0.0
    """Worker seconds so far."""
    turn: int = 0
    """Another one each time: the driver is alive."""

    @property
    def resource(self) -> str:
        """What it shares with others who want the same."""
        return "GPU" if self.gpus else "CPU"

    @property
    def amount(self) -> float:
        """Of that, one worker's."""
        return self.gpus or self.cpus


def allot(claims: Mapping[str, Claim], free: Mapping[str, float]) -> dict[str, int]:
    """Workers by search.

    A higher priority gets all it wants first; within one, the next worker is whose who has least by its weight, and of
    those whose has used least so far.

    Args:
        claims: by search.
        free: amounts of `CPU` and `GPU` that nobody uses; beside what the claims hold, all that there is to allot.
    """
    found: dict[str, int] = {}
    for resource in ("GPU", "CPU"):
        mine = {name: claim for name, claim in claims.items() if claim.resource == resource}
        left = free.get(resource, 0.0) + sum(claim.holds * claim.amount for claim in mine.values())
        for priority in sorted({claim.priority for claim in mine.values()}, reverse=True):
            tier = {name: claim for name, claim in mine.items() if claim.priority == priority}
            given = _divide(tier, left)
            left -= sum(count * tier[name].amount for name, count in given.items())
            found |= given
    return found


def _divide(claims: Mapping[str, Claim], amount: float) -> dict[str, int]:
    """Whole workers, one by one."""
    given = dict.fromkeys(claims, 0)

    def place(name: str) -> tuple[float, float, str]:
        claim = claims[name]
        return (given[name] + 1) * claim.amount / claim.weight, claim.used / claim.weight // _USED_STEP, name

    line = [place(name) for name, claim in claims.items() if claim.wants > 0]
    heapq.heapify(line)
    while line:
        name = heapq.heappop(line)[-1]
        if claims[name].amount > amount + 1e-9:
            continue
        amount -= claims[name].amount
        given[name] += 1
        if given[name] < claims[name].wants:
            heapq.heappush(line, place(name))
    return given


class Shares:
    """One search's part of the cluster."""

    def __init__(self, share: Share, board: Board) -> None:
        """As described above."""
        self._share, self._board = share, board
        self._seen: dict[str, tuple[int, float]] = {}  # of each search: its last turn, and since when
        self._turn, self._used, self._looked = 0, 0.0, -math.inf
        self._last: tuple[int, int] | None = None  # told: searches, workers

    def look(self, now: float, claim: Claim, free: Mapping[str, float]) -> int | None:
        """Workers that this search may have; None: as many as it likes.

        Args:
            now: seconds, monotonic.
            claim: its own; weight, priority, turn and what was used are filled in here.
            free: as in `allot`.
        """
        limit = self._limit(claim)
        if not self._share.search:
            return limit
        self._used += claim.holds * max(0.0, min(now - self._looked, STALE_SECONDS))
        self._turn, self._looked = self._turn + 1, now
        wants = claim.wants if limit is None else min(claim.wants, limit)
        own = replace(
            claim,
            weight=self._share.weight,
            priority=self._share.priority,
            used=self._used,
            turn=self._turn,
            wants=wants,
        )
        try:
            texts = self._board.claims(self._share.search, json.dumps(asdict(own)).encode())
        except HeadAwayError:
            return limit
        claims = self._alive(texts, now) | {self._share.search: own}
        if len(claims) == 1:
            self._last = None
            return limit
        allowed = allot(claims, free)[self._share.search]
        if self._last != (len(claims), allowed):
            self._last = len(claims), allowed
            _log.info("%d searches share the cluster: %d workers are this one's", len(claims), allowed)
        return allowed

    def close(self) -> None:
        """What it has is others' from now on."""
        if self._turn:
            with suppress(HeadAwayError):  # then its claim grows stale
                self._board.withdraw(self._share.search)

    def _limit(self, claim: Claim) -> int | None:
        most = self._share.max_gpus
        return None if most is None or not claim.gpus else math.floor(most / claim.gpus + 1e-9)

    def _alive(self, texts: Mapping[str, bytes], now: float) -> dict[str, Claim]:
        found = {}
        for name, text in texts.items():
            try:
                claim = Claim(**json.loads(text))
            except (ValueError, TypeError):  # of another version
                continue
            turn, since = self._seen.get(name, (-1, now))
            if turn != claim.turn:
                since = now
            self._seen[name] = claim.turn, since
            if now - since < STALE_SECONDS:
                found[name] = claim
        return found
