"""Who stands beside a search: looks on, asks something of it, ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nao_ray.metric import DEFAULT, Metric
from nao_ray.search.requests import NoRequests, Requests
from nao_ray.search.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Overseer:
    """Nobody, unless given."""

    listener: Callable[[Snapshot], None] = lambda _: None
    """Is given a snapshot whenever something has happened."""
    metric: Metric = DEFAULT
    """What trials are measured by, for the listener."""
    requests: Requests = field(default_factory=NoRequests)
    """What is asked of the search while it runs; looked at every turn."""
    stop: Callable[[], bool] = lambda: False
    """Asked at every turn; once true, the search records what has ended and raises KeyboardInterrupt."""
