"""What is taken away: an architecture with its network, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from torch import Tensor, nn

from nao_ray.sizes import Size
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import ArchGraph, Genotype, SearchSpace
from nao_ray.tasks.base import Shapes
from nao_ray.training.recipe import ImageRecipe, Recipe

_NAMED = 1000  # at most so many classes are written down in source


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A network and where it is from."""

    name: str
    """Of the architecture, or of the training."""
    space: SearchSpace[Any]
    genotype: Genotype
    shapes: Shapes
    size: Size
    """Without a None."""
    network: nn.Module
    """With its weights."""
    is_trained: bool
    """Its weights are of a training; else they are fresh."""
    normaliser: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation by channel, of pixels in [0, 1], that images are normalised with."""
    recipe: Recipe | None = None
    """What it was trained by."""
    labels: Sequence[str] | None = None
    """What the classes are called."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """Of the training, by what they are called on a card."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More that a card tells, by what it is called there."""

    @property
    def graph(self) -> ArchGraph:
        """The architecture's."""
        return self.space.lower(self.genotype)

    @property
    def example(self) -> Tensor:
        """A batch of one, on the meta device."""
        return skeleton_of(self.space).example(self.shapes)

    @property
    def by_image(self) -> bool:
        """Whether each image is normalised by its own mean and deviation instead."""
        return isinstance(self.recipe, ImageRecipe) and self.recipe.standardise == "image"

    @property
    def title(self) -> list[str]:
        """Lines that say what it is."""
        told = f"{self.shapes.recorded['network']}, {self.size}, {self.shapes.told}"
        lines = [f"{self.name}: a network of {self.space.name} ({told}).", ""]
        return lines + wrap(f"Genotype {self.genotype.key}", 116, break_on_hyphens=False)

    @property
    def extra(self) -> list[str]:
        """Source of what images are prepared with, and of the classes."""
        parts = []
        if self.by_image:
            parts.append(_PREPARE_EACH)
        elif self.normaliser is not None:
            mean, std = (repr(tuple(round(value, 7) for value in values)) for values in self.normaliser)
            parts.append(_PREPARE.format(mean=mean, std=std))
        if self.labels is not None and len(self.labels) <= _NAMED and not all(map(str.isdigit, self.labels)):
            items = "".join(f"    {label!r},\n" for label in self.labels)
            parts.append(f"CLASSES = (\n{items})")
        return parts


_PREPARE = '''MEAN = {mean}
STD = {std}


def prepare(images: Tensor) -> Tensor:
    """Images as bytes, [B, C, H, W] of 0..255 -> what the network was trained on."""
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std'''

_PREPARE_EACH = '''def prepare(images: Tensor) -> Tensor:
    """Images as bytes, [B, C, H, W] of 0..255 -> what the network was trained on: each with mean 0 and deviation 1."""
    values = images.float()
    deviation = values.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp_min(values[0].numel() ** -0.5)
    return (values - values.mean(dim=(1, 2, 3), keepdim=True)) / deviation'''
