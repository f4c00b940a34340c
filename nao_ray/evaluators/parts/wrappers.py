"""Faults are wrappers: any evaluator, made noisy, flaky or slow.

What goes wrong follows from the proposal's seed alone, so it goes wrong again when the proposal is tried again.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil

from nao_ray import rng
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.trial import Fidelity, Measurement, Proposal


class _Wrapper(Evaluator[EvaluatorConfig]):
    def __init__(self, inner: Evaluator[Any]) -> None:
        super().__init__(inner.space, inner._task, inner.config)
        self.inner = inner

    def prepare(self) -> None:
        self.inner.prepare()

    @classmethod
    def fidelity(cls, config: EvaluatorConfig) -> Fidelity:  # noqa: ARG003
        raise TypeError(f"{cls.__name__} wraps an evaluator; ask that one for its fidelity")

    def _draw(self, proposal: Proposal) -> float:
        """Uniform in [0, 1), the same at every attempt of a proposal, independent between kinds of wrapper."""
        return float(rng.child(proposal.seed, type(self).__name__).random())


class NoisyEvaluator(_Wrapper):
    """Adds Gaussian noise to what is measured, which stays in the metric's range."""

    def __init__(self, inner: Evaluator[Any], spread: float) -> None:
        super().__init__(inner)
        self.spread = spread

    def evaluate(self, proposal: Proposal) -> Measurement:
        measured = self.inner.evaluate(proposal)
        noise = float(rng.child(proposal.seed, type(self).__name__).normal(0, self.spread))
        metric = self.inner.measure
        value = getattr(measured, metric.column)
        if value is None:
            return measured
        return replace(measured, **metric.measured(metric.possible(value + noise)))


class FlakyEvaluator(_Wrapper):
    """Fails a share of the proposals: raises, runs out of memory (really), or returns NaN."""

    def __init__(self, inner: Evaluator[Any], *, error: float = 0, out_of_memory: float = 0, nan: float = 0) -> None:
        """Shares of all proposals, in [0, 1], that end in each way; their sum is at most 1."""
        super().__init__(inner)
        shares = (error, out_of_memory, nan)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"shares of failures are >= 0 and at most 1 together, got {shares}")
        self.error, self.out_of_memory, self.nan = shares

    def evaluate(self, proposal: Proposal) -> Measurement:
        draw = self._draw(proposal)
        if draw < self.error:
            raise RuntimeError(f"made to fail (proposal {proposal.trial_id})")
        if draw < self.error + self.out_of_memory:
            try:
                exhaust_memory()
            except MemoryError as error:
                raise MemoryError(f"made to run out of memory (proposal {proposal.trial_id})") from error
        measured = self.inner.evaluate(proposal)
        if draw < self.error + self.out_of_memory + self.nan:
            return replace(measured, **self.inner.measure.measured(math.nan))
        return measured


class SlowEvaluator(_Wrapper):
    """Takes longer: always, or for a share of the proposals."""

    def __init__(
        self, inner: Evaluator[Any], seconds: float, share: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(inner)
        self.seconds, self.share, self.sleep = seconds, share, sleep

    def evaluate(self, proposal: Proposal) -> Measurement:
        if self.is_slow(proposal):
            self.sleep(self.seconds)
        return self.inner.evaluate(proposal)

    def is_slow(self, proposal: Proposal) -> bool:
        """Whether it is one of the share."""
        return self._draw(proposal) < self.share


_ROOM = 2**28
"""Bytes that the process's other threads may still take meanwhile."""


def exhaust_memory() -> None:
    """Ask for more than the system gives: the address space of this process is limited for that moment.

    Raises:
        MemoryError: always.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + _ROOM
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(soft, limit), hard))
        np.empty(8 * _ROOM, dtype=np.uint8)  # more than the allocator may hold free from earlier
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    raise MemoryError("this system does not limit the address space of a process")
