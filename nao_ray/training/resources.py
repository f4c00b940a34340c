"""What a training used: wall time, device time, peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from nao_ray import memory

_SELF = Path("/proc/self")


@dataclass
class Usage:
    """Filled when the block of `watch` ends."""

    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    """On CUDA the time between the first and the last kernel; on a CPU the process's CPU time, all threads together."""
    peak_memory_bytes: int | None = None
    """On CUDA the most that was allocated; on a CPU the process's largest resident size, libraries included."""


@contextmanager
def watch(device: torch.device) -> Iterator[Usage]:
    """Measure a block of work on `device`."""
    usage = Usage()
    cuda = device.type == "cuda"
    if not cuda:
        memory.keep()
    _reset_peak(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else []  # type: ignore[no-untyped-call]
    if cuda:
        events[0].record(torch.cuda.current_stream(device))
    wall, cpu = time.perf_counter(), time.process_time()
    yield usage
    if cuda:
        events[1].record(torch.cuda.current_stream(device))
        events[1].synchronize()
        usage.device_seconds = events[0].elapsed_time(events[1]) / 1000
    else:
        usage.device_seconds = time.process_time() - cpu
    usage.wall_seconds = time.perf_counter() - wall
    usage.peak_memory_bytes = _peak(device)
    if not cuda:
        memory.release()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # elsewhere than on Linux the mark is that of the process's whole life
        (_SELF / "clear_refs").write_text("5")  # the high-water mark starts anew from the present size


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = (_SELF / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere
