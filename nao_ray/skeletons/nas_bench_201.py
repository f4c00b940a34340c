"""The network of NAS-Bench-201 (`networks/cells_201.py`) and its shared weights (`networks/supernets_201.py`).

Published sizes: Dong, Yang, ICLR 2020, arXiv 2001.00326, section 2.1; the shared weights are as large. There is no
auxiliary head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nao_ray.sizes import Size
from nao_ray.skeletons.base import PLAIN, SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton, StackSize
from nao_ray.spaces.nas_bench_201 import LOWERED

if TYPE_CHECKING:
    from nao_ray.networks.cells_201 import CellStack
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.networks.supernets_201 import RelaxedStack, SummingSupernet
    from nao_ray.spaces.base import ArchGraph, SearchSpace
    from nao_ray.tasks.base import Shapes
    from nao_ray.training.recipe import Regularisation


class NasBench201(ImageSkeleton[SkeletonConfig]):
    """One cell of one input, named `normal`."""

    name: ClassVar[str] = "nas_bench_201"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": StackSize(cells_per_stage=5, channels=16),
        "cifar100": StackSize(cells_per_stage=5, channels=16),
        "small": StackSize(cells_per_stage=1, channels=16),
    }
    shared: ClassVar[Size | None] = StackSize(cells_per_stage=5, channels=16)
    relaxed: ClassVar[Size | None] = shared

    def network(self, graph: ArchGraph, config: StackConfig) -> CellStack:
        from nao_ray.networks.cells_201 import CellStack

        return CellStack(graph, config)

    def weights(self, space: SearchSpace[Any], config: StackConfig) -> SummingSupernet:
        from nao_ray.networks.supernets_201 import SummingSupernet

        return SummingSupernet([LOWERED[name] for name in space.primitives], config)

    def relaxed_supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        partial: int = 1,
        regularisation: Regularisation = PLAIN,
    ) -> RelaxedStack:
        from nao_ray.networks.supernets_201 import RelaxedStack

        self.check_relaxed(shapes, size, partial, regularisation)
        names = [LOWERED[name] for name in space.primitives]
        return RelaxedStack(names, self.stack_config(shapes, size, PLAIN))
