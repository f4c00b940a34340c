"""Where a measurement runs, and how long something takes there."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from nao_ray.bench._process import peak_memory
from nao_ray.errors import ConfigError


def check_device(bench: str, device: str) -> None:
    """That it is the CPU, or CUDA where there is one.

    Raises:
        ConfigError: it is not.
    """
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise ConfigError(f"bench {bench} device={device}: expected cpu, or cuda where there is one")


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], object], device: str) -> dict[str, float]:
    """Wall and CPU seconds, to the end of what the device is given by it."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    wait(device)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def peak(device: str) -> float:
    """Bytes: of this process at its largest, on a GPU the most that was allocated there."""
    return float(torch.cuda.max_memory_allocated()) if device == "cuda" else peak_memory()
