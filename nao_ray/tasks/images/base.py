"""What all tasks of labelled images have: splits of pixels and labels, and the shapes that a network has to fit.

Legend: `n` images, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nao_ray.tasks.base import Shapes


class Split(ABC):
    """One split of labelled images."""

    labels: NDArray[np.int64]
    """``[n]``, 0..num_classes-1."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """``(n, C, H, W)``."""

    @abstractmethod
    def take(self, indices: NDArray[np.int64]) -> Self:
        """The rows of these indices, which ascend."""

    @abstractmethod
    def joined(self, other: Self) -> Self:
        """These rows, then the other's."""


@dataclass(frozen=True)
class Images(Split):
    """One split in memory."""

    images: NDArray[np.uint8]
    """``[n, C, H, W]``, 0..255."""
    labels: NDArray[np.int64]
    """``[n]``, 0..num_classes-1."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    def take(self, indices: NDArray[np.int64]) -> Images:
        return Images(self.images[indices], self.labels[indices])

    def joined(self, other: Images) -> Images:
        return Images(np.concatenate([self.images, other.images]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True, slots=True)
class ImageShapes(Shapes):
    """What a network that tells classes of images has to fit."""

    in_channels: int
    height: int
    """Pixels."""
    width: int
    num_classes: int
    network: str
    """The stem: `cifar10`, `cifar100`, `imagenet` or `small`; also names the published sizes."""

    example: ClassVar[str] = "image"

    @property
    def told(self) -> str:
        return f"{self.num_classes} classes"

    @property
    def recorded(self) -> dict[str, str | int]:
        return {"network": self.network, "num_classes": self.num_classes, "in_channels": self.in_channels}
