"""The part of a recipe that is about images. Imports without torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from nao_ray.settings import Settings


class Augmentation(Settings):
    """How an image differs from epoch to epoch, in the order in which it is done; tokens are not augmented."""

    unchanged: ClassVar[dict[str, Any]] = {
        "crop_padding": 0,
        "crop_area": None,
        "flip": False,
        "colour_jitter": 0.0,
        "hue_jitter": 0.0,
        "cutout": 0,
    }
    """What leaves an example as it is."""
    crop_padding: int = Field(default=4, ge=0)
    """Black pixels around the image from which a crop of its size is cut; 0: no cropping."""
    crop_area: float | None = Field(default=None, gt=0, le=1)
    """Least share of the image's area that a crop has, of a shape between 3:4 and 4:3; it is resized to the image's
    size. Null: there is none."""
    flip: bool = True
    """Mirror half of the images, left and right."""
    colour_jitter: float = Field(default=0.0, ge=0, le=1)
    """Brightness, contrast and saturation are each multiplied by a number between 1 - this and 1 + this."""
    hue_jitter: float = Field(default=0.0, ge=0, le=0.5)
    """The hue is turned by at most this share of the circle, either way."""
    standardise: Literal["split", "image"] = "split"
    """Whose mean and deviation become 0 and 1, in evaluation too: each channel's, over the training images; or all
    pixels' of the image itself (NAO's TensorFlow code)."""
    cutout: int = Field(default=0, ge=0)
    """Side of the square that is blotted out, in pixels; 0: none."""
    cutout_at: Literal["centre", "corner"] = "centre"
    """What is drawn among the image's pixels: the square's centre, or its upper left corner (NAO's TensorFlow code)."""
