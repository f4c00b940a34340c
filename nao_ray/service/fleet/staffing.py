"""Workers come and go: no more than there is work, where there is room, others where they cannot start."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from itertools import chain, islice, takewhile
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from nao_ray.errors import NaoRayError, RunError
from nao_ray.search.executor import Job
from nao_ray.service.fleet.actors import Place, cause, first_line, one_line
from nao_ray.service.fleet.breaker import Breaker
from nao_ray.service.fleet.demand import Demand
from nao_ray.service.fleet.fleet import Fleet
from nao_ray.service.fleet.neighbours import Neighbours
from nao_ray.service.fleet.nodes import NodeWatch
from nao_ray.service.fleet.output import words_of
from nao_ray.service.fleet.placement import Placement
from nao_ray.service.fleet.remote import Remote
from nao_ray.service.fleet.shares import Claim, Shares
from nao_ray.service.fleet.worker import Worker, WorkerPlan

_log = logging.getLogger(__name__)

_FAILED_STARTS = 3  # workers that could not start, one after the other and none else there: it is not the node
_WAITING_SECONDS = 60.0  # without any worker that has started, before we say so
_CREATED_AT_ONCE = 256  # a turn, so that results are not held up by workers to come


class Staffing:
    """Keeps a fleet as large as the work and the cluster."""

    def __init__(self, fleet: Fleet, placement: Placement, breaker: Breaker, plan: WorkerPlan, remote: Remote) -> None:
        """As described above."""
        self._fleet, self._placement, self._breaker, self._plan = fleet, placement, breaker, plan
        self._demand = Demand(plan.count, remote.can_grow)
        self._node_watch = NodeWatch(plan.watch_seconds, remote.nodes)
        self._hosts: dict[str, str] = {}  # ever seen: id -> host name
        self._alive, self._dead = set[str](), set[str]()
        self._no_mps: set[str] = set()  # reasons told
        self._made_for: dict[int, Worker] = {}  # by trial: the worker that starts for it
        self._placed = -1  # version of the placement that all workers are known to suit
        self._failed_starts = self._to_give_back = 0
        self._neighbours = Neighbours(fleet, plan, remote)
        self._shares, self._work = Shares(plan.share, remote), math.inf  # work: not known yet
        self._enough_since = self._warned = self._create_after = fleet.now()

    @property
    def present(self) -> int:
        """Workers that are there or soon will be, at least 1."""
        return self._demand.present

    @property
    def is_all_aside(self) -> bool:
        """No worker that there is or could be may be given anything."""
        fleet = self._fleet
        return bool(fleet.aside) and not fleet.busy and not fleet.idle and len(fleet.aside) >= self._demand.holds

    def host(self, node_id: str | None) -> str | None:
        """The name of a node, else its id."""
        return self._hosts.get(node_id or "", node_id)

    def is_alive(self, node_id: str) -> bool:
        """Whether the node was there when the cluster was last looked at."""
        return node_id in self._alive

    # -- the cluster --------------------------------------------------------------------------------------

    def look(self) -> list[Worker]:
        """Look at the nodes, if it is time: capacity, and workers on a node that died although their calls still wait.

        Raises:
            AuthenticationError: the cluster is gone, another has its address (`one_cluster`).
        """
        now = self._fleet.now()
        found = self._node_watch.look(now)
        if found is None:
            return []
        alive = {node.node_id: node for node in found if node.is_alive}
        totals = {key: node.resources for key, node in alive.items()}
        in_all = self._placement.look(totals)
        holds = self._placement.look(totals, self._neighbours.usable(alive)) + self._neighbours.underway
        self._demand.look(min(in_all, holds), now, in_all)
        is_waited_for = self._demand.may_give_back and self._neighbours.wait(in_all)
        self._demand.cap = self._shares.look(now, self._claim(in_all), self._neighbours.free)
        too_many = 0 if self._demand.cap is None else len(self._fleet) - self._demand.cap
        self._to_give_back = max(too_many, 1 if is_waited_for else min(self._to_give_back, 1))
        self._hosts.update({key: node.host for key, node in alive.items()})
        self._alive, self._dead = set(alive), {node.node_id for node in found if not node.is_alive}
        self._warn_of_waiting(now)
        with_workers = self._dead.intersection(self._fleet.nodes)
        # of one that starts there Ray says so
        return [worker for node_id in with_workers for worker in self._fleet.on(node_id) if worker.node_id is not None]

    def _claim(self, in_all: int) -> Claim:
        """What this search wants and has; of workers that share a GPU, the share that those here have."""
        workers = [*self._fleet.busy.values(), *self._fleet.idle.values(), *self._fleet.aside.values()]
        gpus = self._plan.gpus
        if gpus is None:
            gpus = sum(worker.slot.gpus for worker in workers) / len(workers) if workers else 1.0
        most = in_all if self._plan.count is None else self._plan.count
        holds = sum(not worker.waits for worker in self._fleet.starting.values()) + len(workers)
        return Claim(cpus=self._plan.cpus, gpus=gpus, wants=int(min(most, self._work)), holds=holds)

    def _warn_of_waiting(self, now: float) -> None:
        first = next(iter(self._fleet.starting.values()), None)
        if first is None or self._fleet.idle or self._fleet.busy:
            return
        if now - max(first.since, self._warned) >= _WAITING_SECONDS:
            self._warned = now
            wants = f"{self._plan.cpus:g} CPUs and {first.slot.gpus:g} GPUs"
            _log.warning("no worker has started for %.0f s; each wants %s on one node", now - first.since, wants)

    def close(self) -> None:
        """Nothing is claimed any more."""
        self._shares.close()

    # -- coming and going ---------------------------------------------------------------------------------

    def resize(self, work: float, choosy: Mapping[int, Job]) -> None:
        """Create workers where some are missing, retire those that were without work for too long.

        Args:
            work: workers that would find something to do.
            choosy: jobs that none of the idle workers takes, by trial.
        """
        fleet, now = self._fleet, self._fleet.now()
        self._work = work
        self._demand.aside = len(fleet.aside)
        wanted = self._demand.wanted(work)
        surplus = max(0, len(fleet) - len(fleet.aside) - wanted)
        if not surplus:
            self._enough_since = now  # a pause between two rounds withdraws nothing
        unneeded = chain(self._overdue(fleet.starting.values()), self._overdue(fleet.idle.values()))
        for worker in list(islice(unneeded, surplus)) if wanted else [*unneeded, *self._overdue(fleet.aside.values())]:
            fleet.discard(worker)
        if now >= self._create_after:
            self._make_room(choosy)
            missing = min(wanted - len(fleet) + len(fleet.aside), _CREATED_AT_ONCE)
            for slot in self._placement.slots(missing, fleet.taken()) if missing > 0 else ():
                fleet.create(slot)

    def _overdue(self, workers: Iterable[Worker]) -> Iterable[Worker]:
        """Of workers without a job, longest first, those that had none for too long."""
        latest = self._fleet.now() - self._plan.idle_seconds
        return takewhile(lambda worker: max(worker.since, self._enough_since) < latest, workers)

    def _make_room(self, choosy: Mapping[int, Job]) -> None:
        """Create a worker for a job that none of the idle ones has enough room for."""
        fleet = self._fleet
        for trial_id, job in choosy.items() if fleet.idle else ():
            if trial_id in self._made_for and self._made_for[trial_id].number in fleet.starting:
                continue
            slot = self._placement.slot_for(job, fleet.taken())
            if slot is not None and len(fleet) - len(fleet.aside) >= self._demand.most:
                fleet.discard(next(reversed(fleet.idle.values())))
            elif slot is None and len(fleet) < self._demand.holds and self._breaker.broke(trial_id):
                slot = self._placement.slots(1, fleet.taken())[0]  # those that are idle have a device that it broke
            if slot is not None:
                self._made_for = {key: worker for key, worker in self._made_for.items() if key in choosy}
                self._made_for[trial_id] = fleet.create(slot)
                return

    def end_unsuited(self) -> bool:
        """End the workers without jobs whose share of a GPU is not what it was, and who would take their place.

        And one that others are to have.

        Returns:
            Whether all were looked at, because placement has changed: else only those that have become idle.
        """
        while self._to_give_back > 0 and self._fleet.idle:
            self._to_give_back -= 1
            self._demand.give_back()
            self._fleet.discard(next(reversed(self._fleet.idle.values())))
        fleet, has_changed = self._fleet, self._placed != self._placement.version
        self._placed = self._placement.version
        workers = [*fleet.starting.values(), *fleet.idle.values()] if has_changed else [*fleet.fresh.values()]
        unsuited = [worker for worker in workers if not self._placement.suits(worker)]
        for worker in unsuited + (fleet.on(None) if unsuited else []):
            if worker in fleet:
                fleet.discard(worker)
        return has_changed

    # -- starting -----------------------------------------------------------------------------------------

    def has_started(self, worker: Worker, place: Place) -> None:
        """A worker is there: it may have the room of one that was to be made on its node."""
        if place.no_mps is not None:
            self._placement.note_no_mps(place.node_id)
            if place.no_mps not in self._no_mps:
                self._no_mps.add(place.no_mps)
                host = self.host(place.node_id)
                _log.warning("workers that share a GPU of %s take turns on it, without MPS: %s", host, place.no_mps)
        self._failed_starts = 0
        if worker.slot.node_id is None:
            aimed = [other for other in self._fleet.on(worker.node_id) if other.node_id is None]
            if aimed:
                self._fleet.discard(aimed[0])

    def has_not_started(self, worker: Worker, error: Exception | str) -> Exception | None:
        """A worker could not start, for this reason: another will be created a little later; None, or the search ends.

        Raises:
            AuthenticationError: as `look`.
        """
        self._fleet.discard(worker)
        if worker.slot.node_id is not None:
            self._node_watch.hurry()
            self.look()
            if worker.slot.node_id in self._dead:
                return None
        self._failed_starts += 1
        self._create_after = self._fleet.now() + 2.0 ** min(self._failed_starts - 2, 6)
        message = one_line(error) if isinstance(error, RayTaskError) else first_line(error)
        if isinstance(error, ActorDiedError) and (words := words_of(error)):
            message += f"; its last line: {words[-1].strip()}"
        _log.warning("a worker could not start: %s", message)
        if self._failed_starts < _FAILED_STARTS or self._fleet.has_begun:
            return None
        inner: Any = cause(error) if isinstance(error, RayTaskError) else None
        if isinstance(inner, NaoRayError):
            return inner
        return RunError(f"no worker can start, tried {self._failed_starts} times: {message}")
