"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels that need no download.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part, as scikit-learn ships it).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.image_task import ImageTask, ImageTaskConfig

_TEST_SHARE = 0.2
"""The set comes without a test split; this one is ours: 359 images, the same under every `split_seed`."""


class Digits(ImageTask[ImageTaskConfig]):
    """Ten digits, grey, 8x8."""

    Config: ClassVar[type[TaskConfig]] = ImageTaskConfig

    name: ClassVar[str] = "digits"
    num_classes = 10
    image_shape = (1, 8, 8)
    network = "small"

    @property
    def full_training(self) -> str:
        return "short_digits"

    def training_rows(self) -> Images:
        rows, test = _read()
        return rows.take(np.setdiff1d(np.arange(len(rows)), test, assume_unique=True))

    def test_rows(self) -> Images:
        rows, test = _read()
        return rows.take(test)


def _read() -> tuple[Images, NDArray[np.int64]]:
    """All rows, and the indices of the test rows."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # [1797, 64], 0..16
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    return Images(images, labels), splits.stratified(labels, round(len(labels) * _TEST_SHARE), 0, "digits test split")
