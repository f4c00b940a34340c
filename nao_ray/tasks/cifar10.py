"""CIFAR-10 (Krizhevsky, 2009): 50,000 images for train and validation, 10,000 for test."""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.cifar import CifarConfig, CifarTask

_TRAIN = tuple(f"data_batch_{batch}" for batch in range(1, 6))


class Cifar10(CifarTask):
    """Ten classes of colour images, 32x32."""

    Config: ClassVar[type[TaskConfig]] = CifarConfig

    name: ClassVar[str] = "cifar10"
    num_classes = 10
    network = "cifar10"

    _binary = ("cifar-10-batches-bin", tuple(f"{file}.bin" for file in _TRAIN), ("test_batch.bin",))
    _python = ("cifar-10-batches-py", _TRAIN, ("test_batch",))
    _label_bytes = 1
    _label_key = "labels"
    _label_columns = ("label", "labels")
