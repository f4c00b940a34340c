"""Augmentation of a whole batch at once, on the device that holds the images.

Pad and crop, mirror, normalise, cut out: the standard augmentation of CIFAR. Cutout: DeVries, Taylor, 2017, arXiv
1708.04552 (a square around a uniform pixel, clipped at the borders). A crop of random area and shape (Szegedy et al.,
CVPR 2015, arXiv 1409.4842) and other colours (Howard, 2013, arXiv 1312.5402): those of ImageNet, as in torchvision.

Differs from torchvision: brightness, contrast, saturation and hue change in this order, which it draws; where none of
ten crops lies within the image it is the whole image; nothing is rounded to bytes in between.

Legend: `B` images of a batch, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nao_ray.networks.whole_batch import drawn
from nao_ray.training.augmentation import Augmentation

_TRIES = 10  # for a crop that lies within the image


@dataclass(frozen=True)
class Normaliser:
    """Bytes to numbers of mean 0 and deviation 1 per channel; `mean` and `std` are ``[C]``, of values in [0, 1]."""

    mean: Tensor
    std: Tensor
    by_image: bool = False
    """Every image has its own, over all its pixels, instead."""

    @classmethod
    def of(cls, images: Tensor, *, by_image: bool = False) -> Normaliser:
        """From uint8 images ``[n, C, H, W]``; a channel without variation is only centred."""
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
        share = counts.double() / counts.sum(1, keepdim=True)
        values = torch.arange(256, device=images.device, dtype=torch.float64) / 255
        mean = share @ values
        std = (share @ values.square() - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std < 1e-6, torch.ones_like(std), std)
        return cls(mean.float(), std.float(), by_image)

    def __call__(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` in 0..255 -> float32 of the same shape, channels-last; float ones may be written over."""
        if self.by_image:
            values = images.to(torch.float32, memory_format=torch.channels_last)
            deviation = values.std(dim=(1, 2, 3), keepdim=True, unbiased=False)
            return (values - values.mean(dim=(1, 2, 3), keepdim=True)) / deviation.clamp_min(values[0].numel() ** -0.5)
        scale = (1 / (255 * self.std)).view(1, -1, 1, 1)
        shift = (-self.mean / self.std).view(1, -1, 1, 1)
        return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)


def augment(images: Tensor, generator: torch.Generator, normaliser: Normaliser, recipe: Augmentation) -> Tensor:
    """uint8 ``[B, C, H, W]`` -> float32 ``[B, C, H, W]``, channels-last; every image with its own draws.

    Args:
        images: on the device of `generator`.
        generator: consumed; which draws are made depends on the settings alone.
        normaliser: of the training split.
        recipe: what is done; the square that is cut out gets the mean colour.
    """
    batch, _, height, width = images.shape
    padding, cutout = recipe.crop_padding, recipe.cutout

    def draw(high: int) -> Tensor:
        return drawn(lambda n: torch.randint(high, (n,), generator=generator, device=images.device), batch)

    if padding:
        windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # [B, C, tops, lefts, H, W]
        tops, lefts = draw(2 * padding + 1), draw(2 * padding + 1)
        images = windows[torch.arange(batch, device=images.device), :, tops, lefts]
    if recipe.crop_area is not None:
        images = _resized_crops(images, generator, recipe.crop_area)
    if recipe.flip:
        images = torch.where(draw(2).bool().view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.colour_jitter or recipe.hue_jitter:
        images = recolour(images, *_colour_draws(batch, generator, recipe))
    out = normaliser(images)
    if cutout:
        before = cutout // 2 if recipe.cutout_at == "centre" else 0
        out.mul_(_holes(draw(height) - before, draw(width) - before, height, width, cutout).logical_not_())
    return out


def _resized_crops(images: Tensor, generator: torch.Generator, least: float) -> Tensor:
    """``[B, C, H, W]`` -> the same in float32: crops of at least this share of the area, made as large as the image."""
    height, width = images.shape[2:]

    def draw(*shape: int) -> Tensor:
        return drawn(lambda n: torch.rand(n, *shape, generator=generator, device=images.device), len(images))

    area = (least + (1 - least) * draw(_TRIES)) * (height * width)
    ratio = torch.exp((2 * draw(_TRIES) - 1) * math.log(4 / 3))
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first, any_fits = fits.int().argmax(1, keepdim=True), fits.any(1, keepdim=True)
    grid = []
    for sides, side, fitting in ((heights, height, 0), (widths, width, 1)):
        length = torch.where(any_fits, sides.gather(1, first), side)  # [B, 1]
        start = (draw(1) * (side - length + 1)).floor().clamp_max(side - 1)
        pixels = torch.arange(side, device=images.device)
        at = start + ((pixels + 0.5) * length / side - 0.5).clamp_min(0).minimum(length - 1)  # in pixels of the image
        shape = (-1, 1, side) if fitting else (-1, side, 1)
        grid.append(((2 * at + 1) / side - 1).view(shape).expand(-1, height, width))
    return F.grid_sample(images.float(), torch.stack(grid[::-1], dim=3), align_corners=False, padding_mode="border")


def _colour_draws(batch: int, generator: torch.Generator, recipe: Augmentation) -> tuple[Tensor, Tensor]:
    """Factors ``[3, B]`` of brightness, contrast, saturation, and turns ``[B]`` of the hue in shares of the circle."""

    def draw(examples: int) -> Tensor:
        return torch.rand(4, examples, generator=generator, device=generator.device).T

    numbers = 2 * drawn(draw, batch).T - 1
    return 1 + recipe.colour_jitter * numbers[:3], recipe.hue_jitter * numbers[3]


def recolour(images: Tensor, factors: Tensor, turns: Tensor) -> Tensor:
    """``[B, C, H, W]`` in 0..255 -> the same in float32, in other colours; grey images have neither saturation nor hue.

    Args:
        images: in colour where C is 3.
        factors: ``[3, B]``, of brightness, contrast and saturation.
        turns: ``[B]``, of the hue, in shares of the circle.
    """
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1).unbind()
    values = (images.float() * brightness).clamp_(0, 255)
    mean = _grey(values).mean(dim=(2, 3), keepdim=True)
    values = torch.lerp(mean, values, contrast).clamp_(0, 255)
    if images.shape[1] != 3:
        return values
    values = torch.lerp(_grey(values).expand_as(values), values, saturation).clamp_(0, 255)
    highest, lowest = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    chroma = highest - lowest
    red, green, blue = (values / chroma.clamp_min(1e-6)).chunk(3, dim=1)
    is_red, is_green = values[:, :1] == highest, values[:, 1:2] == highest
    hue = torch.where(is_red, green - blue, torch.where(is_green, 2 + blue - red, 4 + red - green))  # in sixths
    turned = [(number + hue + 6 * turns.view(-1, 1, 1, 1)) % 6 for number in (5, 3, 1)]
    return torch.cat([highest - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in turned], dim=1)


def _grey(values: Tensor) -> Tensor:
    """Luma ``[B, 1, H, W]``."""
    if values.shape[1] != 3:
        return values.mean(dim=1, keepdim=True)
    weights = values.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (values * weights).sum(dim=1, keepdim=True)


def _holes(top: Tensor, left: Tensor, height: int, width: int, side: int) -> Tensor:
    """``[B, 1, H, W]``, true within the square of `side` from ``(top, left)``, each ``[B]``; clipped at borders."""

    def inside(first: Tensor, size: int) -> Tensor:
        start = first.unsqueeze(1)
        pixels = torch.arange(size, device=first.device)
        return (pixels >= start) & (pixels < start + side)

    return (inside(top, height).unsqueeze(2) & inside(left, width).unsqueeze(1)).unsqueeze(1)
