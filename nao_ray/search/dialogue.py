"""The dialogue with the strategy: one request at a time, and what its answers have said so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nao_ray.search.clock import Clock
from nao_ray.search.proposer import Answer, Proposer
from nao_ray.trial import Interim, Trial


class Dialogue:
    """What is asked of a proposer, until its answer is recorded."""

    def __init__(self, proposer: Proposer, clock: Clock) -> None:
        self._proposer, self._clock = proposer, clock
        self.asking = 0
        """Proposals requested, until `note_recorded`."""
        self.answer: Answer | None = None
        """To be recorded."""
        self._since = 0.0
        self.seconds = 0.0
        """How long the strategy takes to answer: the longest lately."""
        self.fit_seconds: float | None = None
        """CPU seconds of the last fit."""
        self.is_dry = False
        """The strategy wants to be told more first."""
        self.is_done = False
        """Nothing further will come."""
        self.planned: int | None = None
        self.to_come: float | None = None
        """Device seconds of what it plans and was not told, as far as it can tell."""
        self.num_told = 0
        """Finished trials that it had been told then."""
        self.answers = 0
        """Recorded so far."""

    @property
    def pending(self) -> Sequence[Any]:
        """Handles that are ready when `poll` has something."""
        return self._proposer.pending if self.asking and self.answer is None else ()

    def request(self, n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> None:
        """Tell these trials, and what was heard of others; then ask for `n`, at least one unless it is the end."""
        self._since = self._clock.seconds()
        self._proposer.request(n, told, heard)
        self.asking = max(n, 1)

    def poll(self, timeout: float) -> None:
        """Take the answer if it comes within `timeout` seconds."""
        if not self.asking or self.answer is not None:
            return
        self.answer = self._proposer.poll(timeout)
        if self.answer is not None:
            self.seconds = max(self._clock.seconds() - self._since, 0.9 * self.seconds)

    def note_recorded(self) -> None:
        """The answer is recorded: the next request may come."""
        assert self.answer is not None
        for row in self.answer.diagnostics:
            seconds = row.get("cpu_seconds")
            self.fit_seconds = float(seconds) if isinstance(seconds, int | float) else self.fit_seconds
        self.is_dry = len(self.answer.proposals) < self.asking
        self.is_done, self.planned, self.to_come = self.answer.done, self.answer.planned, self.answer.to_come
        self.num_told, self.answers = self.answer.num_told, self.answers + 1
        self.answer, self.asking = None, 0
