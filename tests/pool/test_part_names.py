"""Names of parts tell which of them count, whatever was merged, removed or late."""

import numpy as np
import pytest

from nao_ray._pool import names
from nao_ray._pool.names import Merged, counting, part_name


def stem(k: int) -> str:
    return part_name(1, k).removesuffix(".parquet")


def test_a_merged_part_stands_for_those_in_its_range():
    small = [part_name(1, k) for k in range(6)]
    merged = Merged(1, 1, stem(1), stem(3)).name
    assert counting([*small, merged]) == [small[0], merged, small[4], small[5]]
    assert counting([small[0], merged]) == [small[0], merged], "also when they are removed"
    assert names.number(merged) == (1, 3)
    assert names.number("notes.parquet") is None
    assert counting(["notes.parquet", small[2], merged]) == [merged, "notes.parquet"]


def test_a_late_one_of_a_replaced_driver_counts_only_where_nothing_later_overlaps():
    small = [part_name(1, k) for k in range(8)]
    late = Merged(1, 1, stem(0), stem(4)).name
    later = Merged(2, 1, stem(3), stem(7)).name
    assert counting([*small[:3], late, later]) == [*small[:3], later]
    assert counting([*small, late]) == [late, *small[5:]]


class Folder:
    """A folder under drivers that merge and die between any two requests, and whose merged parts may land later."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.there: set[str] = set()
        self.held: dict[str, set[str]] = {}  # the rows of a merged part
        self.late: list[str] = []  # of drivers that are dead
        self.written = 0
        self.newest = ""

    def check(self) -> None:
        rows = [row for name in counting(self.there) for row in self.held[name]]
        assert len(rows) == len(set(rows)) == self.written

    def something_lands(self) -> None:
        if self.late and self.rng.random() < 0.2:
            self.there.add(self.late.pop(int(self.rng.integers(len(self.late)))))
            self.check()

    def live(self, epoch: int) -> None:
        """One driver: it takes over, as `Journal.take_over` does, then records and merges until it dies."""
        merges = 0
        seen = set(self.there)  # one listing, and from then on what it does itself
        known = counting(seen)
        for place, name in enumerate(known):
            if left := names.covered(seen, name):
                merges += 1
                if not self.merge(epoch, merges, [name, *left], [name]):
                    return
                known[place] = self.newest
        self.there -= seen - set(known)
        self.check()
        for number in range(int(self.rng.integers(1, 12))):
            name = part_name(epoch, number)
            self.there.add(name)
            self.held[name] = {name}
            known.append(name)
            self.written += 1
            self.check()
            if len(known) > 1 and self.rng.random() < 0.4:
                merges += 1
                chosen = known[int(self.rng.integers(0, len(known) - 1)) :]
                if not self.merge(epoch, merges, chosen, chosen):
                    return
                known = [*known[: len(known) - len(chosen)], self.newest]

    def merge(self, epoch: int, number: int, removed: list[str], held: list[str]) -> bool:
        """Whether the driver lives on."""
        new = Merged(epoch, number, names.span(held[0])[0], names.span(held[-1])[1]).name
        self.newest = new
        self.held[new] = set().union(*(self.held[name] for name in held))
        self.something_lands()
        if self.rng.random() < 0.2:  # it is on its way, and the driver merges nothing else before it is there
            self.late.append(new)
            return False
        self.there.add(new)
        self.check()
        for name in self.rng.permutation(removed).tolist():
            self.something_lands()
            if self.rng.random() < 0.1:
                return False
            self.there.discard(name)
            self.check()
        return True


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_merged_late_or_cut_short_each_row_counts_once(seed):
    folder = Folder(seed)
    for epoch in range(1, 7):
        folder.live(epoch)
        folder.check()
    while folder.late:
        folder.there.add(folder.late.pop())
        folder.check()
