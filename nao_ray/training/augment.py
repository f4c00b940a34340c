"""Augmentation of a whole batch at once, on the device that holds the images.

Pad and crop, mirror, normalise, cut out: the standard augmentation of CIFAR. Cutout: DeVries, Taylor, 2017, arXiv
1708.04552 (a square around a uniform pixel, clipped at the borders).

Legend: `B` images of a batch, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nao_ray.training.augmentation import Augmentation


@dataclass(frozen=True)
class Normaliser:
    """Bytes to numbers of mean 0 and deviation 1 per channel; `mean` and `std` are ``[C]``, of values in [0, 1]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Normaliser:
        """From uint8 images ``[n, C, H, W]``; a channel without variation is only centred."""
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
        share = counts.double() / counts.sum(1, keepdim=True)
        values = torch.arange(256, device=images.device, dtype=torch.float64) / 255
        mean = share @ values
        std = (share @ values.square() - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std < 1e-6, torch.ones_like(std), std)
        return cls(mean.float(), std.float())

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 ``[B, C, H, W]`` -> float32 of the same shape, channels-last."""
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
        return torch.randint(high, (batch,), generator=generator, device=images.device)

    if padding:
        windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # [B, C, tops, lefts, H, W]
        tops, lefts = draw(2 * padding + 1), draw(2 * padding + 1)
        images = windows[torch.arange(batch, device=images.device), :, tops, lefts]
    if recipe.flip:
        images = torch.where(draw(2).bool().view(-1, 1, 1, 1), images.flip(3), images)
    out = normaliser(images)
    if cutout:
        out.mul_(_holes(draw(height), draw(width), height, width, cutout).logical_not_())
    return out


def _holes(y: Tensor, x: Tensor, height: int, width: int, side: int) -> Tensor:
    """``[B, 1, H, W]``, true within the square of `side` around ``(y, x)``, each ``[B]``; clipped at the borders."""

    def inside(centre: Tensor, size: int) -> Tensor:
        start = centre.unsqueeze(1) - side // 2
        pixels = torch.arange(size, device=centre.device)
        return (pixels >= start) & (pixels < start + side)

    return (inside(y, height).unsqueeze(2) & inside(x, width).unsqueeze(1)).unsqueeze(1)
