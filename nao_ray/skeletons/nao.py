"""NAO's stack of normal and reduction cells (`networks/stacks.py`), its shared weights (`networks/cell_supernet.py`).

Published sizes: Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233 (NAO_pytorch V1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton, StackSize

if TYPE_CHECKING:
    from nao_ray.networks.cell_supernet import CellSupernet
    from nao_ray.networks.stacks import ImageStack, StackConfig
    from nao_ray.spaces.base import ArchGraph


class NaoConfig(SkeletonConfig):
    """What one would do otherwise than the published networks."""

    count_padding: bool = True
    """``*_padded`` and 2x2 pools see the zeros around the map, as the published networks do."""
    relu_before_head: bool = False
    """Rectify before the global pool (the TensorFlow code does, the PyTorch code does not)."""


class Nao(ImageSkeleton[NaoConfig]):
    """A normal and a reduction cell of two inputs each."""

    Config: ClassVar[type[SkeletonConfig]] = NaoConfig
    name: ClassVar[str] = "nao"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": StackSize(cells_per_stage=6, channels=36),
        "cifar100": StackSize(cells_per_stage=6, channels=36),
        "imagenet": StackSize(cells_per_stage=4, channels=42),
        "small": StackSize(cells_per_stage=1, channels=16),
    }
    shared: ClassVar[Size | None] = StackSize(cells_per_stage=3, channels=20)

    def network(self, graph: ArchGraph, config: StackConfig) -> ImageStack:
        from nao_ray.networks.stacks import ImageStack

        return ImageStack(graph, config)

    def weights(self, space: Any, config: StackConfig) -> CellSupernet:  # noqa: ANN401 - it has operations for edges
        from nao_ray.networks.cell_supernet import CellSupernet

        return CellSupernet(space.ops, config)
