"""Skeletons that tell classes of images: which shapes and sizes there are, and what is checked of them.

Published sizes (Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233, and whoever a skeleton names) are by the
network's name; every `small` is ours, for 8x8 to 28x28 grey images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from nao_ray.errors import ConfigError
from nao_ray.sizes import Size
from nao_ray.skeletons.base import PLAIN, Skeleton, SkeletonConfig
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.tasks.base import Shapes
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.training.recipe import ImageRegularisation, Regularisation, expect

if TYPE_CHECKING:
    from torch import Tensor

    from nao_ray.networks.stacks import Stack, StackConfig
    from nao_ray.networks.supernet import Supernet

C = TypeVar("C", bound=SkeletonConfig)


class StackSize(Size):
    """Of stages of cells, between which reductions double the channels."""

    cells_per_stage: int | None = Field(default=None, ge=1, title="N")
    """Normal cells before, between and after the reductions."""
    channels: int | None = Field(default=None, ge=2, multiple_of=2, title="F")
    """Of the first stage."""


NETWORKS: Mapping[str, ImageShapes] = {
    "cifar10": ImageShapes(3, 32, 32, 10, "cifar10"),
    "cifar100": ImageShapes(3, 32, 32, 100, "cifar100"),
    "imagenet": ImageShapes(3, 224, 224, 1000, "imagenet"),
    "small": ImageShapes(1, 28, 28, 10, "small"),
}
"""Published shapes by the network's name."""


def image_shapes(network: str, *, num_classes: int | None = None, in_channels: int | None = None) -> ImageShapes:
    """Those of a network's images and classes, the published ones unless given.

    Raises:
        ConfigError: the network is unknown.
    """
    if network not in NETWORKS:
        raise ConfigError(f"no network is named {network!r}; known: {', '.join(NETWORKS)}")
    published = NETWORKS[network]
    return ImageShapes(
        published.in_channels if in_channels is None else in_channels,
        published.height,
        published.width,
        published.num_classes if num_classes is None else num_classes,
        network,
    )


class ImageSkeleton(Skeleton[C]):
    """A skeleton writes the stacks; the network's name gives stem and published size."""

    sizes: ClassVar[type[Size]] = StackSize
    regularisation: ClassVar[type[Regularisation]] = ImageRegularisation
    plain: ClassVar[Regularisation] = ImageRegularisation(auxiliary_weight=0.0, drop_path_keep=1.0)
    searched: ClassVar[Size] = StackSize(cells_per_stage=3, channels=32)

    @abstractmethod
    def network(self, graph: ArchGraph, config: StackConfig) -> Stack:
        """The stand-alone network of a genotype."""

    def weights(self, space: SearchSpace[Any], config: StackConfig) -> Supernet:
        """The shared weights of a space's genotypes."""
        raise NotImplementedError

    def stacked(self, size: Size) -> dict[str, Any]:
        """What a stack is told of its size, in the names of `StackConfig`; here they are the size's own."""
        return size.model_dump()

    def shapes(self, network: str | None = None, **recorded: int | None) -> ImageShapes:
        return image_shapes(next(iter(self.published)) if network is None else network, **recorded)

    def check(
        self, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN, *, shared: bool = False
    ) -> None:
        images = self._images(shapes)
        full = self._size(images, size, shared=shared)
        numbers = {
            **full.model_dump(),
            "num_classes": images.num_classes,
            "in_channels": images.in_channels,
            "image_size": min(images.height, images.width),
        }
        for name, value in numbers.items():
            if value < 1:
                raise ConfigError(f"network {images.network}: {name} must be at least 1, got {value}")
        told = self._told(regularisation)
        for name, share in (("dropout", told.dropout), ("drop_path", 1 - told.drop_path_keep)):
            if not 0 <= share < 1:
                raise ConfigError(f"network {images.network}: {name} must be in [0, 1), got {share}")
        if shared and numbers.get("channels", 0) % 2:
            raise ConfigError(
                f"supernet: channels must be even, since reductions halve them; got {numbers['channels']}"
            )

    def build(
        self, graph: ArchGraph, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN
    ) -> Stack:
        return self.network(graph, self.stack_config(shapes, size, regularisation))

    def supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        regularisation: Regularisation = PLAIN,
    ) -> Supernet:
        if self.shared is None:
            return super().supernet(space, shapes, size, regularisation)
        return self.weights(space, self.stack_config(shapes, size, regularisation, shared=True))

    def sized(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> Size:
        del graph
        return self._size(self._images(shapes), size, shared=False)

    def example(self, shapes: Shapes) -> Tensor:
        import torch

        images = self._images(shapes)
        return torch.empty(1, images.in_channels, images.height, images.width, device="meta")

    def stack_config(
        self, shapes: Shapes, size: Size | None, regularisation: Regularisation, *, shared: bool = False
    ) -> StackConfig:
        """What a stack is told.

        Raises:
            ConfigError: as `check`.
        """
        from nao_ray.networks.stacks import StackConfig

        self.check(shapes, size, regularisation, shared=shared)
        images, told = self._images(shapes), self._told(regularisation)
        identity = told.drop_path_identity
        return StackConfig(
            stem="imagenet" if images.network == "imagenet" else "cifar",
            **self.stacked(self._size(images, size, shared=shared)),
            num_classes=images.num_classes,
            in_channels=images.in_channels,
            auxiliary=told.auxiliary_weight > 0,
            dropout=told.dropout,
            drop_path=1 - told.drop_path_keep,
            drop_path_schedule=told.drop_path_schedule,
            drop_path_identity=shared if identity is None else identity,
            **self.config.model_dump(),
        )

    def _told(self, regularisation: Regularisation) -> ImageRegularisation:
        told = self.plain if regularisation == PLAIN else regularisation
        return expect(ImageRegularisation, told, f"a network of {self.name}")

    def _images(self, shapes: Shapes) -> ImageShapes:
        if not isinstance(shapes, ImageShapes):
            raise ConfigError(f"{self.name} makes networks for images, and the task has none")
        if shapes.network not in NETWORKS:
            raise ConfigError(f"no network is named {shapes.network!r}; known: {', '.join(NETWORKS)}")
        if shapes.network not in self.published:
            raise ConfigError(f"{self.name} has no network {shapes.network}; choose one of {', '.join(self.published)}")
        return shapes

    def _size(self, images: ImageShapes, size: Size | None, *, shared: bool) -> Size:
        """Without a None."""
        usual = self.shared if shared and self.shared is not None else self.published[images.network]
        given = {} if size is None else size.model_dump(exclude_none=True)
        return usual.model_copy(update=given)
