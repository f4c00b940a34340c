"""Any number of workers in virtual time: an asynchronous search of days in a second, the same in every process."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nao_ray.evaluators.base import Evaluator
from nao_ray.search.clock import Moment, VirtualClock
from nao_ray.search.executor import Completion, Desk, Failure, Job, WeightsStore
from nao_ray.search.proposer import Answer, answer
from nao_ray.sharing import Shared
from nao_ray.strategies.base import Strategy
from nao_ray.trial import Interim, Measurement, Trial

Outcome = Measurement | Failure


def reported_seconds(_: Job, outcome: Outcome) -> float:
    """The time an evaluation says it took; one second where it does not say, as for failures."""
    seconds = outcome.wall_seconds if isinstance(outcome, Measurement) else None
    return 1.0 if seconds is None else seconds


class SimulatedExecutor:
    """`workers` workers on a virtual clock; jobs that end at the same moment are reported in the order submitted."""

    def __init__(
        self,
        evaluator: Evaluator[Any],
        clock: VirtualClock,
        workers: int = 1,
        duration: Callable[[Job, Outcome], float] = reported_seconds,
        fault: Callable[[Job], Failure | None] = lambda _: None,
        weights: WeightsStore | None = None,
    ) -> None:
        """As described above.

        Args:
            evaluator: what measures; runs when its job starts.
            clock: moved forward to the end of each job.
            workers: jobs at a time, at least 1.
            duration: seconds a job takes, >= 0.
            fault: how the worker fails at a job, instead of a measurement; None where it does not.
            weights: where versions of shared weights are kept.
        """
        if workers < 1:
            raise ValueError(f"a simulated executor has at least 1 worker, got {workers}")
        self.capacity = workers
        self._desk, self._clock, self._duration, self._fault = Desk(evaluator, weights), clock, duration, fault
        self._queue: deque[Job] = deque()
        self._running: list[tuple[float, int, int, Completion]] = []  # end, number, worker
        self._to_tell: dict[int, deque[tuple[float, Interim]]] = {}  # by trial, from when on, ascending
        self._idle = list(range(workers))  # a heap: the lowest number first
        self._started = 0

    def submit(self, job: Job) -> None:
        self._queue.append(job)
        self._start()

    def expect(self, jobs: int | None) -> None:
        """Has the workers it has, whatever comes."""

    def _start(self) -> None:
        while self._queue and self._idle:
            job, worker = self._queue.popleft(), heapq.heappop(self._idle)
            fault = self._fault(job)
            outcome, weights = (fault, None) if fault else self._desk.work(job.proposal)
            started_at = self._clock.now()
            seconds = self._duration(job, outcome)
            end = self._clock.seconds() + seconds
            completion = Completion(
                trial_id=job.proposal.trial_id,
                attempt=job.attempt,
                outcome=outcome,
                weights=weights,
                node=f"worker-{worker}",
                started_at=started_at,
                finished_at=self._clock.at(end),
            )
            heapq.heappush(self._running, (end, self._started, worker, completion))
            self._started += 1
            if isinstance(outcome, Measurement) and job.proposal.phase is None:
                self._note_course(job, outcome, seconds)

    def _note_course(self, job: Job, outcome: Measurement, seconds: float) -> None:
        """What it will tell on its way."""
        course = self._desk.evaluator.course(job.proposal, outcome)
        now, whole = self._clock.seconds(), reported_seconds(job, outcome)
        if course and whole:
            scaled = ((now + at * seconds / whole, interim) for at, interim in course)
            self._to_tell[job.proposal.trial_id] = deque(scaled)

    def overheard(self) -> list[Interim]:
        found, now = dict[int, Interim](), self._clock.seconds()
        for trial_id, left in sorted(self._to_tell.items()):
            while left and left[0][0] <= now:
                found[trial_id] = left.popleft()[1]
        return list(found.values())

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        """As the protocol; of `wake`, moments of the virtual clock are heeded."""
        now = self._clock.seconds()
        deadlines = [max(now, handle.seconds) for handle in wake if isinstance(handle, Moment)]
        deadlines += [] if timeout is None else [now + timeout]
        deadline = min(deadlines, default=None)
        if not self._running or (deadline is not None and self._running[0][0] > deadline):
            self._clock.advance_to(deadline or 0.0)
            return []
        self._clock.advance_to(self._running[0][0])
        ended = []
        while self._running and self._running[0][0] <= self._clock.seconds():
            _, _, worker, completion = heapq.heappop(self._running)
            heapq.heappush(self._idle, worker)
            self._to_tell.pop(completion.trial_id, None)
            ended.append(completion)
        self._start()
        return ended

    aside: Sequence[str] = ()
    sharing: Sequence[Shared] = ()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def withdraw(self) -> list[Job]:
        jobs = list(self._queue)
        self._queue.clear()
        return jobs

    def cancel(self, trial_id: int) -> None:
        self._queue = deque(job for job in self._queue if job.proposal.trial_id != trial_id)
        self._to_tell.pop(trial_id, None)
        ended = [running for running in self._running if running[3].trial_id == trial_id]
        self._running = [running for running in self._running if running not in ended]
        heapq.heapify(self._running)
        for _, _, worker, _ in ended:
            heapq.heappush(self._idle, worker)
        self._start()

    def close(self) -> None:
        self._queue.clear()
        self._running.clear()
        self._to_tell.clear()


class TimedProposer:
    """The strategy in this process; its answer comes as much virtual time after the request as it really took.

    So workers go on while it thinks, as with a controller in a process of its own. Measured times differ from run to
    run, and with them what a proposal is asked after.
    """

    def __init__(
        self,
        strategy: Strategy[Any],
        clock: VirtualClock,
        log: Sequence[Trial] = (),
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Restores the strategy from a pool's log; `stopwatch` gives real seconds since some fixed moment."""
        self._strategy, self._clock, self._stopwatch = strategy, clock, stopwatch
        self._answer: Answer | None = None
        self._due = Moment(0.0)
        self.seconds: list[float] = []
        """What each request took."""
        self.total = 0.0
        """What they took together."""
        strategy.restore(log)

    @property
    def pending(self) -> Sequence[Any]:
        return () if self._answer is None else (self._due,)

    def request(self, n: int, told: Sequence[Trial], heard: Sequence[Interim] = ()) -> None:
        assert self._answer is None, "one request at a time"
        began = self._stopwatch()
        self._answer = answer(self._strategy, n, told, heard)
        self.seconds.append(self._stopwatch() - began)
        self.total += self.seconds[-1]
        self._due = Moment(self._clock.seconds() + self.seconds[-1])

    def poll(self, timeout: float | None = None) -> Answer | None:
        """As the protocol; waiting moves the clock, so wait only while nothing runs."""
        if self._answer is None:
            return None
        now, due = self._clock.seconds(), self._due.seconds
        self._clock.advance_to(due if timeout is None else min(due, now + timeout))
        if self._clock.seconds() < due:
            return None
        given, self._answer = self._answer, None
        return given

    def close(self) -> None:
        self._answer = None
