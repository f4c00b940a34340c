"""Where evaluations run: one protocol, and the executor that runs them in this process."""

from __future__ import annotations

import gc
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from nao_ray import memory
from nao_ray.errors import PoolError, RunError, StorageError
from nao_ray.evaluators.base import Evaluator, Group, SharedEvaluator
from nao_ray.limits import LimitError
from nao_ray.search.clock import Clock, WallClock
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Interim, Measurement, Proposal, Trial

T = TypeVar("T")

_MESSAGE_LENGTH = 2000
"""Characters kept of a failure's message: enough for an exception and where it was raised."""
_TRACE_LENGTH = 20_000
"""Characters kept of a traceback, and a quarter as many of its beginning."""


class Failure(NamedTuple):
    """Why an attempt gave no measurement."""

    kind: FailureKind
    message: str
    is_of_device: bool = False
    """An accelerator failed, or its driver: another may do (`training.failures`)."""
    log: str = ""
    """What there is to understand it by, many lines: the traceback, what was printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at one proposal."""

    proposal: Proposal
    attempt: int
    """From 1; a retry has the next number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How an attempt ended."""

    trial_id: int
    attempt: int
    outcome: Measurement | Failure
    weights: bytes | None = None
    """Of a phase that was carried out: the trained version, for whoever keeps the versions."""
    node: str | None = None
    device: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def apply(self, trial: Trial) -> Trial:
        """The RUNNING `trial`, finished by this attempt."""
        facts = {
            "attempt": self.attempt,
            "node": self.node,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }
        if isinstance(self.outcome, Failure):
            return trial.fail(self.outcome.kind, self.outcome.message, **facts)
        measurement = self.outcome
        if measurement.device is None:
            measurement = replace(measurement, device=self.device)
        if measurement.wall_seconds is None and self.started_at and self.finished_at:
            measurement = replace(measurement, wall_seconds=(self.finished_at - self.started_at).total_seconds())
        return trial.complete(measurement, **facts)


class Executor(Protocol):
    """Runs jobs, up to `capacity` at a time, and reports each one's end once."""

    @property
    def capacity(self) -> int:
        """Jobs that can run at a time, at least 1; may change from call to call."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job; returns at once."""
        ...

    def expect(self, jobs: int | None) -> None:
        """So many jobs may come besides those submitted (None: no limit): what an executor may grow for."""
        ...

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        """What has ended, in the order it ended.

        Waits until something has, for `timeout` seconds at most; may return early with nothing, and does when one
        of `wake`, handles of what else the caller waits for, is ready.
        """
        ...

    @property
    def waiting(self) -> int:
        """Jobs that were submitted and that no worker is there for yet."""
        ...

    @property
    def aside(self) -> Sequence[str]:
        """What is given nothing for a while, because it broke trials, and why."""
        ...

    @property
    def sharing(self) -> Sequence[Shared]:
        """How many trials a kind of GPU has at a time, where that is measured."""
        ...

    def overheard(self) -> list[Interim]:
        """What trainings under way have told since this was last asked: of each that has the latest, by trial id."""
        ...

    def withdraw(self) -> list[Job]:
        """Jobs that were submitted and have not begun, which now never will."""
        ...

    def cancel(self, trial_id: int) -> None:
        """Give up one job, begun or not, unreported; nothing if it has ended already."""
        ...

    def close(self) -> None:
        """Give up what still runs."""
        ...


class WeightsStore(Protocol):
    """Where versions of shared weights are found: in a search, the pool, which the loop writes."""

    def read_weights(self, version: str) -> bytes:
        """A version.

        Raises:
            PoolError: there is none of this name.
        """
        ...


def measure(evaluator: Evaluator[Any], proposal: Proposal) -> Measurement | Failure:
    """Evaluate; whatever goes wrong becomes a value."""
    return attempt(lambda: evaluator.evaluate(proposal), trains=getattr(evaluator, "has_task", True))


def attempt(work: Callable[[], T], *, trains: bool = True) -> T | Failure:
    """What `work` returns; whatever goes wrong becomes a value, and the device's memory is free for what comes next.

    `trains`: not a table or a formula, of which nothing is left.

    The one place where any exception is caught.

    Raises:
        PoolError: weights are gone, or of another supernet; no architecture's fault, and none is FAILED for it.
        StorageError: they cannot be read at the moment; nor is that.
    """
    try:
        return work()
    except (PoolError, StorageError):
        raise
    except Exception as error:
        from nao_ray.training.failures import classify, is_of_device

        failure = Failure(classify(error), describe(error), is_of_device(error), trace_of(error))
    _free_memory(failure, trains)
    return failure


def _free_memory(failure: Failure, trains: bool) -> None:
    """What failed must not be missing from the next one's memory; the traceback, which holds the network, is gone."""
    torch = sys.modules.get("torch")
    is_on_cuda = torch is not None and torch.cuda.is_initialized()
    if torch is not None and (trains or is_on_cuda):
        gc.collect()  # 0.2 s
    if torch is not None and is_on_cuda and not failure.is_of_device:
        torch.cuda.empty_cache()
    if trains:
        memory.release()  # a training on a CPU, which keeps what it has freed, did not come to its end


class Desk:
    """Where an evaluator works in this process, the weights it needs at hand."""

    def __init__(self, evaluator: Evaluator[Any], weights: WeightsStore | None = None) -> None:
        self.evaluator = evaluator
        self._store = weights
        self._version: str | None = None

    def work(self, proposal: Proposal) -> tuple[Measurement | Failure, bytes | None]:
        """Train or evaluate, once; with a phase, the trained version too.

        Raises:
            PoolError: the weights that the proposal names are gone, or of another supernet.
        """
        if proposal.phase is None and proposal.fidelity.weights_version is None:
            return measure(self.evaluator, proposal), None
        evaluator, store = self.evaluator, self._store
        if not isinstance(evaluator, SharedEvaluator) or store is None:
            raise RunError(f"proposal {proposal.trial_id} needs shared weights, {type(evaluator).__name__} has none")
        if proposal.phase is not None:
            phase = proposal.phase
            source = None if phase.source is None else store.read_weights(phase.source)
            trained = attempt(lambda: evaluator.train(proposal, source, Group()))
            return (trained, None) if isinstance(trained, Failure) else trained
        version = proposal.fidelity.weights_version
        if version is not None and version != self._version:
            self._version = None
            evaluator.use(version, store.read_weights(version))
            self._version = version
        return measure(evaluator, proposal), None


def describe(error: BaseException) -> str:
    """One line: the exception, its message, and where it was raised; what is outside of limits is no fault anywhere."""
    if isinstance(error, LimitError):
        return str(error)
    where = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        code = trace.tb_frame.f_code
        where = f" (in {code.co_name}, {code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[: _MESSAGE_LENGTH - len(where)] + where


def trace_of(error: BaseException) -> str:
    """The traceback, as Python prints it, of an exception and of those it was raised from."""
    lines = "".join(traceback.format_exception(error))
    return lines if len(lines) <= _TRACE_LENGTH else f"{lines[: _TRACE_LENGTH // 4]}\n[...]\n{lines[-_TRACE_LENGTH:]}"


class SerialExecutor:
    """One job after the other, in this process; a job runs within `wait`, whatever the timeout."""

    capacity = 1
    waiting = 0
    aside: Sequence[str] = ()
    sharing: Sequence[Shared] = ()

    def __init__(
        self, evaluator: Evaluator[Any], clock: Clock | None = None, weights: WeightsStore | None = None
    ) -> None:
        self._desk = Desk(evaluator, weights)
        self._clock = clock or WallClock()
        self._jobs: deque[Job] = deque()
        self._node = socket.gethostname()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def expect(self, jobs: int | None) -> None:
        """Runs one at a time, whatever comes."""

    def wait(self, timeout: float | None = None, wake: Sequence[Any] = ()) -> list[Completion]:
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        started_at = self._clock.now()
        outcome, weights = self._desk.work(job.proposal)
        return [
            Completion(
                trial_id=job.proposal.trial_id,
                attempt=job.attempt,
                outcome=outcome,
                weights=weights,
                node=self._node,
                started_at=started_at,
                finished_at=self._clock.now(),
            )
        ]

    def overheard(self) -> list[Interim]:
        """None: nothing is under way when this can be asked."""
        return []

    def withdraw(self) -> list[Job]:
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs

    def cancel(self, trial_id: int) -> None:
        """As the protocol; nothing can be asked while a job runs."""
        self._jobs = deque(job for job in self._jobs if job.proposal.trial_id != trial_id)

    def close(self) -> None:
        self._jobs.clear()
