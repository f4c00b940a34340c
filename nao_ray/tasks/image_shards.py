"""Pictures in tar shards, as WebDataset has them, a file or a folder of them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.picture_task import PictureConfig, PictureTask
from nao_ray.tasks.images.shards import Shards


class ImageShardsConfig(PictureConfig):
    """Where the shards are, and which member of a sample is its label."""

    path: str
    """A tar file, or a folder of them, named after their splits: `imagenet-train-000000.tar`."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    hashed: ClassVar[frozenset[str]] = PictureConfig.hashed | {"valid_split", "unused_splits"}
    label_ending: str = Field(default="cls", pattern=r"^[a-z0-9_.]+$")
    """Of the member with the label, a number or a name, beside `key.jpg`."""


class ImageShards(PictureTask[ImageShardsConfig]):
    """Pictures with a label each."""

    Config: ClassVar[type[TaskConfig]] = ImageShardsConfig

    name: ClassVar[str] = "image_shards"

    def _open(self) -> Shards:
        return Shards(self.config.path, self.config.splits, self.config.label_ending)
