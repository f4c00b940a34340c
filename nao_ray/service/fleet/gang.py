"""Phases of shared weights: each is trained by workers of its own, those of several trainings side by side.

One phase has all the workers that may train together. Several share them out evenly: a phase then begins as soon as its
part is idle, whatever the others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from nao_ray.evaluators.base import Group
from nao_ray.search.executor import Job
from nao_ray.service.fleet.actors import Weights
from nao_ray.service.fleet.fleet import Fleet
from nao_ray.service.fleet.worker import Worker, WorkerPlan


class Gang:
    """The workers of one phase; the first one brings the weights."""

    def __init__(self, members: Sequence[Worker]) -> None:
        self.members = tuple(members)


class Gangs:
    """Brings workers together for phases, and ends those who would wait for one that is gone."""

    def __init__(self, fleet: Fleet, plan: WorkerPlan) -> None:
        """As described above."""
        self._fleet, self._patience, self._most = fleet, plan.gather_seconds, plan.trained_by
        self._owns_device = (plan.gpus or 0) >= 1
        self._waiting_since: float | None = None
        self.at_work: set[Gang] = set()
        """Those whose weights are to come."""
        self._over: deque[tuple[float, Gang]] = deque()  # whose weights have come, and when

    def size(self, waiting: int, present: int) -> int:
        """Workers for the next of so many phases that wait, beside those at work, where so many workers are there."""
        part = max(1, present // max(1, waiting + len(self.at_work)))
        return part if self._most is None else min(part, self._most)

    def wanted(self, waiting: int) -> float:
        """Workers for all of so many phases that wait, and for those at work."""
        phases = waiting + len(self.at_work)
        return 0 if not phases else float("inf") if self._most is None else phases * self._most

    def members(self, size: int) -> list[Worker]:
        """Who carries out the phase that is next: `size` idle workers; [] is: not yet.

        Where nothing but phases is at work, those that are idle after a while: the others have not started.
        """
        fleet, now = self._fleet, self._fleet.now()
        if self._waiting_since is None:
            self._waiting_since = now
        is_late = now - self._waiting_since > self._patience and len(fleet.busy) == len(fleet.group)
        if not fleet.idle or (len(fleet.idle) < size and not is_late):
            return []
        self._waiting_since = None
        return list(islice(fleet.idle.values(), size))

    def begin(self, job: Job, members: Sequence[Worker], source: Weights | None) -> None:
        """Begin a phase.

        Raises:
            RayError: the first member, where the others would meet it, is gone; nothing has begun.
            TimeoutError: it does not answer.
        """
        first, size = members[0].actor, len(members)
        address = first.address.remote().future().result(self._patience) if size > 1 else ""
        groups = [Group(rank, size, address, self._owns_device) for rank in range(size)]
        calls = [
            worker.actor.train.remote(job.proposal, source, group)
            for worker, group in zip(members, groups, strict=True)
        ]
        gang = Gang(members)
        self.at_work.add(gang)
        for worker, call in zip(members, calls, strict=True):
            self._fleet.begin(worker, [job], call, gang)

    def end(self, gang: Gang) -> None:
        """The phase's weights are there: of its other members nothing is to be expected."""
        self.at_work.discard(gang)
        if len(gang.members) > 1:
            self._over.append((self._fleet.now(), gang))

    def is_over(self, worker: Worker) -> bool:
        """Whether the phase that a worker is at has ended without it."""
        return worker.gang is not None and worker.gang not in self.at_work

    def discard(self, worker: Worker) -> None:
        """End a worker, and with it those it is at a phase with."""
        self._fleet.discard(worker)
        if worker.gang is not None:
            self.break_up(worker.gang)

    def break_up(self, gang: Gang) -> None:
        """End the members that are still at it: without one of them they would wait for ever."""
        self.at_work.discard(gang)
        for worker in gang.members:
            if worker.gang is gang and worker in self._fleet:
                self._fleet.discard(worker)

    def end_overdue(self) -> None:
        """End members who are still at it long after the weights were there: they come to no end by themselves."""
        while self._over and self._fleet.now() - self._over[0][0] > self._patience:
            self.break_up(self._over.popleft()[1])
