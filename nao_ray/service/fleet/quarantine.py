"""Workers that are there and are given nothing for a while: their device is set aside, or their node kept for a trial.

They stay, so that Ray gives their device to nobody else. One that is idle and barred is put aside at the next turn, and
once a second those aside are looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain

from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.breaker import SEVERAL, Breaker
from nao_ray.service.fleet.fleet import Fleet
from nao_ray.service.fleet.solitude import Solitude
from nao_ray.service.fleet.worker import Worker
from nao_ray.trial import FailureKind, Measurement

_log = logging.getLogger(__name__)

_RECALL_SECONDS = 1.0


class Quarantine:
    """Puts workers of a fleet aside, and calls them back."""

    def __init__(self, fleet: Fleet, host: Callable[[str], str | None]) -> None:
        """As described above; `host` names a node for people."""
        self._fleet, self._host = fleet, host
        self.breaker, self.solitude = Breaker(host), Solitude()
        self._recall_at = 0.0

    def turn(self) -> bool:
        """Put aside who is idle and barred. Whether those aside were looked at, too."""
        fleet, now = self._fleet, self._fleet.now()
        for worker in [worker for worker in fleet.fresh.values() if self._is_barred(worker)]:
            fleet.bench(worker)
        if now < self._recall_at:
            return False
        self._recall_at = now + _RECALL_SECONDS
        for worker in [worker for worker in fleet.aside.values() if not self._is_barred(worker)]:
            (fleet.discard if worker.is_spent else fleet.recall)(worker)
        return True

    def _is_barred(self, worker: Worker) -> bool:
        device = worker.device
        return self.breaker.is_aside(device, self._fleet.now()) or self.solitude.keeps(device.node_id)

    def _clear(self, node_id: str) -> None:
        """Put aside who is idle on a node, of which something is known now."""
        for worker in self._fleet.on(node_id):
            if worker.number in self._fleet.idle and self._is_barred(worker):
                self._fleet.bench(worker)

    # -- devices ------------------------------------------------------------------------------------------

    def take_in_start(self, worker: Worker, fault: str | None) -> None:
        """A worker has started; where its device is at fault, another is to come, or it keeps the device."""
        if fault is None:
            return
        self.breaker.failed(worker.device, ("start", worker.number), fault, self._fleet.now())
        self._clear(worker.device.node_id)
        if worker.number in self._fleet.idle:
            self._fleet.discard(worker)

    def judge(self, worker: Worker, job: Job, outcome: Measurement | Failure) -> Measurement | Failure:
        """What an outcome says of the device; and what it is to count as, if it is the device's."""
        trial_id, fleet = job.proposal.trial_id, self._fleet
        if isinstance(outcome, Measurement):
            self.breaker.worked(worker.device, trial_id)
        elif outcome.is_of_device:
            others = (other.device for other in chain(fleet.busy.values(), fleet.idle.values()))
            several = 1 if job.proposal.phase is not None else SEVERAL  # which takes long
            outcome = self.breaker.judge(worker.device, trial_id, outcome, fleet.now(), others, several=several)
            self._clear(worker.device.node_id)
        elif outcome.kind is not FailureKind.LOST:
            self.breaker.forget(trial_id)
        return outcome

    # -- nodes --------------------------------------------------------------------------------------------

    def is_tried_alone(self, worker: Worker, jobs: Sequence[Job], what: str, *, by_device: bool = False) -> bool:
        """A worker ended with these jobs, perhaps for a neighbour's sake; whether its trial gets the node for itself.

        Args:
            worker: that ended.
            jobs: that it had.
            what: it has met.
            by_device: a neighbour is who computes on the device at the same time, else who is on the node.
        """
        fleet, node_id = self._fleet, worker.node_id
        beside = [other for other in fleet.on(node_id) if other.number in fleet.busy and other is not worker]
        if by_device:
            beside = [other for other in beside if other.device == worker.device and worker.under_mps]
        is_with_others = worker.gang is not None and len(worker.gang.members) > 1
        if node_id is None or not beside or is_with_others or len(jobs) != 1:
            return False
        trial_id = jobs[0].proposal.trial_id
        if self.solitude.had(trial_id):
            return False
        _log.warning(
            "trial %d %s beside %d others on %s: tried once more with nothing beside it",
            *(trial_id, what, len(beside), self._host(node_id)),
        )
        self.solitude.want(trial_id, node_id)
        self._clear(node_id)
        return True

    def worker_alone(self, trial_id: int, *, may_come: bool) -> Worker | None:
        """A worker for a trial that has a node for itself, once the node is quiet.

        Where none of ours is there, one `may_come`: under MPS all of a GPU end together.
        """
        fleet = self._fleet
        here = fleet.on(self.solitude.nodes[trial_id])
        if not here and not may_come:
            self.solitude.give_up(trial_id)
        is_quiet = not any(worker.number in fleet.busy for worker in here)
        waiting = (worker for worker in here if worker.number in fleet.aside and not worker.is_spent)
        return next(waiting, None) if is_quiet else None
