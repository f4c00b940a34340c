"""What all tasks of labelled images have: splits of pixels and labels, and the shapes that a network has to fit.

Legend: `n` images, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.tasks.base import Shapes


@dataclass(frozen=True, slots=True)
class Images:
    """One split of labelled images."""

    images: NDArray[np.uint8]
    """``[n, C, H, W]``, 0..255."""
    labels: NDArray[np.int64]
    """``[n]``, 0..num_classes-1."""

    def __len__(self) -> int:
        return len(self.labels)


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
    def recorded(self) -> dict[str, Any]:
        return {"network": self.network, "num_classes": self.num_classes, "in_channels": self.in_channels}
