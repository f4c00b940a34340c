"""ENAS's macro network: layers with skip connections (`networks/enas_macro.py`, `networks/macro_supernet.py`).

Published sizes: Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268. How many layers there are is the genotype's or
the space's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton

if TYPE_CHECKING:
    from nao_ray.networks.enas_macro import MacroStack
    from nao_ray.networks.macro_supernet import MacroSupernet
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph


class MacroSize(Size):
    """Of layers of which the genotype says how many there are."""

    channels: int | None = Field(default=None, ge=2, multiple_of=2, title="F")
    """Of the first stage; of shared weights, of all."""


class EnasMacroConfig(SkeletonConfig):
    """What one would do otherwise than the paper."""

    plain_separable: bool = False
    """Separable convolutions are ordinary ones, as in the published code."""


class EnasMacro(ImageSkeleton[EnasMacroConfig]):
    """One cell named `network`, whose nodes are the layers."""

    Config: ClassVar[type[SkeletonConfig]] = EnasMacroConfig
    name: ClassVar[str] = "enas_macro"
    sizes: ClassVar[type[Size]] = MacroSize
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": MacroSize(channels=96),
        "cifar100": MacroSize(channels=96),
        "small": MacroSize(channels=16),
    }
    searched: ClassVar[Size] = MacroSize(channels=32)
    shared: ClassVar[Size | None] = MacroSize(channels=36)
    searched_shared: ClassVar[Size | None] = MacroSize(channels=20)
    former_sizes: ClassVar[Mapping[str, str]] = {"cells_per_stage": "the genotype says how many layers there are"}

    def network(self, graph: ArchGraph, config: StackConfig) -> MacroStack:
        from nao_ray.networks.enas_macro import MacroStack

        return MacroStack(graph, config)

    def weights(self, space: Any, config: StackConfig) -> MacroSupernet:  # noqa: ANN401 - it says how many layers
        from nao_ray.networks.macro_supernet import MacroSupernet

        return MacroSupernet(space.ops, space.config.layers, config)
