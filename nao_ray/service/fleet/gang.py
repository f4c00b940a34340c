"""A phase of shared weights, which all workers train together: who takes part, and how they begin."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from nao_ray.evaluators.base import Group
from nao_ray.search.executor import Job
from nao_ray.service.fleet.actors import Weights
from nao_ray.service.fleet.worker import Worker


class Gang:
    """Brings the workers together for a phase; nothing else runs beside it.

    Args:
        patience: seconds that a phase waits for workers that have not started; then those there do it.
        owns_device: each worker has a GPU to itself, if it has one.
    """

    def __init__(self, patience: float, *, owns_device: bool = True) -> None:
        self._patience, self._owns_device = patience, owns_device
        self._waiting_since: float | None = None
        self._over_since: float | None = None

    @property
    def is_waiting(self) -> bool:
        """A phase is next, and every worker is wanted."""
        return self._waiting_since is not None

    def note_end(self, now: float) -> None:
        """The phase's weights are there: nothing is to be expected of its other members."""
        self._over_since = now

    def is_overdue(self, now: float) -> bool:
        """Members that are still at it will not come to an end by themselves."""
        return self._over_since is not None and now - self._over_since > self._patience

    def members(self, idle: Collection[Worker], wanted: int, now: float, *, is_quiet: bool) -> list[Worker]:
        """Who carries out the phase that is next: `wanted` idle workers, after a while those there; [] is: not yet.

        Args:
            idle: the workers without a call.
            wanted: so many are to take part.
            now: seconds.
            is_quiet: nothing else is at work.
        """
        if self._waiting_since is None:
            self._waiting_since = now
        is_late = now - self._waiting_since > self._patience
        if not idle or not is_quiet or (len(idle) < wanted and not is_late):
            return []
        self._waiting_since = None
        return list(islice(idle, wanted))

    def start(self, job: Job, members: Sequence[Worker], source: Weights | None) -> list[Any]:
        """Begin; the calls, one for each member, of which the first brings the weights.

        Raises:
            RayError: the first member, where the others would meet it, is gone; nothing has begun.
            TimeoutError: it does not answer.
        """
        self._over_since = None
        address = members[0].actor.address.remote().future().result(self._patience)
        groups = (Group(rank, len(members), address, self._owns_device) for rank in range(len(members)))
        return [
            worker.actor.train.remote(job.proposal, source, group)
            for worker, group in zip(members, groups, strict=True)
        ]
