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
    centre: float | None = None
    """Share of the sides of the largest centre of a picture that the network saw in evaluation, resized; None: it saw
    them as they are."""
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
    def _cropped(self) -> dict[str, str]:
        """What the source of `prepare` is filled with: whether it crops."""
        if self.centre is None:
            return {"crop": "", "of": "Images as bytes, [B, C, H, W] of 0..255", "cropped": "images"}
        height, width = self.example.shape[-2:]
        crop = _CROP.format(height=height, width=width, centre=self.centre)
        return {"crop": crop, "of": "Images as bytes, [B, C, h, w] of 0..255, of any size", "cropped": "crop(images)"}

    @property
    def extra(self) -> list[str]:
        """Source of what images are prepared with, and of the classes."""
        parts = []
        if self.by_image:
            parts.append(_PREPARE_EACH.format(**self._cropped))
        elif self.normaliser is not None:
            mean, std = (repr(tuple(round(value, 7) for value in values)) for values in self.normaliser)
            parts.append(_PREPARE.format(mean=mean, std=std, **self._cropped))
        if self.labels is not None and len(self.labels) <= _NAMED and not all(map(str.isdigit, self.labels)):
            items = "".join(f"    {label!r},\n" for label in self.labels)
            parts.append(f"CLASSES = (\n{items})")
        return parts


_CROP = '''SIZE = ({height}, {width})
CENTRE = {centre!r}


def resampling(length: int, part: float, size: int, device: torch.device) -> Tensor:
    """[size, length]: what makes `size` pixels of the middle `part` of `length` ones, as Pillow's BILINEAR does."""
    scale = part / size
    centres = (length - part) / 2 + (torch.arange(size, device=device) + 0.5) * scale
    distances = (torch.arange(length, device=device) + 0.5 - centres[:, None]).abs()
    weights = (1 - distances / max(scale, 1)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def crop(images: Tensor) -> Tensor:
    """Images [B, C, h, w] of 0..255 -> their centre, resized: [B, C, *SIZE], of 0..255."""
    (height, width), (tall, wide) = images.shape[2:], SIZE
    part = min(height, width * tall / wide) * CENTRE
    rows = resampling(height, part, tall, images.device)
    columns = resampling(width, part * wide / tall, wide, images.device)
    return (rows @ images.float() @ columns.T).round()


'''

_PREPARE = '''{crop}MEAN = {mean}
STD = {std}


def prepare(images: Tensor) -> Tensor:
    """{of} -> what the network was trained on."""
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (MEAN, STD))
    return ({cropped} / 255 - mean) / std'''

_PREPARE_EACH = '''{crop}def prepare(images: Tensor) -> Tensor:
    """{of} -> what the network was trained on: each with mean 0 and deviation 1."""
    values = {cropped}.float()
    deviation = values.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp_min(values[0].numel() ** -0.5)
    return (values - values.mean(dim=(1, 2, 3), keepdim=True)) / deviation'''
