"""Names of parts, which say what a part holds and which of those in a folder count.

``e000002-00000017.parquet`` is what the driver of epoch 2 wrote as its 17th, ``m000003-00000004.FIRST.LAST.parquet``
what the driver of epoch 3 merged as its 4th: all rows from the part FIRST to the part LAST. A merged part counts from
the moment it is there, and the parts within its range count no more, whether they are removed yet or not. No name is
used twice, and none is written to twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PART = re.compile(r"e(\d{6,})-(\d{8,})")
_MERGED = re.compile(r"m(\d{6})-(\d{8})\.(e\d{6}-\d{8})\.(e\d{6}-\d{8})\.parquet")
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged part, by its name."""

    epoch: int
    number: int
    first: str
    """The first part it holds, without the suffix."""
    last: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"m{self.epoch:06d}-{self.number:08d}.{self.first}.{self.last}{_SUFFIX}"

    def holds(self, part: str) -> bool:
        """Whether it holds the rows of a part, by the part's first and last."""
        first, last = span(part)
        return self.first <= first and last <= self.last


def part_name(epoch: int, number: int) -> str:
    """Name of a part: sorted, parts are in the order written; never used twice."""
    return f"e{epoch:06d}-{number:08d}{_SUFFIX}"


def merged(name: str) -> Merged | None:
    """What a merged part's name says; None for any other."""
    found = _MERGED.fullmatch(name)
    return Merged(int(found[1]), int(found[2]), found[3], found[4]) if found else None


def span(name: str) -> tuple[str, str]:
    """First and last part, without the suffix, that a part holds: itself twice, unless it is a merged one."""
    found = merged(name)
    stem = name.removesuffix(_SUFFIX)
    return (found.first, found.last) if found else (stem, stem)


def number(name: str) -> tuple[int, int] | None:
    """Epoch and number of the last part that a part holds; None for a name of another kind."""
    found = _PART.fullmatch(span(name)[1])
    return (int(found[1]), int(found[2])) if found else None


def counting(names: Iterable[str]) -> list[str]:
    """Those of a folder's parts that count, in the order in which their rows were written.

    Of merged parts that overlap the later one counts. Either it holds the other, or the other was not known to it,
    because it was on its way (of a driver that was replaced, or seemed to have failed): then nothing in the other
    has been removed but what the later one holds, too.
    """
    found = list(names)
    chosen: list[Merged] = []
    for item in sorted(filter(None, map(merged, found)), key=lambda item: (item.epoch, item.number), reverse=True):
        if all(item.last < other.first or other.last < item.first for other in chosen):
            chosen.append(item)
    kept = {item.name for item in chosen}
    kept |= {name for name in found if merged(name) is None and not any(item.holds(name) for item in chosen)}
    return sorted(kept, key=lambda name: (span(name)[1], name))


def covered(there: Iterable[str], name: str) -> list[str]:
    """Parts that a merged part holds and that are there all the same: what its merge had no time to remove."""
    found = merged(name)
    return [other for other in there if found and other != name and number(other) and found.holds(other)]
