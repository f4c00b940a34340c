"""Which part of a picture a network sees: a crop of random area and shape in training, the centre in evaluation.

As torchvision's `RandomResizedCrop` (Szegedy et al., CVPR 2015, arXiv 1409.4842), and its `Resize` and `CenterCrop`.

Differs from torchvision: in evaluation the centre is cut out first, then resized, once; crops are drawn by NumPy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_TRIES = 10  # for a crop that lies within the picture
_RATIOS = (3 / 4, 4 / 3)


class Box(NamedTuple):
    """A part of a picture, in its pixels."""

    top: float
    left: float
    height: float
    width: float


def random_box(height: int, width: int, least: float, generator: np.random.Generator) -> Box:
    """Of an area of at least the share `least` and a shape between 3:4 and 4:3, where that lies within the picture.

    Args:
        height: of the picture.
        width: of the picture.
        least: in (0, 1].
        generator: consumed, by as many numbers whatever the picture.
    """
    shares, shapes, at = generator.random(_TRIES), generator.random(_TRIES), generator.random(2)
    areas = (least + (1 - least) * shares) * (height * width)
    ratios = np.exp(math.log(_RATIOS[0]) + shapes * math.log(_RATIOS[1] / _RATIOS[0]))
    widths, heights = np.round(np.sqrt(areas * ratios)), np.round(np.sqrt(areas / ratios))
    fits = np.flatnonzero((widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height))
    if not len(fits):
        return centre_box(height, width, _nearest(width / height))
    tall, wide = int(heights[fits[0]]), int(widths[fits[0]])
    return Box(int(at[0] * (height - tall + 1)), int(at[1] * (width - wide + 1)), tall, wide)


def centre_box(height: int, width: int, ratio: float, share: float = 1.0) -> Box:
    """The centre, of the shape `ratio` (width by height): the share `share` of the sides of the largest that fits."""
    tall = min(height, width / ratio) * share
    wide = tall * ratio
    return Box((height - tall) / 2, (width - wide) / 2, tall, wide)


def _nearest(ratio: float) -> float:
    return min(max(ratio, _RATIOS[0]), _RATIOS[1])
