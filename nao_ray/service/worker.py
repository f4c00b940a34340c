"""A worker as the driver sees it: an actor, and the one call to it that is under way."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError

from nao_ray.search.executor import Job

_log = logging.getLogger(__name__)


class Worker:
    """Starting, then idle or busy with a call."""

    def __init__(self, actor: Any, call: Any, now: float) -> None:  # noqa: ANN401
        self.actor = actor
        self.call: Any = call  # of start, evaluate or train; None: idle
        self.jobs: list[Job] = []  # none: starting or idle
        self.in_group = False  # at a phase, with others
        self.node_id: str | None = None  # None: starting
        self.since = now  # of the call, or of being idle
        self.started_at: datetime | None = None
        self.ping: Any = None
        self.heard = now
        self.is_there = False  # its process has said something; before, no node may have had room for it

    def begin(self, jobs: list[Job], call: Any, now: float) -> None:  # noqa: ANN401
        """A call for these jobs was made."""
        self.jobs, self.since, self.started_at = jobs, now, datetime.now(UTC)
        self.heard, self.ping, self.call, self.is_there = now, None, call, True

    def send_ping(self) -> None:
        """Ask for a sign of life, which a thread of its own gives whatever the actor does."""
        self.ping = self.actor.ping.options(concurrency_group="control").remote()

    def kill(self) -> None:
        """End the actor's process, if it has not ended by itself."""
        try:
            ray.kill(self.actor, no_restart=True)
        except (RayError, ValueError):
            _log.debug("worker was gone already", exc_info=True)
