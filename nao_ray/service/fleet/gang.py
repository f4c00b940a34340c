"""A phase of shared weights, which all workers train together: who takes part, and how they begin."""

from __future__ import annotations

from collections.abc import Sequence

import ray

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

    def members(self, workers: Sequence[Worker], wanted: int, now: float) -> list[Worker]:
        """Who carries out the phase that is next: `wanted` idle workers, after a while those there; [] is: not yet."""
        if self._waiting_since is None:
            self._waiting_since = now
        idle = [worker for worker in workers if worker.call is None]
        is_late = now - self._waiting_since > self._patience
        if not idle or any(worker.jobs for worker in workers) or (len(idle) < wanted and not is_late):
            return []
        self._waiting_since = None
        return idle[:wanted]

    def start(self, job: Job, members: Sequence[Worker], source: Weights | None, now: float) -> None:
        """Begin; the first member's report brings the weights.

        Raises:
            RayError: the first member, where the others would meet it, does not answer; nothing has begun.
        """
        self._over_since = None
        address = ray.get(members[0].actor.address.remote(), timeout=self._patience)
        for rank, worker in enumerate(members):
            group = Group(rank, len(members), address, self._owns_device)
            worker.begin([job], worker.actor.train.remote(job.proposal, source, group), now)
            worker.in_group = True
