"""Where the strategy runs: behind a request and an answer, so that a controller that fits holds up nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nao_ray.strategies.base import Strategy
from nao_ray.trial import Diagnostics, Interim, Proposal, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a strategy says to a request."""

    proposals: tuple[Proposal, ...]
    """At most as many as were asked for; fewer: tell me more first, or `done`."""
    diagnostics: tuple[Diagnostics, ...]
    """Rows about the strategy's own state since the last answer."""
    done: bool
    """Nothing further will come."""
    planned: int | None
    """Trials the strategy will have asked when it is done; None: as many as it is let."""
    to_come: float | None = None
    """Device seconds of the trials it plans and has not been told, as far as it can tell; None: it cannot."""
    hopeless: str | None = None
    """Nothing can come of it any more, and why; the search ends with it, once what it says is recorded."""
    num_told: int
    """Finished trials the strategy has been told in all: those with a lower `log_index`."""


class Proposer(Protocol):
    """A strategy somewhere; one request at a time."""

    @property
    def pending(self) -> Sequence[Any]:
        """Handles that are ready when `poll` has something, for `Executor.wait`."""
        ...

    def request(self, n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> None:
        """Tell finished trials, by their `log_index`, and what was heard of others; then ask for `n` proposals."""
        ...

    def poll(self, timeout: float | None = None) -> Answer | None:
        """The answer, once; None when it is not there within `timeout` seconds, or earlier for no reason.

        Raises:
            Exception: the strategy failed.
        """
        ...

    def close(self) -> None:
        """Give up."""
        ...


def answer(strategy: Strategy[Any], n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> Answer:
    """Tell, then ask."""
    strategy.tell(told)
    strategy.hear(heard)
    proposals = strategy.ask(n) if n else []
    return Answer(
        proposals=tuple(proposals),
        diagnostics=tuple(strategy.diagnostics()),
        done=strategy.done,
        planned=strategy.planned,
        to_come=strategy.seconds_to_come,
        hopeless=strategy.hopeless,
        num_told=strategy.log_position,
    )


class LocalProposer:
    """The strategy in this process; a request returns when the answer is there."""

    pending: Sequence[Any] = ()

    def __init__(self, strategy: Strategy[Any], log: Sequence[Trial] = ()) -> None:
        """Restores the strategy from a pool's log."""
        self._strategy = strategy
        self._answer: Answer | None = None
        strategy.restore(log)

    def request(self, n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> None:
        self._answer = answer(self._strategy, n, told, heard)

    def poll(self, timeout: float | None = None) -> Answer | None:
        given, self._answer = self._answer, None
        return given

    def close(self) -> None:
        self._answer = None
