"""The workers: who starts, who is idle, who is busy, on which node, and who gives no sign of life any more.

Nothing here looks at all workers but `close`: each is in one of three sets, in the order it came to it, and on a list
of when it is to be looked at next (`liveness`); what has ended is told by Ray (`calls`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from nao_ray.evaluators.base import Evaluator
from nao_ray.search.clock import Clock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.actors import Place
from nao_ray.service.fleet.breaker import Device
from nao_ray.service.fleet.calls import Calls, Ended
from nao_ray.service.fleet.limits import TimeLimits
from nao_ray.service.fleet.liveness import AwakeSeconds, Watchlist
from nao_ray.service.fleet.nodes import HeadAwayError
from nao_ray.service.fleet.remote import Remote
from nao_ray.service.fleet.worker import Slot, Worker, WorkerPlan
from nao_ray.trial import FailureKind, Interim

if TYPE_CHECKING:
    from nao_ray.service.fleet.gang import Gang

Workers = dict[int, Worker]
"""By number, in the order they came."""


class Fleet:
    """Workers, each of which is starting, idle, busy or aside."""

    def __init__(self, make: Callable[[], Evaluator[Any]], plan: WorkerPlan, remote: Remote, clock: Clock) -> None:
        """As described above; `make` is called in each worker."""
        self._make, self._plan, self._remote = make, plan, remote
        self.now = AwakeSeconds(clock)
        self.limits = TimeLimits(plan.timeout_seconds)
        self.starting: Workers = {}
        self.idle: Workers = {}
        """Longest first."""
        self.aside: Workers = {}
        """Without a job, and given none: they keep a device from others, or a node quiet."""
        self.busy: Workers = {}
        self.group: Workers = {}
        """Of the busy ones, those at a phase."""
        self.fresh: Workers = {}
        """Of the idle ones, those that were not when this was last emptied."""
        self.so_far: dict[int, Interim] = {}
        """What trainings under way have told with a sign of life, by trial, since whoever heeds it took it."""
        self._places: defaultdict[str, Workers] = defaultdict(dict)
        self._placeless: Workers = {}  # starting, wherever there is or will be room
        self._numbers = count()
        self._calls, self._watchlist = Calls(), Watchlist()

    def __len__(self) -> int:
        return len(self.starting) + len(self.idle) + len(self.busy) + len(self.aside)

    def __contains__(self, worker: Worker) -> bool:
        return any(worker.number in workers for workers in (self.busy, self.idle, self.starting, self.aside))

    # -- where they are -----------------------------------------------------------------------------------

    @property
    def nodes(self) -> Collection[str]:
        """Those with workers, or with some to come."""
        return self._places.keys()

    def on(self, node_id: str | None) -> list[Worker]:
        """The workers of a node, also those that are to be made there; None: those that may be made anywhere."""
        return list(self._placeless.values() if node_id is None else self._places.get(node_id, {}).values())

    def beside(self, worker: Worker) -> Iterator[float]:
        """Since when other workers of a device are busy."""
        return (
            other.since
            for other in self.on(worker.place)
            if other.number in self.busy and other.device == worker.device and other is not worker
        )

    @property
    def placeless(self) -> Collection[Worker]:
        """Those that start, wherever there is room."""
        return self._placeless.values()

    def taken(self) -> dict[str, int]:
        """Workers by node."""
        return {node_id: len(workers) for node_id, workers in self._places.items()}

    @property
    def has_begun(self) -> bool:
        """A worker has a process; to be asked where no worker has started is well."""
        return bool(self.idle or self.busy or self.aside) or any(worker.is_there for worker in self.starting.values())

    # -- coming and going ---------------------------------------------------------------------------------

    def create(self, slot: Slot) -> Worker:
        """A further worker, which starts."""
        worker = Worker(next(self._numbers), self._remote.create(slot), slot, self.now())
        self.starting[worker.number] = worker
        (self._placeless if slot.node_id is None else self._places[slot.node_id])[worker.number] = worker
        self._call(worker, worker.actor.start.remote(self._make))
        self._ping(worker)
        self._watch(worker)
        return worker

    def has_started(self, worker: Worker, place: Place) -> None:
        """It is on this node, and idle."""
        worker.node_id, worker.device = place.node_id, Device(place.node_id, place.device)
        worker.waits = False
        worker.is_spent, worker.files, worker.under_mps = place.fault is not None, place.files, place.under_mps
        self._placeless.pop(worker.number, None)
        self._places[worker.place or place.node_id][worker.number] = worker
        self.rest(worker)

    def begin(self, worker: Worker, jobs: list[Job], call: Any, gang: Gang | None = None) -> None:  # noqa: ANN401
        """A call for these jobs was made; of a phase, with whom it is carried out."""
        self._forget_state(worker)
        self.busy[worker.number] = worker
        if gang is not None:
            self.group[worker.number] = worker
        now = self.now()
        worker.jobs, worker.gang, worker.since, worker.started_at = jobs, gang, now, datetime.now(UTC)
        worker.heard, worker.ping, worker.is_there = now, None, True
        self._call(worker, call)
        self._watch(worker)

    def rest(self, worker: Worker) -> list[Job]:
        """Its call has ended: it is idle; these were its jobs."""
        self._forget_state(worker)
        worker.ended += bool(worker.jobs)
        self.idle[worker.number] = self.fresh[worker.number] = worker
        jobs, worker.jobs, worker.call, worker.gang, worker.since = worker.jobs, [], None, None, self.now()
        return jobs

    def bench(self, worker: Worker) -> None:
        """It is given no job from now on."""
        self._forget_state(worker)
        self.aside[worker.number] = worker

    def recall(self, worker: Worker) -> None:
        """One that was aside is idle again."""
        self._forget_state(worker)
        self.idle[worker.number] = self.fresh[worker.number] = worker
        worker.since = self.now()

    def discard(self, worker: Worker) -> None:
        """End it, whatever it does."""
        self._remote.kill(worker.actor)
        self._forget_state(worker)
        self._placeless.pop(worker.number, None)
        if worker.place is not None and (here := self._places.get(worker.place)):
            here.pop(worker.number, None)
            if not here:
                del self._places[worker.place]

    def close(self) -> None:
        """End all."""
        for worker in [*self.starting.values(), *self.idle.values(), *self.busy.values(), *self.aside.values()]:
            self.discard(worker)

    def _forget_state(self, worker: Worker) -> None:
        for workers in (self.starting, self.idle, self.busy, self.aside, self.group, self.fresh):
            workers.pop(worker.number, None)
        self._watchlist.drop(worker)

    # -- calls --------------------------------------------------------------------------------------------

    def ended(self, timeout: float, wake: Sequence[Any] = ()) -> Iterator[Ended]:
        """Calls of workers that have ended; waits for one as `Calls.take`. A worker may be discarded meanwhile."""
        found = self._calls.take(timeout, wake)
        self.now.turn()
        for ended in found:
            worker = ended.worker
            if worker not in self:
                continue
            if ended.call is worker.call:
                yield ended
            elif ended.call is worker.ping and ended.result.exception() is None:  # else its own call says what is wrong
                worker.heard, worker.ping, worker.is_there = self.now(), None, True
                if (so_far := ended.result.result().so_far) is not None:
                    self.so_far[so_far.trial_id] = so_far
                if worker.call is not None:
                    self._watch(worker)

    def _call(self, worker: Worker, call: Any) -> None:  # noqa: ANN401
        worker.call = call
        self._calls.add(worker, call)

    # -- liveness -----------------------------------------------------------------------------------------

    def check(self) -> Iterator[tuple[Worker, Failure]]:
        """Ask those that were silent for a while for a sign of life; those that took too long, or are lost."""
        now, starting = self.now(), list[Worker]()
        for worker in list(self._watchlist.due(now)):
            seconds = self.limits.of(worker.jobs)
            silent = now - worker.heard
            if worker not in self:
                continue  # it ended with another that was found here
            if seconds is not None and now - worker.since > seconds:
                yield worker, Failure(FailureKind.TIMEOUT, self.limits.message(seconds))
            elif not worker.is_there:
                starting.append(worker)
            elif silent > self._plan.silent_seconds:
                message = f"no sign of life for {silent:.0f} s, see workers.silent_seconds"
                yield worker, Failure(FailureKind.LOST, message)
            else:
                if worker.ping is None and silent > self._plan.ping_seconds:
                    self._ping(worker)
                self._watch(worker)
        self._find_processes(starting, now)

    def _watch(self, worker: Worker) -> None:
        plan = self._plan
        patience = plan.silent_seconds if worker.ping is not None and worker.is_there else plan.ping_seconds
        limit = self.limits.of(worker.jobs)
        moments = [worker.heard + patience, worker.since + (math.inf if limit is None else limit)]
        self._watchlist.set(worker, max(min(moments), self.now()))

    def _ping(self, worker: Worker) -> None:
        """Ask for a sign of life, which a thread of its own gives whatever the actor does."""
        worker.ping = worker.actor.ping.options(concurrency_group="control").remote()
        self._calls.add(worker, worker.ping)

    def _find_processes(self, starting: Sequence[Worker], now: float) -> None:
        """Ask the head which have a process: their silence counts from now on, the others' does not."""
        try:
            found = set(self._remote.with_process([worker.actor for worker in starting])) if starting else set()
        except HeadAwayError:
            found = set()
        for worker in starting:
            if worker in self:
                worker.heard, worker.is_there = now, worker.actor in found
                worker.waits = not worker.is_there
                self._watch(worker)
