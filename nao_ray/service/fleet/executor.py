"""Evaluations on a Ray cluster: one worker actor per device or share of it (`placement`), results as they finish.

Workers are elastic: no more than there is work, and no more than the cluster holds or may come to hold (`demand`); a
worker whose creation hangs (no node has room) holds up nobody, and is the demand an autoscaler sees. A worker that
dies, is killed for memory, no longer answers or sits on a dead node is replaced, and its job reported at once.

What a turn does is as much as has changed since the last one, however many workers there are: `submit` only queues,
and `wait` gives out what has come. Who the workers are is the `fleet`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from nao_ray.errors import NaoRayError, PoolError, StorageError
from nao_ray.evaluators.base import Evaluator
from nao_ray.search.clock import Clock, WallClock
from nao_ray.search.executor import Completion, Failure, Job, WeightsStore
from nao_ray.service.fleet.actors import Place, Report, Weights, cause, first_line, one_line
from nao_ray.service.fleet.backlog import Backlog
from nao_ray.service.fleet.calls import Ended
from nao_ray.service.fleet.fleet import Fleet
from nao_ray.service.fleet.gang import Gang, Gangs
from nao_ray.service.fleet.ladder import Span
from nao_ray.service.fleet.placement import Placement, SharedGpus
from nao_ray.service.fleet.quarantine import Quarantine
from nao_ray.service.fleet.remote import RayRemote, Remote
from nao_ray.service.fleet.staffing import Staffing
from nao_ray.service.fleet.versions import Versions, version_of
from nao_ray.service.fleet.worker import Worker, WorkerPlan
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Interim, Measurement

_log = logging.getLogger(__name__)

_SHUN_SECONDS = 60.0  # a trial waits so long for a device other than those that it broke, or for a node of its own

Outcome = Measurement | Failure


class RayExecutor:
    """Runs jobs on worker actors. `ray.init` comes before, `close` after."""

    def __init__(
        self,
        make: Callable[[], Evaluator[Any]],
        plan: WorkerPlan | None = None,
        clock: Clock | None = None,
        weights: WeightsStore | None = None,
        remote: Remote | None = None,
        known: Sequence[Shared] = (),
    ) -> None:
        """As described above; `make` is called in each worker, versions of shared weights are read from `weights`.

        `known`: what was found before of sharing GPUs.
        """
        self._plan = plan or WorkerPlan()
        self._remote = remote or RayRemote(self._plan.cpus, mps=self._plan.mps)
        self._fleet = Fleet(make, self._plan, self._remote, clock or WallClock())
        self._versions, self._gangs = Versions(weights, self._remote), Gangs(self._fleet, self._plan)
        self._placement = SharedGpus(self._plan, known) if self._plan.gpus is None else Placement(self._plan)
        self._quarantine = Quarantine(self._fleet, lambda node_id: self._staffing.host(node_id))
        self._breaker, self._solitude = self._quarantine.breaker, self._quarantine.solitude
        self._staffing = Staffing(self._fleet, self._placement, self._breaker, self._plan, self._remote)
        self._queue = Backlog(self._plan.at_once)
        self._tried: set[int] = set()  # trials held in the queue that no worker now idle takes
        self._held: dict[int, float] = {}  # trials held in the queue: since when
        self._expected: int | None = 0  # jobs that may come; None: no limit
        self._ended: list[Completion] = []
        self._error: BaseException | None = None  # to be raised when what had ended before is reported
        self._look()

    # -- the protocol -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Jobs for the workers that the plan wants and the cluster holds, at least 1."""
        return self._staffing.present * self._plan.at_once

    def expect(self, jobs: int | None) -> None:
        self._expected = jobs

    @property
    def aside(self) -> Sequence[str]:
        """Devices and nodes that are given nothing for a while, and why."""
        return self._breaker.aside(self._fleet.now())

    @property
    def sharing(self) -> Sequence[Shared]:
        return self._placement.sharing

    def submit(self, job: Job) -> None:
        if job.proposal.phase is None and self._breaker.broke(job.proposal.trial_id):
            self._hold(job)
        else:
            self._queue.add(job)

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        """As the protocol; returns within a second.

        Raises:
            PoolError: a version of shared weights is gone, or of another supernet.
            RunError: no worker can start.
        """
        self._fleet.now.turn()
        try:
            self._look()
            self._adjust()
            for call in self._fleet.ended(self._patience(timeout, wake), wake):
                self._take(call)
            self._end_overdue()
            self._adjust()
        except (NaoRayError, RayError) as raised:
            self._error = raised
        if self._error is not None and not self._ended:
            error, self._error = self._error, None
            raise error
        ended, self._ended = self._ended, []
        return ended

    def _patience(self, timeout: float | None, wake: Sequence[Any]) -> float:
        """Seconds to wait for a call to end."""
        if self._ended:
            return 0.0
        is_idle = not (self._fleet.busy or self._fleet.starting or wake)
        return min(0.05 if is_idle else 1.0, math.inf if timeout is None else timeout)

    @property
    def waiting(self) -> int:
        # idle workers are given jobs at the next turn; a phase may wait for some of them
        phases = self._queue.phases_next
        each = self._plan.at_once if not phases else self._size_of_gang == 1
        return max(0, len(self._queue) - len(self._fleet.idle) * each)

    def overheard(self) -> list[Interim]:
        found, self._fleet.so_far = self._fleet.so_far, {}
        return [interim for _, interim in sorted(found.items())]

    def withdraw(self) -> list[Job]:
        return self._queue.clear()

    def cancel(self, trial_id: int) -> None:
        """As the protocol: its worker ends with it; what else that one had in hand is another's."""
        self._queue.drop(trial_id)
        self._solitude.end(trial_id)
        self._ended = [ended for ended in self._ended if ended.trial_id != trial_id]
        for worker in list(self._fleet.busy.values()):
            if worker in self._fleet and any(job.proposal.trial_id == trial_id for job in worker.jobs):
                self._discard(worker)
                self._queue.put_back([job for job in worker.jobs if job.proposal.trial_id != trial_id])

    def close(self) -> None:
        self._staffing.close()
        self._fleet.close()
        self._queue.clear()

    # -- workers come and go ------------------------------------------------------------------------------

    def _adjust(self) -> None:
        """Give jobs to idle workers; create workers for the rest, retire those without work."""
        if self._staffing.end_unsuited():
            self._tried.clear()
        if self._quarantine.turn():
            self._tried.clear()
        self._give_out()
        self._staffing.resize(self._work, self._queue.choosy)
        self._say_if_nothing_works()

    def _say_if_nothing_works(self) -> None:
        """Where everything that there is has been set aside, the jobs end: for how long to go on is not ours to say."""
        if not self._queue or self._solitude.nodes or not self._staffing.is_all_aside:
            return
        reason = next(iter(self.aside), None)
        for job in self._queue.clear() if reason else ():
            failure = Failure(FailureKind.ENVIRONMENT, f"every device is set aside, the first: {reason}")
            self._ended.append(Completion(trial_id=job.proposal.trial_id, attempt=job.attempt, outcome=failure))

    def _give_out(self) -> None:
        """Jobs to idle workers: those that are not for every worker first, and before a phase of several workers."""
        fleet = self._fleet
        for trial_id, job in list(self._queue.choosy.items()):
            worker = self._worker_for(trial_id, job)
            if worker is not None:
                self._give(worker, self._queue.take_choosy(trial_id))
                self._held.pop(trial_id, None)
            self._tried.add(trial_id)
        while self._give_next():
            pass
        fleet.fresh.clear()

    def _give_next(self) -> bool:
        """What is next to a worker, or to those of a phase; whether that could be."""
        idle = self._fleet.idle
        if self._queue.phases_next:
            size = self._size_of_gang
            members = [] if size > 1 and self._queue.choosy else self._gangs.members(size)
            if members:
                self._begin_phase(self._queue.take_phase(), members)
            return bool(members)
        jobs = self._queue.take(len(idle)) if idle else []
        if jobs:
            self._give(next(reversed(idle.values())), jobs)
        return bool(jobs)

    def _worker_for(self, trial_id: int, job: Job) -> Worker | None:
        """A worker that takes a job which is not for every one."""
        fleet = self._fleet
        is_late = fleet.now() - self._held.get(trial_id, math.inf) > _SHUN_SECONDS or self._staffing.present == 1
        if (node_id := self._solitude.nodes.get(trial_id)) is not None:
            may_come = self._staffing.is_alive(node_id) and not is_late
            return self._quarantine.worker_alone(trial_id, may_come=may_come)
        shunned = self._breaker.broke(trial_id)
        for worker in (fleet.fresh if trial_id in self._tried else fleet.idle).values():
            if self._placement.takes(worker, job) and (is_late or worker.device not in shunned):
                return worker
        return None

    def _hold(self, job: Job) -> None:
        """A job that not every worker takes is to be done before others."""
        self._queue.hold(job)
        self._held[job.proposal.trial_id] = self._fleet.now()
        self._tried.discard(job.proposal.trial_id)

    @property
    def _work(self) -> float:
        """Workers that would find something to do."""
        busy = len(self._fleet.busy)
        phases = self._queue.phases_next
        others = len(self._queue) - phases + busy - len(self._fleet.group)
        to_come = math.inf if self._expected is None else math.ceil(self._expected / self._plan.at_once)
        return max(busy, others + self._gangs.wanted(phases) + to_come)

    @property
    def _size_of_gang(self) -> int:
        return self._gangs.size(self._queue.phases_next, self._staffing.present)

    def _give(self, worker: Worker, jobs: list[Job]) -> None:
        if jobs[0].proposal.phase is not None:
            self._begin_phase(jobs[0], [worker])
        else:
            call = worker.actor.evaluate.remote([job.proposal for job in jobs], self._weights_of(jobs[0]))
            self._fleet.begin(worker, jobs, call)

    def _begin_phase(self, job: Job, members: Sequence[Worker]) -> None:
        try:
            self._gangs.begin(job, members, self._weights_of(job))
        except (RayError, TimeoutError) as error:
            members[0].jobs = [job]
            self._lose(members[0], FailureKind.LOST, error)

    def _weights_of(self, job: Job) -> Weights | None:
        """The version that a job needs, where the workers find it."""
        version, busy = version_of(job), self._fleet.busy.values()
        jobs = chain(self._queue, (open_job for worker in busy for open_job in worker.jobs))
        return None if version is None else self._versions.put(version, jobs)

    # -- calls end ----------------------------------------------------------------------------------------

    def _take(self, ended: Ended) -> None:
        """A call of a worker has ended; an error that ends the search is kept for when all have been taken."""
        worker = ended.worker
        try:
            result = ended.result.result()
        except RayTaskError as error:
            if worker.node_id is None:
                self._start_failed(worker, error)
            elif isinstance(cause(error), PoolError | StorageError):  # no architecture's fault
                self._error = self._error or cause(error)
            else:  # nor is what the cluster has lost
                kind = FailureKind.LOST if isinstance(cause(error), RayError) else FailureKind.ERROR
                self._fail(worker, kind, one_line(error), self._last_words(worker, error))
        except OutOfMemoryError as error:
            if self._quarantine.is_tried_alone(worker, worker.jobs, "was ended for memory"):
                self._discard(worker)
                self._hold(worker.jobs[0])
            else:
                self._lose(worker, FailureKind.OUT_OF_MEMORY, error)
        except RayError as error:  # died, unavailable, its node died: whatever it did, it is another's turn
            self._lose(worker, FailureKind.LOST, error)
        else:
            if worker.node_id is None:
                self._has_started(worker, result)
            else:
                self._has_answered(worker, result)

    def _has_started(self, worker: Worker, place: Place) -> None:
        self._fleet.has_started(worker, place)
        self._staffing.has_started(worker, place)
        self._quarantine.take_in_start(worker, place.fault)

    def _has_answered(self, worker: Worker, report: Report) -> None:
        gang, took = worker.gang, self._fleet.now() - worker.since
        jobs, now = self._fleet.rest(worker), self._fleet.now()
        failures = [outcome for outcome in report.outcomes if isinstance(outcome, Failure)]
        is_well, is_broken = not failures, any(failure.is_of_device for failure in failures)
        self._placement.note_call(worker, jobs[0], Span(now - took, now), self._fleet.beside(worker), well=is_well)
        if is_well:
            self._fleet.limits.note(jobs, took)
        if gang is not None:
            self._took_part(gang, worker, jobs[0], report)
        elif report.is_spent and len(jobs) > 1:  # one of them broke it for those after it
            self._queue.put_back(jobs)
        elif is_broken and self._quarantine.is_tried_alone(worker, jobs, "met an error of its GPU", by_device=True):
            self._hold(jobs[0])  # MPS tells all of a GPU, and not whose it was
        else:
            self._end(jobs, report.outcomes, worker, report)
        if report.is_spent and worker in self._fleet:
            (self._discard if is_broken else self._fleet.discard)(worker)

    def _took_part(self, gang: Gang, worker: Worker, job: Job, report: Report) -> None:
        """A member has done its part; the first one brings the weights, a failure ends the phase for all."""
        if gang not in self._gangs.at_work:  # one whose phase has ended
            return
        if isinstance(report.outcomes[0], Failure):
            self._gangs.break_up(gang)
        elif report.weights is None:
            return
        else:
            self._gangs.end(gang)
        self._end([job], report.outcomes, worker, report)

    def _end(self, jobs: Sequence[Job], outcomes: Sequence[Outcome], worker: Worker, report: Report) -> None:
        for job, given in zip(jobs, outcomes, strict=True):
            outcome = self._quarantine.judge(worker, job, given)
            if self._placement.learn(worker, job, outcome, report.gpu):
                self._hold(job)
                continue
            self._solitude.end(job.proposal.trial_id)
            completion = Completion(
                trial_id=job.proposal.trial_id,
                attempt=job.attempt,
                outcome=outcome,
                weights=report.weights,
                node=self._staffing.host(worker.node_id),
                device=report.device,
                started_at=report.started_at,
                finished_at=report.finished_at,
            )
            self._ended.append(completion)

    def _lose(self, worker: Worker, kind: FailureKind, error: Exception | str) -> None:
        """A worker is gone, or as good as gone."""
        if worker.node_id is None:
            self._start_failed(worker, error)
        else:
            self._fail(worker, kind, first_line(error), self._last_words(worker, error))

    def _last_words(self, worker: Worker, error: Exception | str) -> str:
        """What there is to understand the end of a worker by."""
        printed = self._remote.last_words(worker) if len(worker.jobs) == 1 else ""
        return printed if isinstance(error, str) else f"{error}\n\n{printed}".rstrip()

    def _start_failed(self, worker: Worker, error: Exception | str) -> None:
        self._error = self._staffing.has_not_started(worker, error) or self._error

    def _fail(self, worker: Worker, kind: FailureKind, message: str, log: str = "") -> None:
        """End a worker and its jobs."""
        is_over = self._gangs.is_over(worker)
        self._discard(worker)
        if kind is FailureKind.LOST:  # perhaps with its node: what is idle there would lose the next one, too
            for other in [other for other in self._fleet.on(worker.node_id) if other.number in self._fleet.idle]:
                self._fleet.discard(other)
        if is_over:  # its phase has ended well
            return
        if len(worker.jobs) > 1:  # which of them it was, nobody knows
            self._queue.put_back(worker.jobs)
            return
        now = datetime.now(UTC)
        report = Report((), None, worker.started_at or now, now, is_spent=True)
        self._end(worker.jobs, [Failure(kind, message, log=log)] * len(worker.jobs), worker, report)

    def _discard(self, worker: Worker) -> None:
        """End a worker in the middle; those beside it under MPS, whose state is undefined then, begin again."""
        self._gangs.discard(worker)
        for other in self._fleet.on(worker.node_id) if worker.under_mps else ():
            if other in self._fleet and other.under_mps and other.device == worker.device:
                is_over = self._gangs.is_over(other)
                self._gangs.discard(other)
                self._queue.put_back([] if is_over else other.jobs)

    # -- what Ray does not notice -------------------------------------------------------------------------

    def _end_overdue(self) -> None:
        self._gangs.end_overdue()
        for worker, failure in self._fleet.check():
            self._lose(worker, failure.kind, failure.message)

    def _look(self) -> None:
        for worker in self._staffing.look():
            if worker in self._fleet:  # not ended with its group
                self._fail(worker, FailureKind.LOST, "the node died")
