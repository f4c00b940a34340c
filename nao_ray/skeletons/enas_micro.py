"""ENAS's micro network: NAO's stack with inputs, heads and reductions of its own (`networks/enas_micro.py`).

Published sizes: Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268: 15 + 2 layers in its script of the final
training, 6 + 2 in that of the search.
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


class EnasMicroConfig(SkeletonConfig):
    """What one would do otherwise than the paper."""

    reduce_last: bool = False
    """Reduction cells of the shared weights read the last layer twice, as the published code does, instead of the last
    two layers; the parameters are as many."""


class EnasMicro(ImageSkeleton[EnasMicroConfig]):
    """A normal and a reduction cell of two inputs each."""

    Config: ClassVar[type[SkeletonConfig]] = EnasMicroConfig
    name: ClassVar[str] = "enas_micro"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": StackSize(cells_per_stage=5, channels=36),
        "cifar100": StackSize(cells_per_stage=5, channels=36),
        "small": StackSize(cells_per_stage=1, channels=16),
    }
    shared: ClassVar[Size | None] = StackSize(cells_per_stage=2, channels=20)
    searched_shared: ClassVar[Size | None] = StackSize(cells_per_stage=3, channels=20)

    def network(self, graph: ArchGraph, config: StackConfig) -> ImageStack:
        from nao_ray.networks.enas_micro import MicroStack

        return MicroStack(graph, config)

    def weights(self, space: Any, config: StackConfig) -> CellSupernet:  # noqa: ANN401 - it has operations for edges
        from nao_ray.networks.cell_supernet import MicroSupernet

        return MicroSupernet(space.ops, config)
