"""What the loop needs of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from nao_ray.trial import Attempt, Diagnostics, Proposal, Trial


class Records(Protocol):
    """What the loop writes of a pool; each call is durable when it returns, and may be repeated."""

    def record_asked(self, proposals: Sequence[Proposal], asked_at: datetime, attempts: Sequence[Attempt] = ()) -> None:
        """Proposals, in the order asked, and attempts at them or at others, in one write."""

    def record_attempts(self, rows: Sequence[Attempt]) -> None:
        """Attempts."""

    def record_left(self, rows: Sequence[Attempt]) -> None:
        """Attempts that end in order with their driver; `before`: how, if they had ended by themselves."""

    def record_finished(self, trials: Sequence[Trial]) -> object:
        """Trials COMPLETED or FAILED, in the order of their `log_index`."""

    def record_fits(self, rows: Sequence[Diagnostics]) -> None:
        """Rows about the strategy's own state."""

    def record_log(self, trial_id: int, attempt: int, text: str) -> None:
        """What there is to understand a failed attempt by; before a final row that says it failed."""

    def record_budget(self, before: tuple[int | None, float | None], now: tuple[int | None, float | None]) -> None:
        """Other limits (trials, seconds), for this driver and those to come."""

    def write_weights(self, version: str, weights: bytes, training: int | None = None) -> None:
        """A version of shared weights, before the trial that trained it is finished; `training`: its `Phase.seed`."""
