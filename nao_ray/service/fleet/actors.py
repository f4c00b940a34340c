"""What runs in Ray's processes: a worker that evaluates, and the controller that proposes. Both thin.

Plain classes; the executor and the proposer turn them into actors that Ray never restarts
(``max_restarts=0, max_task_retries=0``): the driver owns re-creation and retry.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psutil
import ray

from nao_ray.config import RunConfig
from nao_ray.evaluators.base import Evaluator, Group, SharedEvaluator
from nao_ray.search.executor import Failure, attempt, describe, measure
from nao_ray.search.proposer import Answer, answer
from nao_ray.service.fleet.keeping import keeper_of
from nao_ray.service.fleet.output import LogFile, log_files, log_to_stderr, printed
from nao_ray.service.fleet.shared_mps import SharedMps
from nao_ray.service.fleet.worker import Gpu
from nao_ray.strategies.base import Earlier, Strategy
from nao_ray.trial import FailureKind, Interim, Measurement, Proposal, Trial


class Place(NamedTuple):
    """Where an actor runs."""

    node_id: str
    pid: int
    device: str = "cpu"
    """As Ray numbers it on the node, e.g. `gpu:0`; `cpu`: it was given none."""
    fault: str | None = None
    """What is wrong with the device: nothing can be evaluated on it."""
    files: tuple[LogFile, ...] = ()
    """What it prints to."""
    under_mps: bool = False
    """It computes at the same time as others on its GPU."""
    no_mps: str | None = None
    """Why it does not, where it was to."""


class Report(NamedTuple):
    """What a worker says about one call."""

    outcomes: tuple[Measurement | Failure, ...]
    """One for each proposal."""
    device: str | None
    started_at: datetime
    finished_at: datetime
    is_spent: bool
    """The worker is not to be used again: its CUDA context is broken, or its memory is lost (`capture.is_spoilt`)."""
    gpu: Gpu | None = None
    """That was computed on; None: on none, or it is of no use any more."""
    weights: bytes | None = None
    """Of a phase, by the first of its group: the trained version."""


class Pulse(NamedTuple):
    """A sign of life."""

    pid: int
    so_far: Interim | None = None
    """What the training under way has come to; None: none is, or it tells nothing yet."""


class Weights(NamedTuple):
    """A version of shared weights, in the object store."""

    version: str
    ref: tuple[Any, ...]
    """The reference, alone in a tuple, so that Ray does not fetch it for a worker that has the version already."""


@dataclass(frozen=True, slots=True)
class EvaluatorFactory:
    """Makes a config's evaluator; travels as text."""

    config: str
    keeps: tuple[str, str, float] | None = None
    """Address and `storage_id` of the pool that long trials keep their states in, and seconds between two."""

    def __call__(self) -> Evaluator[Any]:
        evaluator = RunConfig.parse(self.config).make_evaluator()
        if self.keeps is not None and evaluator.keeps_states:
            evaluator.keeper = keeper_of(*self.keeps)
        return evaluator


@dataclass(frozen=True, slots=True)
class StrategyFactory:
    """Makes a config's strategy; travels as text."""

    config: str
    earlier: tuple[Earlier, ...] = ()

    def __call__(self) -> Strategy[Any]:
        return RunConfig.parse(self.config).make_strategy(self.earlier)


class EvaluatorActor:
    """One worker: one device or a share of it, one evaluation at a time.

    Args:
        mps: with a share, compute under MPS where there is one.
    """

    def __init__(self, mps: bool = False) -> None:
        self._wants_mps = mps
        self._mps: SharedMps | None = None
        self._so_far: Interim | None = None

    def start(self, make: Callable[[], Evaluator[Any]]) -> Place:
        """Make the evaluator, and have at hand what every evaluation needs.

        Raises:
            Exception: it cannot be made here.
        """
        log_to_stderr()
        place = _place()
        if place.device == "cpu":  # Ray leaves all of the node's GPUs in sight of those that it gave none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        elif self._wants_mps and _places_on_gpu() > 1:
            problem = self._join_mps(place.node_id)
            place = place._replace(under_mps=problem is None, no_mps=problem)
        self._evaluator = make()
        self._files = log_files()
        self._version: str | None = None
        ready = attempt(
            lambda: self._prepare(place.device)
        )  # what else is wrong is said by the evaluation that meets it
        fault = ready.message if isinstance(ready, Failure) and ready.is_of_device else None
        return place._replace(fault=fault)

    def _join_mps(self, node_id: str) -> str | None:
        """Compute under the search's MPS from now on, before anything here uses CUDA; why it does not, if so."""
        search = f"{node_id[:16]}_{ray.get_runtime_context().get_job_id()}"
        try:
            self._mps = SharedMps(f"nao_ray_{search}")
        except OSError as error:
            return str(error)
        os.environ.update(self._mps.environ)
        return self._mps.problem

    def _prepare(self, device: str) -> None:
        if device != "cpu" and self._evaluator.uses_gpu:
            from nao_ray.training.devices import require_cuda

            require_cuda(device)
        self._evaluator.prepare()

    def evaluate(self, proposals: Sequence[Proposal], weights: Weights | None) -> Report:
        """Evaluate once each; a failure is a value."""
        started_at, self._files = datetime.now(UTC), log_files()
        ready = attempt(lambda: self._use(weights))
        if isinstance(ready, Failure):  # the weights could not be fetched or placed: that is no architecture's fault
            lost = ready._replace(kind=FailureKind.LOST)
            return self._report([lost] * len(proposals), started_at)._replace(is_spent=True)
        return self._report(self._outcomes(proposals), started_at)

    def _outcomes(self, proposals: Sequence[Proposal]) -> Sequence[Measurement | Failure]:
        evaluator = self._evaluator
        if len(proposals) > 1 and isinstance(evaluator, SharedEvaluator):
            together = attempt(lambda: evaluator.evaluate_together(proposals))
            if not isinstance(together, Failure):
                return together
        return [self._measure(proposal) for proposal in proposals]

    def _measure(self, proposal: Proposal) -> Measurement | Failure:
        def note(so_far: Measurement) -> None:
            self._so_far = Interim(proposal.trial_id, len(so_far.curve or ()), so_far.score)

        self._so_far, self._evaluator.watcher = None, note
        return measure(self._evaluator, proposal)

    def _use(self, weights: Weights | None) -> None:
        if weights is None or weights.version == self._version:
            return
        assert isinstance(self._evaluator, SharedEvaluator)
        self._version = None
        self._evaluator.use(weights.version, ray.get(weights.ref[0]))
        self._version = weights.version

    def address(self) -> str:
        """``host:port`` where the workers of a group can meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def train(self, proposal: Proposal, source: Weights | None, group: Group) -> Report:
        """This worker's part of a phase; a failure is a value."""
        started_at, self._files = datetime.now(UTC), log_files()
        evaluator = self._evaluator
        assert isinstance(evaluator, SharedEvaluator)
        if interface := interface_of(ray.util.get_node_ip_address()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)  # else the host's name says, e.g. 127.0.1.1
        given = None if source is None else ray.get(source.ref[0])
        outcome = attempt(lambda: evaluator.train(proposal, given, group))
        if isinstance(outcome, Failure):
            return self._report([outcome], started_at)
        measurement, weights = outcome
        report = self._report([measurement], started_at)
        return report._replace(weights=weights) if group.rank == 0 else report

    def _report(self, outcomes: Sequence[Measurement | Failure], started_at: datetime) -> Report:
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        is_spent = any(failure.is_of_device for failure in failures) or _is_spoilt()
        if failures:
            outcomes = _with_output(outcomes, printed(self._files))
        gpu = None
        if _is_on_gpu():
            places = _places_on_gpu()
            outcomes = [_shared(outcome, places) for outcome in outcomes]
            gpu = None if is_spent else _gpu(is_alone=places == 1)
        return Report(tuple(outcomes), _device(), started_at, datetime.now(UTC), is_spent, gpu)

    def ping(self) -> Pulse:
        """An answer, from a thread of its own, while an evaluation runs."""
        return Pulse(os.getpid(), self._so_far)


class StrategyActor:
    """The controller: a strategy that is restored from the pool's log, then told and asked."""

    def __init__(self) -> None:
        self._log: list[Trial] = []

    def learn(self, trials: Sequence[Trial]) -> None:
        """Take in a piece of the log."""
        self._log.extend(trials)

    def start(self, make: Callable[[], Strategy[Any]], count: int) -> Place:
        """Make the strategy and replay the log, which has so many trials."""
        if len(self._log) != count:
            raise RuntimeError(f"the controller was sent {count} trials and got {len(self._log)}")
        self._strategy = make()
        self._strategy.restore(self._log)
        self._log = []
        return _place()

    def answer(self, n: int, told: Sequence[Trial], heard: Sequence[Interim]) -> Answer:
        """Tell, then ask for `n` proposals."""
        return answer(self._strategy, n, told, heard)


def cause(error: ray.exceptions.RayTaskError) -> BaseException:
    """What was raised in the actor."""
    inner: BaseException = error.cause
    return inner


def one_line(error: ray.exceptions.RayTaskError) -> str:
    """What was raised in the actor, and where, on one line."""
    frames = re.findall(r'File "(?:[^"]*/)?([^"/]+)", line (\d+), in (\w+)', str(error))
    where = " (in {2}, {0}:{1})".format(*frames[-1]) if frames else ""
    return describe(cause(error)) + where


def first_line(error: Exception | str) -> str:
    """What Ray raised, on one line; a text as it is."""
    text = " ".join(str(error).split())
    return text if isinstance(error, str) else f"{type(error).__name__}: {text}"[:500]


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface with that IP address; None where there is none."""
    interfaces = psutil.net_if_addrs().items()
    named = (str(name) for name, addresses in interfaces if any(found.address == address for found in addresses))
    return next(named, None)


def _place() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), os.getpid(), _device(), files=log_files())


def _with_output(outcomes: Sequence[Measurement | Failure], output: str) -> list[Measurement | Failure]:
    """Failures with what was printed meanwhile."""
    return [
        outcome._replace(log=f"{outcome.log}\n{output}") if isinstance(outcome, Failure) and output else outcome
        for outcome in outcomes
    ]


def _device() -> str:
    """The accelerator Ray gave to this actor, or `cpu`."""
    given = [
        f"{kind.lower()}:{i}" for kind, ids in ray.get_runtime_context().get_accelerator_ids().items() for i in ids
    ]
    return ",".join(given) or "cpu"


def _places_on_gpu() -> int:
    """Workers for which this one's GPU has room, itself included; 1 also where it has none, or several GPUs."""
    gpus = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    return int(1 / gpus + 1e-2) if 0 < gpus < 1 else 1  # Ray counts in ten thousandths: a third is 0.3333


def _shared(outcome: Measurement | Failure, places: int) -> Measurement | Failure:
    """What was measured on a GPU with so many places: its time is theirs in equal parts."""
    if isinstance(outcome, Failure) or outcome.device_seconds is None:
        return outcome
    return replace(outcome, device_seconds=outcome.device_seconds / places)


def _is_spoilt() -> bool:
    """Whether a CUDA graph could not be recorded here, whose memory is lost."""
    capture = sys.modules.get("nao_ray.training.capture")
    return capture is not None and bool(capture.is_spoilt())


def _is_on_gpu() -> bool:
    """Whether this process computes on a GPU; where torch was not needed it is not imported for this."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _gpu(*, is_alone: bool) -> Gpu:
    """The GPU in use; `is_alone`: what is in use there is this process's."""
    import torch

    device = torch.cuda.current_device()
    found = torch.cuda.get_device_properties(device)
    if not is_alone:
        return Gpu(found.name, found.total_memory)
    free, total = torch.cuda.mem_get_info(device)
    return Gpu(found.name, found.total_memory, max(0, total - free - torch.cuda.memory_reserved(device)))
