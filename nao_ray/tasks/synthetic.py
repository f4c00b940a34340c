"""Tiny and deterministic: noisy stripes whose direction and width are the class. For tests and `make smoke`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from nao_ray import rng
from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.image_task import ImageTask, ImageTaskConfig


class SyntheticConfig(ImageTaskConfig):
    """How many, how large, how hard."""

    size: int = Field(default=8, ge=4, le=64)
    """Height and width, in pixels."""
    channels: int = Field(default=1, ge=1, le=4)
    classes: int = Field(default=4, ge=2, le=16)
    per_class: int = Field(default=40, ge=5)
    """Images per class in train and validation together; the test split has a quarter of it."""
    noise: float = Field(default=0.5, ge=0)
    """Standard deviation of the pixel noise; the stripes have amplitude 1."""


class Synthetic(ImageTask[SyntheticConfig]):
    """Stripes at `classes` angles, each image with its own phase, wave length and noise."""

    Config: ClassVar[type[TaskConfig]] = SyntheticConfig

    name: ClassVar[str] = "synthetic"
    network = "small"

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.num_classes = config.classes
        self.image_shape = (config.channels, config.size, config.size)

    def training_rows(self) -> Images:
        return self._stripes(self.config.per_class, "synthetic training rows")

    def test_rows(self) -> Images:
        return self._stripes(max(1, self.config.per_class // 4), "synthetic test rows")

    def _stripes(self, per_class: int, purpose: str) -> Images:
        labels = np.repeat(np.arange(self.num_classes), per_class)
        draw = rng.child(0, purpose)  # the data are fixed; `split_seed` only splits them
        n, size = len(labels), self.config.size
        angle = (labels / self.num_classes * np.pi)[:, None, None]
        phase = draw.uniform(0, 2 * np.pi, size=(n, 1, 1))
        length = draw.uniform(3, 6, size=(n, 1, 1))
        y, x = np.mgrid[:size, :size]
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
        noisy = wave[:, None] + draw.normal(0, self.config.noise, size=(n, *self.image_shape))
        return Images(np.clip(127.5 + 60 * noisy, 0, 255).astype(np.uint8), labels.astype(np.int64))
