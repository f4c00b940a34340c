"""Where a training runs."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from nao_ray.errors import ConfigError
from nao_ray.training import capture
from nao_ray.training.recipe import Optimiser


def pick_device(name: str) -> torch.device:
    """The device of a config: `auto` is the first CUDA device this process may use, else the CPU.

    Raises:
        ConfigError: a CUDA device is asked for and there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"device is {name}, and none is seen on {platform.node()}: set it to auto, or workers.gpus to 1"
        )
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def require_cuda(given: str) -> None:
    """What `auto` picks has to be the accelerator that Ray gave.

    Raises:
        RuntimeError: as torch's where there is none: no network is to be trained on the CPU instead, unseen.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"No CUDA GPUs are available on {platform.node()}, where Ray gave {given}: torch is for "
            f"CUDA {torch.version.cuda}, install one that its driver supports, or set workers.gpus to 0"
        )


def device_name(device: torch.device) -> str:
    """What a measurement's `device` says: `cpu`, or the accelerator's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def uses_bfloat16(optimiser: Optimiser, device: torch.device) -> bool:
    """Whether recipe and device want bfloat16 autocast; launched one by one, its many casts cost what it saves."""
    if optimiser.precision == "auto":
        return has_bfloat16(device) and not capture.is_spoilt()
    return optimiser.precision == "bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes faster with it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(False)


def autocast(optimiser: Optimiser, device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the recipe and the device want it."""
    if not uses_bfloat16(optimiser, device):
        return nullcontext()
    # without a cache of weights: a network reads each once, and what is kept must not be of a graph
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type != "cuda")


def move(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on `device`; on the CPU they share memory where the array may be written to."""
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
