"""A task's two splits on a device: bytes, all of them, so that a batch is a gather and no worker process is needed.

Legend: `n` images, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nao_ray.errors import ConfigError
from nao_ray.tasks.base import Images
from nao_ray.training.augment import Normaliser


@dataclass(frozen=True)
class DeviceImages:
    """One split on a device."""

    images: Tensor
    """``[n, C, H, W]``, uint8."""
    labels: Tensor
    """``[n]``, int64."""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, split: Images, device: torch.device) -> DeviceImages:
        """Move a split."""
        return cls(_move(split.images, device), _move(split.labels, device))


@dataclass(frozen=True)
class TrainingData:
    """What `fit` needs of a task."""

    train: DeviceImages
    valid: DeviceImages
    """Without images where all of them train."""
    normaliser: Normaliser
    """Of the training split."""

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.images.device

    @classmethod
    def to_device(cls, train: Images, valid: Images, device: torch.device) -> TrainingData:
        """Move both splits, once."""
        moved = DeviceImages.of(train, device)
        return cls(train=moved, valid=DeviceImages.of(valid, device), normaliser=Normaliser.of(moved.images))


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


def _move(array: NDArray[np.uint8] | NDArray[np.int64], device: torch.device) -> Tensor:
    tensor = torch.tensor(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
