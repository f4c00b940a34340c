"""The stack of NAO's TensorFlow code (`networks/nao_tf.py`).

Published sizes: Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233, and the scripts of its code; it trains no
network on ImageNet, and `small` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton, StackSize

if TYPE_CHECKING:
    from nao_ray.networks.nao_tf import TfStack
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph


class NaoTf(ImageSkeleton[SkeletonConfig]):
    """A normal and a reduction cell of two inputs each."""

    name: ClassVar[str] = "nao_tf"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": StackSize(cells_per_stage=6, channels=128),
        "cifar100": StackSize(cells_per_stage=6, channels=128),
        "small": StackSize(cells_per_stage=1, channels=16),
    }

    def network(self, graph: ArchGraph, config: StackConfig) -> TfStack:
        from nao_ray.networks.nao_tf import TfStack

        return TfStack(graph, config)
