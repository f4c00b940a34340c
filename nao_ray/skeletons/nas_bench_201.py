"""The network of NAS-Bench-201 (`networks/cells_201.py`). It has neither shared weights nor an auxiliary head.

Published size: Dong, Yang, ICLR 2020, arXiv 2001.00326, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton, StackSize

if TYPE_CHECKING:
    from nao_ray.networks.cells_201 import CellStack
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph


class NasBench201(ImageSkeleton[SkeletonConfig]):
    """One cell of one input, named `normal`."""

    name: ClassVar[str] = "nas_bench_201"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": StackSize(cells_per_stage=5, channels=16),
        "cifar100": StackSize(cells_per_stage=5, channels=16),
        "small": StackSize(cells_per_stage=1, channels=16),
    }

    def network(self, graph: ArchGraph, config: StackConfig) -> CellStack:
        from nao_ray.networks.cells_201 import CellStack

        return CellStack(graph, config)
