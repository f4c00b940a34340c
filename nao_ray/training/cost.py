"""What a network costs on the present device: time to evaluate a batch, memory to train on one.

All in float32 and in the layout of a training. What does not fit is told, and raises nothing.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nao_ray.training import resources
from nao_ray.training.devices import device_name

BATCH = 128
"""Examples of the larger batch whose latency is measured."""
WORDS = 35
"""Of a text, in an example of a training step, as published; it is evaluated word by word."""
_FEWEST, _MOST, _SECONDS = 3, 20, 1.0
"""Evaluations that a median is of: as many as fit into so long."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of an evaluation, as the median of several after the first ones; None where the batch did not fit."""

    latency_ms_1: float | None
    """Milliseconds of a batch of one example, of a text one word."""
    latency_ms_128: float | None
    """Of a batch of 128."""
    latency_device: str
    """As `Measurement.device`."""
    latency_threads: int | None
    """Of a CPU, that torch computes with; None on any other device."""

    @property
    def columns(self) -> dict[str, Any]:
        """As in a row of ``final/``."""
        return asdict(self)

    def told(self, example: str) -> str:
        """For people, who call an example so."""
        one, many = (
            "no memory" if value is None else f"{value:,.{2 if value < 10 else 0}f} ms"
            for value in (self.latency_ms_1, self.latency_ms_128)
        )
        threads = {None: "", 1: ", 1 thread"}.get(self.latency_threads, f", {self.latency_threads} threads")
        return f"{one} for 1 {example}, {many} for {BATCH} (medians; {self.latency_device}{threads}, float32)"


_LATENCY = tuple(each.name for each in fields(Latency))


def told(row: Mapping[str, Any], example: str) -> dict[str, str]:
    """What a row of ``final/`` says of cost, for people, who call an example so; without what it does not know."""
    lines = {}
    if row.get("latency_device") is not None:
        lines["latency"] = Latency(**{name: row[name] for name in _LATENCY}).told(example)
    if row.get("peak_memory_bytes") is not None:
        whole = " of the whole process" if row["device"] == "cpu" else ""
        lines["peak memory"] = f"{row['peak_memory_bytes'] / 1e6:,.0f} MB{whole} in training"
    return lines


def latency(
    network: nn.Module, example: Tensor, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Latency:
    """How long an evaluation takes.

    Args:
        network: any; is moved to `device` and in evaluation mode afterwards.
        example: a batch of one, of which shape and type matter.
        device: where.
        clock: tells seconds.
    """
    network = _placed(network, device).eval()
    one, many = (_evaluated(network, _batch(example, count, device), clock) for count in (1, BATCH))
    return Latency(one, many, device_name(device), torch.get_num_threads() if device.type == "cpu" else None)


def latency_of_one(network: nn.Module, example: Tensor, device: torch.device) -> float:
    """`Latency.latency_ms_1` alone; infinite where it did not fit."""
    inputs = _batch(example, 1, device)
    found = _evaluated(_placed(network, device).eval(), inputs, time.perf_counter)
    return math.inf if found is None else found


def training_memory(network: nn.Module, example: Tensor, device: torch.device) -> int | None:
    """Peak memory of a step on `BATCH` examples, in bytes as `Measurement.peak_memory_bytes`; None: it did not fit.

    Args:
        network: any; it takes the step, on `device`, and is worth nothing afterwards.
        example: a batch of one, of which shape and type matter; of a text `WORDS` are read.
        device: where.
    """
    network = _placed(network, device).train()
    example = example if example.is_floating_point() else example.expand(1, WORDS)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    try:
        with resources.watch(device) as usage, _limited(device):
            for _ in range(2):  # the second has the momentum of the first
                _loss(network(_batch(example, BATCH, device))).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                optimiser.zero_grad()
    except (RuntimeError, MemoryError) as error:
        _refuse_other(error)
        return None
    return usage.peak_memory_bytes


def step_told(example: Tensor, name: str) -> str:
    """What a step of `training_memory` is of, for people, who call an example so."""
    return f"{BATCH} {name}s" if example.is_floating_point() else f"{BATCH} texts of {WORDS} {name}s"


def _loss(out: Tensor | tuple[Any, ...]) -> Tensor:
    """As a training's: of the logits, and of those of an auxiliary head."""
    logits = [
        part for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, Tensor) and part.dim() > 1
    ]
    first, *others = (part.flatten(0, -2).log_softmax(1)[:, 0] for part in logits)
    return sum((part.mean() for part in others), -first.mean())


def _evaluated(network: nn.Module, inputs: Tensor, clock: Callable[[], float]) -> float | None:
    """Milliseconds; None: it did not fit."""

    def run() -> float:
        began = clock()
        network(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        return clock() - began

    try:
        with torch.inference_mode(), _limited(inputs.device):
            if run() < _SECONDS:  # loads, allocates and chooses
                run()
            times = [run() for _ in range(_FEWEST)]
            while len(times) < _MOST and sum(times) < _SECONDS:
                times.append(run())
    except (RuntimeError, MemoryError) as error:
        _refuse_other(error)
        return None
    return 1000 * statistics.median(times)


def _batch(example: Tensor, count: int, device: torch.device) -> Tensor:
    shape = (count, *example.shape[1:])
    if not example.is_floating_point():
        return torch.zeros(shape, dtype=example.dtype, device=device)
    made = torch.ones(shape, device=device)
    return made.contiguous(memory_format=torch.channels_last) if made.dim() == 4 else made


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device=device, dtype=torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _refuse_other(error: BaseException) -> None:
    """Raise what is not about memory."""
    text = str(error).lower()
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not ("alloc" in text or "memory" in text):
        raise error


@contextmanager
def _limited(device: torch.device) -> Iterator[None]:
    """On a CPU, where it can (Linux), more memory than there is is refused: else the kernel would end the process."""
    free = _free() if device.type == "cpu" and sys.platform == "linux" else None
    if free is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limit = min([mapped + free, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _free() -> int | None:
    """Bytes that this process may still take, of the machine and of its group; None: not told here."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free.append(max(0, most - used))
    return min(free, default=None)
