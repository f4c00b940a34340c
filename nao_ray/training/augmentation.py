"""The part of a recipe that is about images. Imports without torch."""

from __future__ import annotations

from pydantic import Field

from nao_ray.settings import Settings


class Augmentation(Settings):
    """How an example differs from epoch to epoch: of images; tokens are not augmented."""

    crop_padding: int = Field(default=4, ge=0)
    """Black pixels around the image from which a crop of its size is cut; 0: no cropping."""
    flip: bool = True
    """Mirror half of the images, left and right."""
    cutout: int = Field(default=0, ge=0)
    """Side of the square that is blotted out, in pixels; 0: none."""
