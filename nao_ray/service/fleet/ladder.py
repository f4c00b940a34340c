"""How many children share a GPU by what it brings: one more at a time, for as long as throughput rises by a tenth.

Beside each other children take longer: where k of them take s seconds each, a GPU does k / s a second. A kind of GPU
begins with one child. Once that is known well enough, and memory has room, it is tried with one more, which is kept if
it brings a tenth more, else never tried again: without MPS, where children take turns and two may bring less than one,
and with it.

Well enough is: of one fidelity at least five trials, and an error of the median of 5 % or twenty trials. The first
trial of a worker loads and compiles and does not count, nor does one that was not in full company.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from nao_ray.sharing import Shared
from nao_ray.trial import Fidelity

GAIN = 1.1
"""What one more child has to bring."""
FEWEST, _MOST = 5, 20
"""Trials of a fidelity that a median is taken of."""
_ERROR = 0.05
_MEDIAN = 1.2533  # its standard error, in standard errors of the mean
_BESIDE = 0.8  # share of the time of all who are to be there


class Ladder:
    """Of one kind of GPU.

    Args:
        known: how far it was found to go before.
    """

    def __init__(self, known: Shared | None = None) -> None:
        self._kept = 1 if known is None else known.kept
        self.children = self._kept
        """On a GPU now."""
        self.is_settled = known is not None and known.is_settled
        """One more brings nothing."""
        self._seconds: defaultdict[tuple[int, Fidelity], deque[float]] = defaultdict(partial(deque, maxlen=_MOST))

    @property
    def kept(self) -> int:
        """Those that have proved worth it; one more may be being tried."""
        return self._kept

    def note(self, children: int, fidelity: Fidelity, seconds: float) -> None:
        """A trial took so long with so many on its GPU."""
        if not self.is_settled and children == self.children and seconds > 0:
            self._seconds[children, fidelity].append(seconds)

    def turn(self, room: int) -> str | None:
        """Go up or down, where memory and CPUs have `room` for so many; what is done and why, None: nothing."""
        if self.is_settled:
            return None
        known = [fidelity for children, fidelity in self._seconds if children == self.children]
        enough = [fidelity for fidelity in known if is_enough(self._seconds[self.children, fidelity])]
        if not enough:
            return None
        if self.children == self._kept:
            return self._try_one_more(room)
        comparable = [fidelity for fidelity in enough if is_enough(self._seconds.get((self._kept, fidelity), ()))]
        if not comparable:  # trials have become others: those are measured first
            self.children = self._kept
            return f"{self._kept} again, for trials are others now"
        return self._judge(comparable[0])

    def _try_one_more(self, room: int) -> str | None:
        if self.children >= room:
            return None
        self.children += 1
        return f"{self.children} are tried instead of {self._kept}"

    def _judge(self, fidelity: Fidelity) -> str:
        before, now = (
            children / statistics.median(self._seconds[children, fidelity]) for children in (self._kept, self.children)
        )
        what = f"{self.children} bring {now / before:.2f} times what {self._kept} bring"
        if now >= GAIN * before:
            self._kept = self.children
            return f"{what}: kept"
        self.children, self.is_settled = self._kept, True
        return f"{what}, less than {GAIN:g}: {self._kept} from now on"


def is_enough(seconds: Iterable[float]) -> bool:
    """Whether a median of these says enough."""
    logs = [math.log(value) for value in seconds]
    if len(logs) < FEWEST:
        return False
    return len(logs) >= _MOST or _MEDIAN * statistics.stdev(logs) / math.sqrt(len(logs)) <= _ERROR


@dataclass(frozen=True, slots=True)
class Span:
    """When a call ran, in seconds."""

    since: float
    until: float


class Company:
    """Who has computed beside whom on the devices: `spans` of those that have ended."""

    def __init__(self) -> None:
        self._spans: defaultdict[object, deque[Span]] = defaultdict(partial(deque, maxlen=64))

    def was_full(self, device: object, span: Span, beside: Iterable[float], places: int) -> bool:
        """Whether a call had others beside it in all other places of its device, for most of its time; it has ended.

        Args:
            device: where.
            span: of the call.
            beside: since when those run that have not ended.
            places: on the device.
        """
        ended = self._spans[device]
        others = [*ended, *(Span(since, span.until) for since in beside)]
        ended.append(span)
        shared = sum(max(0.0, min(span.until, other.until) - max(span.since, other.since)) for other in others)
        return shared >= _BESIDE * (places - 1) * (span.until - span.since)
