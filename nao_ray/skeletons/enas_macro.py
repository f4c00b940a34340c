"""ENAS's macro network: layers with skip connections (`networks/enas_macro.py`, `networks/macro_supernet.py`).

Published sizes: Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268. N, a third of the layers, is the genotype's or
the space's, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nao_ray.skeletons.base import Size, SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton

if TYPE_CHECKING:
    from nao_ray.networks.enas_macro import MacroStack
    from nao_ray.networks.macro_supernet import MacroSupernet
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph
    from nao_ray.tasks.base import Shapes


class EnasMacroConfig(SkeletonConfig):
    """What one would do otherwise than the paper."""

    plain_separable: bool = False
    """Separable convolutions are ordinary ones, as in the published code."""


class EnasMacro(ImageSkeleton[EnasMacroConfig]):
    """One cell named `network`, whose nodes are the layers."""

    Config: ClassVar[type[SkeletonConfig]] = EnasMacroConfig
    name: ClassVar[str] = "enas_macro"
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": Size(cells_per_stage=8, channels=96),
        "cifar100": Size(cells_per_stage=8, channels=96),
        "small": Size(cells_per_stage=4, channels=16),
    }
    shared: ClassVar[Size | None] = Size(cells_per_stage=4, channels=36)

    def sized(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> Size:
        layers = len(graph.cell("network").nodes)
        return super().sized(graph, shapes, size).model_copy(update={"cells_per_stage": layers // 3})

    def network(self, graph: ArchGraph, config: StackConfig) -> MacroStack:
        from nao_ray.networks.enas_macro import MacroStack

        return MacroStack(graph, config)

    def weights(self, space: Any, config: StackConfig) -> MacroSupernet:  # noqa: ANN401 - it says how many layers
        from nao_ray.networks.macro_supernet import MacroSupernet

        return MacroSupernet(space.ops, space.config.layers, config)
