"""The networks that DARTS trains its cells in (`networks/darts.py`).

Published sizes: Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055. That of a search, whose networks are trained on their
own, is that of DARTS' shared weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nao_ray.errors import ConfigError
from nao_ray.sizes import Size
from nao_ray.skeletons.base import PLAIN, SkeletonConfig
from nao_ray.skeletons.images.base import ImageSkeleton
from nao_ray.spaces.darts_cnn import LOWERED
from nao_ray.spaces.parts.relaxed import NONE

if TYPE_CHECKING:
    from nao_ray.networks.darts import DartsStack
    from nao_ray.networks.darts_supernet import DartsSupernet
    from nao_ray.networks.relaxed import RelaxedSupernet
    from nao_ray.networks.stacks import StackConfig
    from nao_ray.spaces.base import ArchGraph, SearchSpace
    from nao_ray.tasks.base import Shapes
    from nao_ray.training.recipe import Regularisation


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
    shared: ClassVar[Size | None] = DartsSize(layers=8, channels=16)
    relaxed: ClassVar[Size | None] = DartsSize(layers=8, channels=16)
    relaxed_in_part: ClassVar[bool] = True

    def network(self, graph: ArchGraph, config: StackConfig) -> DartsStack:
        from nao_ray.networks.darts import DartsImagenetStack, DartsStack

        kind = DartsImagenetStack if config.stem == "imagenet" else DartsStack
        return kind(graph, config)

    def weights(self, space: SearchSpace[Any], config: StackConfig) -> DartsSupernet:
        from nao_ray.networks.darts_supernet import DartsSupernet

        return DartsSupernet(tuple(LOWERED[name] for name in space.primitives if name != NONE), config)

    def check_relaxed(
        self, shapes: Shapes, size: Size | None = None, partial: int = 1, regularisation: Regularisation = PLAIN
    ) -> None:
        super().check_relaxed(shapes, size, partial, regularisation)
        if self._images(shapes).network == "imagenet":
            raise ConfigError("the relaxed supernet of darts has no stem for imagenet: search on smaller images")
        channels = self.stack_config(shapes, size, PLAIN).channels
        if channels % (2 * partial):  # the part itself is halved where the map is
            raise ConfigError(
                f"partial_channels {partial}: {channels} channels cannot be cut so; give a multiple of {2 * partial}"
            )

    def relaxed_supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        partial: int = 1,
        regularisation: Regularisation = PLAIN,
    ) -> RelaxedSupernet:
        from nao_ray.networks.darts import SEARCH_OPS
        from nao_ray.networks.relaxed import RelaxedSupernet

        self.check_relaxed(shapes, size, partial, regularisation)
        config = self.stack_config(shapes, size, PLAIN)
        names = [LOWERED[name] for name in space.primitives]
        return RelaxedSupernet(
            names,
            SEARCH_OPS,
            layers=config.layers,
            channels=config.channels,
            num_classes=config.num_classes,
            in_channels=config.in_channels,
            partial=partial,
        )
