"""Evaluations on a Ray cluster: one worker actor per device or share of it (`placement`), results as they finish.

Workers are elastic: no more than there is work, and no more than the cluster holds or may come to hold (`demand`); a
worker whose creation hangs (no node has room) holds up nobody, and is the demand an autoscaler sees. A worker that
dies, is killed for memory, no longer answers or sits on a dead node is replaced, and its job reported at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nao_ray.errors import NaoRayError, PoolError, RunError
from nao_ray.evaluators.base import Evaluator
from nao_ray.search.clock import Clock, WallClock
from nao_ray.search.executor import Completion, Failure, Job, WeightsStore
from nao_ray.service.fleet.actors import EvaluatorActor, Report, Weights, cause, one_line
from nao_ray.service.fleet.backlog import Backlog
from nao_ray.service.fleet.demand import Demand
from nao_ray.service.fleet.gang import Gang
from nao_ray.service.fleet.nodes import NodeWatch
from nao_ray.service.fleet.placement import Placement, SharedGpus
from nao_ray.service.fleet.worker import Slot, Worker, WorkerPlan, find_processes
from nao_ray.trial import FailureKind, Measurement

_log = logging.getLogger(__name__)

Outcome = Measurement | Failure

_FAILED_STARTS = 3  # workers that could not start, one after the other and none else there: it is not the node
_WAITING_SECONDS = 60.0  # without any worker that has started, before we say so
_TURN_SECONDS = 5.0  # a turn of the loop is shorter, unless the driver was stopped or had to wait for a disk
_GATHER_SECONDS = 0.002  # after a result, for those that come with it: they are recorded in one write


class RayExecutor:
    """Runs jobs on worker actors. `ray.init` comes before, `close` after."""

    def __init__(
        self,
        make: Callable[[], Evaluator[Any]],
        plan: WorkerPlan | None = None,
        clock: Clock | None = None,
        weights: WeightsStore | None = None,
    ) -> None:
        """As described above; `make` is called in each worker, versions of shared weights are read from `weights`."""
        self._make, self._plan, self._clock = make, plan or WorkerPlan(), clock or WallClock()
        self._store, self._published = weights, dict[str, Weights]()
        self._gang = Gang(self._plan.gather_seconds, owns_device=(self._plan.gpus or 0) >= 1)
        self._placement = (Placement if self._plan.gpus is not None else SharedGpus)(self._plan)
        self._actor = ray.remote(  # once: each class made is exported to the whole cluster
            num_cpus=self._plan.cpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 1},
        )(EvaluatorActor)
        self._queue = Backlog(self._plan.at_once)
        self._workers: list[Worker] = []
        self._ended: list[Completion] = []
        self._nodes: dict[str, str] = {}  # ever seen: id -> host name
        self._dead: set[str] = set()
        self._demand = Demand(self._plan.count)
        self._expected: int | None = 0  # jobs that may come; None: no limit
        self._enough_since = self._clock.seconds()
        self._node_watch = NodeWatch(self._plan.watch_seconds)
        self._warned = self._clock.seconds()
        self._failed_starts = 0
        self._checked = self._clock.seconds()
        self._create_after = self._clock.seconds()
        self._watch()

    # -- the protocol -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Jobs for the workers that the plan wants and the cluster holds, at least 1."""
        return self._demand.present * self._plan.at_once

    def expect(self, jobs: int | None) -> None:
        self._expected = jobs

    def submit(self, job: Job) -> None:
        self._queue.add(job)
        self._adjust()

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        """As the protocol; returns within a second.

        Raises:
            PoolError: a version of shared weights is gone, or of another supernet.
            RunError: no worker can start.
        """
        slice_seconds = min(1.0, timeout if timeout is not None else 1.0)
        self._watch()
        self._adjust()
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        handles = [*calls, *wake]
        gather = 0.0
        if not self._ended:
            if not handles:
                self._clock.sleep(min(slice_seconds, 0.05))
            elif ray.wait(handles, num_returns=1, timeout=slice_seconds)[0]:
                gather = min(_GATHER_SECONDS, slice_seconds)
        if calls:
            for call in ray.wait(list(calls), num_returns=len(calls), timeout=gather)[0]:
                if calls[call] in self._workers:  # not ended with its group
                    self._take(calls[call])
        self._end_overdue()
        self._adjust()
        ended, self._ended = self._ended, []
        return ended

    def withdraw(self) -> list[Job]:
        return self._queue.clear()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._queue.clear()

    # -- workers come and go ------------------------------------------------------------------------------

    def _adjust(self) -> None:
        """Give jobs to idle workers; create workers for the rest, retire those without work."""
        now = self._clock.seconds()
        if self._queue.is_phase_next:
            members = self._gang.members(self._workers, self._gang_size, now)
            if members:
                self._train(members, now)
        self._end_unsuited()
        idle = [worker for worker in self._workers if worker.call is None]
        for worker in list(idle):
            jobs = self._queue.take(partial(self._placement.takes, worker), len(idle))
            if jobs:
                self._give(worker, jobs)
                idle.remove(worker)
        wanted = self._demand.wanted(self._work)
        surplus = max(0, len(self._workers) - wanted)
        if not surplus:
            self._enough_since = now  # a pause between two rounds withdraws nothing
        starting = [worker for worker in self._workers if worker.node_id is None]
        for worker in [*starting, *idle][:surplus]:
            if now - max(worker.since, self._enough_since) > self._plan.idle_seconds:
                self._discard(worker)
        if now >= self._create_after:
            self._make_room([worker for worker in idle if worker in self._workers])
            for _ in range(wanted - len(self._workers)):
                self._create(self._placement.slot(self._workers))

    def _end_unsuited(self) -> None:
        """End the workers without jobs whose share of a GPU is not what it was, and who would take their place."""
        unsuited = [worker for worker in self._workers if not worker.jobs and not self._placement.suits(worker)]
        if unsuited:
            unsuited += [worker for worker in self._workers if worker.place is None]
        for worker in unsuited:
            self._discard(worker)

    def _make_room(self, idle: list[Worker]) -> None:
        """Create workers for the jobs that none of the idle ones has enough room for, and none that starts."""
        starting = [worker for worker in self._workers if worker.node_id is None]
        for job in [job for job in self._queue if job.proposal.phase is None and idle]:
            if any(self._placement.takes(worker, job) for worker in starting):
                continue
            slot = self._placement.slot_for(job, self._workers)
            if slot is not None:
                if len(self._workers) >= self._demand.most:
                    self._discard(idle.pop())
                self._create(slot)
                return

    @property
    def _work(self) -> float:
        """Workers that would find something to do."""
        busy = sum(bool(worker.jobs) for worker in self._workers)
        if self._gang.is_waiting or any(worker.in_group for worker in self._workers):  # or at the next phase
            return max(busy, self._plan.trained_by or math.inf)
        to_come = math.inf if self._expected is None else math.ceil(self._expected / self._plan.at_once)
        return len(self._queue) + busy + to_come

    @property
    def _gang_size(self) -> int:
        return min(self._demand.present, self._plan.trained_by or self._demand.present)

    def _create(self, slot: Slot) -> None:
        where = NodeAffinitySchedulingStrategy(slot.node_id, soft=False) if slot.node_id else None
        actor = self._actor.options(num_gpus=slot.gpus, scheduling_strategy=where).remote()
        worker = Worker(actor, actor.start.remote(self._make), slot, self._clock.seconds())
        worker.send_ping()
        self._workers.append(worker)

    def _give(self, worker: Worker, jobs: list[Job]) -> None:
        version = jobs[0].proposal.fidelity.weights_version
        weights = None if version is None else self._publish(version)
        call = worker.actor.evaluate.remote([job.proposal for job in jobs], weights)
        worker.begin(jobs, call, self._clock.seconds())

    def _train(self, members: list[Worker], now: float) -> None:
        """Start the phase that is next."""
        job = self._queue.take_phase()
        assert job.proposal.phase is not None
        source = job.proposal.phase.source
        try:
            self._gang.start(job, members, None if source is None else self._publish(source), now)
        except RayError as error:
            members[0].jobs = [job]
            self._lose(members[0], FailureKind.LOST, error)

    def _publish(self, version: str) -> Weights:
        """The version in the object store, put there once."""
        if version not in self._published:
            if self._store is None:
                raise RunError("a proposal needs shared weights, and there is no pool to keep them")
            while len(self._published) > 1:
                self._published.pop(next(iter(self._published)))
            self._published[version] = Weights(version, (ray.put(self._store.read_weights(version)),))
        return self._published[version]

    def _discard(self, worker: Worker) -> None:
        worker.kill()
        self._workers.remove(worker)

    # -- calls end ----------------------------------------------------------------------------------------

    def _take(self, worker: Worker) -> None:
        """A call of a worker has ended."""
        try:
            result = ray.get(worker.call)
        except RayTaskError as error:
            if worker.node_id is None:
                self._start_failed(worker, error)
            elif isinstance(cause(error), PoolError):  # no architecture's fault
                raise cause(error) from None
            elif isinstance(cause(error), RayError):  # nor is what the cluster has lost
                self._fail(worker, FailureKind.LOST, one_line(error))
            else:
                self._fail(worker, FailureKind.ERROR, one_line(error))
            return
        except OutOfMemoryError as error:
            self._lose(worker, FailureKind.OUT_OF_MEMORY, error)
            return
        except RayError as error:  # died, unavailable, its node died: whatever it did, it is another's turn
            self._lose(worker, FailureKind.LOST, error)
            return
        worker.call, worker.since = None, self._clock.seconds()
        if worker.node_id is None:
            worker.node_id, self._failed_starts = result.node_id, 0
            others = [other for other in self._workers if other.slot.node_id == worker.node_id]
            if worker.slot.node_id is None and any(other.node_id is None for other in others):
                self._discard(next(other for other in others if other.node_id is None))  # this one has taken its room
            return
        jobs, worker.jobs = worker.jobs, []
        if worker.in_group:
            self._took_part(worker, jobs[0], result)
        elif result.is_spent and len(jobs) > 1:  # one of them broke it for those after it
            self._queue.put_back(jobs)
        else:
            self._end(jobs, result.outcomes, worker, result)
        if result.is_spent and worker in self._workers:
            self._discard(worker)

    def _took_part(self, worker: Worker, job: Job, report: Report) -> None:
        """A member of a group has done its part; the first one brings the weights, a failure ends the phase for all."""
        worker.in_group = False
        if isinstance(report.outcomes[0], Failure):
            self._break_up()
        elif report.weights is None:
            return
        else:
            self._gang.note_end(self._clock.seconds())
        self._end([job], report.outcomes, worker, report)

    def _break_up(self) -> None:
        """End the others of a group: without one of them they would wait for ever."""
        for other in [worker for worker in self._workers if worker.in_group]:
            self._discard(other)

    def _end(self, jobs: Sequence[Job], outcomes: Sequence[Outcome], worker: Worker, report: Report) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if self._placement.learn(worker, job, outcome, report.device_memory_bytes):
                self._queue.put_back([job])
                continue
            completion = Completion(
                trial_id=job.proposal.trial_id,
                attempt=job.attempt,
                outcome=outcome,
                weights=report.weights,
                node=self._nodes.get(worker.node_id or "", worker.node_id),
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
            self._fail(worker, kind, _first_line(error))

    def _fail(self, worker: Worker, kind: FailureKind, message: str) -> None:
        """End a worker and its jobs."""
        self._discard(worker)
        if worker.in_group:
            self._break_up()
        if kind is FailureKind.LOST:  # perhaps with its node: what is idle there would lose the next one, too
            for other in [other for other in self._workers if other.node_id == worker.node_id and not other.jobs]:
                self._discard(other)
        if len(worker.jobs) > 1:  # which of them it was, nobody knows
            self._queue.put_back(worker.jobs)
            return
        now = datetime.now(UTC)
        report = Report((), None, worker.started_at or now, now, is_spent=True)
        self._end(worker.jobs, [Failure(kind, message)] * len(worker.jobs), worker, report)

    def _start_failed(self, worker: Worker, error: Exception | str) -> None:
        self._discard(worker)
        if worker.slot.node_id is not None:
            self._node_watch.hurry()
            self._watch()
            if worker.slot.node_id in self._dead:
                return
        self._failed_starts += 1
        self._create_after = self._clock.seconds() + 2.0 ** min(self._failed_starts - 2, 6)
        is_known = isinstance(error, RayTaskError)
        message = one_line(error) if is_known else _first_line(error)
        _log.warning("a worker could not start: %s", message)
        for other in self._workers:
            other.hear(self._clock.seconds())
        if self._failed_starts < _FAILED_STARTS or any(other.is_there for other in self._workers):
            return
        if is_known and isinstance(cause(error), NaoRayError):
            raise cause(error)
        raise RunError(f"no worker can start, tried {self._failed_starts} times: {message}")

    # -- what Ray does not notice -------------------------------------------------------------------------

    def _end_overdue(self) -> None:
        now, limit = self._clock.seconds(), self._plan.timeout_seconds
        slept, self._checked = now - self._checked, now
        if slept > _TURN_SECONDS:  # this driver stood still, which is nobody's silence
            for worker in self._workers:
                worker.heard += slept
        starting = [worker for worker in self._workers if not worker.is_there]
        find_processes([worker for worker in starting if now - worker.heard > self._plan.ping_seconds], now)
        for worker in [worker for worker in self._workers if worker.call is not None]:
            if worker not in self._workers:
                continue  # ended with its group
            worker.hear(now)
            if worker.in_group and self._gang.is_overdue(now):
                self._discard(worker)
            elif limit is not None and worker.jobs and not worker.in_group and now - worker.since > limit:
                self._fail(worker, FailureKind.TIMEOUT, f"took longer than workers.timeout_seconds {limit:g}")
            elif worker.is_there and now - worker.heard > self._plan.silent_seconds:
                silence = f"no sign of life for {now - worker.heard:.0f} s, see workers.silent_seconds"
                self._lose(worker, FailureKind.LOST, silence)
            elif worker.ping is None and now - worker.heard > self._plan.ping_seconds:
                worker.send_ping()

    def _watch(self) -> None:
        """Look at the nodes: capacity, and workers whose node is dead although their calls still wait.

        Raises:
            AuthenticationError: the cluster is gone, another has its address (`one_cluster`).
        """
        now = self._clock.seconds()
        found = self._node_watch.look(now)
        if found is None:
            return
        alive = {node.node_id: node for node in found if node.is_alive}
        self._demand.look(self._placement.look({key: node.resources for key, node in alive.items()}), now)
        self._nodes.update({key: node.host for key, node in alive.items()})
        self._dead = {node.node_id for node in found if not node.is_alive}
        for worker in [worker for worker in self._workers if worker.node_id in self._dead]:
            if worker in self._workers:  # not ended with its group
                self._fail(worker, FailureKind.LOST, "the node died")
        self._warn_of_waiting(now)

    def _warn_of_waiting(self, now: float) -> None:
        since = [worker.since for worker in self._workers if worker.node_id is None]
        if len(since) < len(self._workers) or not since or now - max(min(since), self._warned) < _WAITING_SECONDS:
            return
        self._warned = now
        wants = f"{self._plan.cpus:g} CPUs and {self._workers[0].slot.gpus:g} GPUs"
        _log.warning("no worker has started for %.0f s; each wants %s on one node", now - min(since), wants)


def _first_line(error: Exception | str) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, str) else f"{type(error).__name__}: {text}"[:500]
