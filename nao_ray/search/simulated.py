"""Any number of workers in virtual time: an asynchronous search of days in a second, the same in every process."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nao_ray.evaluators.base import Evaluator
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Completion, Desk, Failure, Job, WeightsStore
from nao_ray.trial import Measurement

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

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        deadline = None if timeout is None else self._clock.seconds() + timeout
        if not self._running or (deadline is not None and self._running[0][0] > deadline):
            self._clock.advance_to(deadline or 0.0)
            return []
        end = self._running[0][0]
        self._clock.advance_to(end)
        ended = []
        while self._running and self._running[0][0] == end:
            _, _, worker, completion = heapq.heappop(self._running)
            heapq.heappush(self._idle, worker)
            ended.append(completion)
        self._start()
        return ended

    def close(self) -> None:
        self._queue.clear()
        self._running.clear()
