"""What a search says of itself at every turn: to a progress line, to metrics."""

from __future__ import annotations

from dataclasses import dataclass

from nao_ray.metric import Metric
from nao_ray.sharing import Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How the search stands."""

    done: int
    """Trials COMPLETED, over all drivers of the pool."""
    failed: int
    """Trials FAILED, likewise."""
    running: int
    """At work on a worker."""
    queued: int
    """Asked, and waiting for a worker."""
    asked: int
    total: int | None
    """Trials the strategy plans and the budget allows, or what a strategy that is done has asked, and those that were
    asked for again; None: no limit."""
    capacity: int
    """Workers."""
    proposing: bool
    """The strategy is at work on further proposals."""
    ahead: int
    """Proposals that are asked for before a worker wants them, for the time the strategy takes to answer."""
    ask_seconds: float
    """How long the strategy takes to answer: the longest lately."""
    fit_seconds: float | None
    """CPU seconds of the controller's last fit; None where nothing has been fitted by this driver."""
    metric: Metric
    """What trials are measured by."""
    best_score: float | None
    """More is better, whatever the metric."""
    best_trial_id: int | None
    best_rung: int
    """Of a ladder the epochs of the best, if it is not of the first rung; else 0."""
    seconds: float
    """Wall time of this driver."""
    eta_seconds: float | None
    """Estimated seconds to the end; None before a trial of this driver has ended."""
    device_seconds: float
    """Of all finished trials, over all drivers of the pool; where a trial's are not known, those of its worker."""
    write_error: str | None
    """Why the pool cannot be written at the moment."""
    trouble: str | None
    """Why trials cannot be evaluated at the moment."""
    aside: tuple[str, ...] = ()
    """Devices and nodes that are given nothing for a while, and why."""
    sharing: tuple[Shared, ...] = ()
    """How many trials a GPU has at a time, by kind."""

    @property
    def note(self) -> str:
        """What is wrong at the moment, in a line; empty: nothing is known to be."""
        if self.write_error is not None:
            return f"cannot write the pool: {self.write_error}"
        if self.trouble is not None:
            return f"paused: {self.trouble}"
        more = f" and {len(self.aside) - 1} more" if len(self.aside) > 1 else ""
        return f"set aside{more}: {self.aside[0]}" if self.aside else ""
