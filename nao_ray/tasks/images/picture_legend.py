"""What the training pictures alone tell: which classes there are, and what is made of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from nao_ray.errors import DataError
from nao_ray.tasks.images.labels import Label
from nao_ray.tasks.parts.legend import Legend

if TYPE_CHECKING:
    from nao_ray.tasks.images.picture_task import PictureConfig


class PictureLegend(Legend):
    """Of a `PictureTask`."""

    classes: tuple[Label, ...] = Field(min_length=2)
    """The label of each class."""
    numbering: tuple[str, ...] | None = None
    """What the data call the labels 0, 1, ..., where they do."""
    image_shape: tuple[int, int, int]
    """``(C, H, W)``."""
    network: str
    streams: bool
    """Pictures are seen by their centre, and standardised by the config's mean and deviation."""

    def check(self, config: PictureConfig, where: str) -> None:
        """Refuse settings that say otherwise.

        Raises:
            DataError: one does; says which.
        """
        said = {
            "num_classes": (config.num_classes, len(self.classes)),
            "image_shape": (config.image_shape, self.image_shape),
            "network": (None if config.network == "auto" else config.network, self.network),
            "stream": (None if config.stream == "auto" else config.stream, self.streams),
        }
        for name, (given, kept) in said.items():
            if given is not None and given != kept:
                raise DataError(f"{where}: task.{name} is {given}, and the checkpoint was trained with {kept}")
