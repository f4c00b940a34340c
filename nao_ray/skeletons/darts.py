"""The networks that DARTS trains its cells in (`networks/darts.py`).

Published sizes: Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055. That of a search, whose networks are trained on their
own, is that of DARTS' shared weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton

if TYPE_CHECKING:
    from nao_ray.networks.darts import DartsStack
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph


class DartsSize(Size):
    """Of layers of which two reduce, and double the channels."""

    layers: int | None = Field(default=None, ge=1, title="L")
    """Cells in all; those with the indices L // 3 and 2L // 3 reduce."""
    channels: int | None = Field(default=None, ge=2, multiple_of=2, title="C")
    """Of the first cell."""


class Darts(ImageSkeleton[SkeletonConfig]):
    """A normal and a reduction cell of two inputs each, which both pass a convolution."""

    name: ClassVar[str] = "darts"
    sizes: ClassVar[type[Size]] = DartsSize
    published: ClassVar[Mapping[str, Size]] = {
        "cifar10": DartsSize(layers=20, channels=36),
        "cifar100": DartsSize(layers=20, channels=36),
        "imagenet": DartsSize(layers=14, channels=48),
        "small": DartsSize(layers=8, channels=16),
    }
    searched: ClassVar[Size] = DartsSize(layers=8, channels=16)

    def network(self, graph: ArchGraph, config: StackConfig) -> DartsStack:
        from nao_ray.networks.darts import DartsImagenetStack, DartsStack

        kind = DartsImagenetStack if config.stem == "imagenet" else DartsStack
        return kind(graph, config)
