"""What is asked of a search while it runs: another budget, the end of a trial, an end of it all in good order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that is asked."""

    what: Literal["budget", "cancel", "drain"]
    name: str = ""
    """By which it is answered; "": nobody waits for an answer."""
    trials: int | None = None
    """The new `Budget.trials`; None: as it was."""
    seconds: float | None = None
    """The new `Budget.seconds` (None: as it was); of `drain`: how long those that run may still take (None: any time).
    """
    trial_id: int | None = None
    """Whom to cancel."""


class Requests(Protocol):
    """Where requests come in."""

    def look(self) -> Sequence[Request]:
        """Those that are not answered, in the order they came; quick."""
        ...

    def answer(self, request: Request, text: str) -> None:
        """It is granted, or refused, as the text says."""
        ...


class NoRequests:
    """Nobody asks for anything."""

    def look(self) -> Sequence[Request]:
        return ()

    def answer(self, request: Request, text: str) -> None:
        raise AssertionError("nobody asked")
