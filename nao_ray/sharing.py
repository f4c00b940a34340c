"""How many trials a kind of GPU has at a time: a value that goes from the fleet to the pool, and back for a resume."""

from __future__ import annotations

from typing import NamedTuple


class Shared(NamedTuple):
    """A kind of GPU."""

    gpu: str
    children: int
    """Now: as many as have proved worth it, or one more, which is tried."""
    kept: int
    is_settled: bool
    """One more brings nothing, as has been tried."""

    @property
    def line(self) -> str:
        """For people."""
        what = "1 trial" if self.children == 1 else f"{self.children} trials"
        return f"{what} at a time on each {self.gpu}{'' if self.is_settled else ', being measured'}"
