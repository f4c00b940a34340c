"""A folder of pictures, one folder for each class: `class/picture.png`, with or without `train/`, `val/`, `test/`."""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.folder import Folder
from nao_ray.tasks.images.picture_task import PictureConfig, PictureTask
from nao_ray.tasks.images.sources import Source


class ImageFolderConfig(PictureConfig):
    """Where the pictures are, and what their splits are called."""

    path: str
    """The folder of the classes' folders, or of the splits' with those in them."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    hashed: ClassVar[frozenset[str]] = PictureConfig.hashed | {"valid_split", "unused_splits"}


class ImageFolder(PictureTask[ImageFolderConfig]):
    """Pictures by class, as torchvision's ImageFolder reads them."""

    Config: ClassVar[type[TaskConfig]] = ImageFolderConfig

    name: ClassVar[str] = "image_folder"

    def _open(self) -> Source:
        return Folder(self.config.path, self.config.splits)
