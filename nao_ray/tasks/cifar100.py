"""CIFAR-100 (Krizhevsky, 2009): 50,000 images for train and validation, 10,000 for test; the 100 fine classes."""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.cifar import CifarConfig, CifarTask


class Cifar100(CifarTask):
    """A hundred classes of colour images, 32x32."""

    Config: ClassVar[type[TaskConfig]] = CifarConfig

    name: ClassVar[str] = "cifar100"
    num_classes = 100
    network = "cifar100"

    _binary = ("cifar-100-binary", ("train.bin",), ("test.bin",))
    _python = ("cifar-100-python", ("train",), ("test",))
    _label_bytes = 2  # coarse, fine
    _label_key = "fine_labels"
    _label_columns = ("fine_label", "label", "labels")
