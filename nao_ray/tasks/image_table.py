"""Any Parquet table of images and labels, or a folder of such files, local or at an s3:// or gs:// address."""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.parquet import SPLIT_COLUMN, ImageFormat, Table
from nao_ray.tasks.images.picture_task import PictureConfig, PictureTask


class ImageTableConfig(PictureConfig):
    """Where the table is, and what its columns mean."""

    path: str
    """A Parquet file, a folder of them, or an address."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    hashed: ClassVar[frozenset[str]] = PictureConfig.hashed | {"valid_split", "unused_splits", "image_format"}
    image_column: str | None = None
    """PNG, JPEG, raw bytes or a struct with `bytes`; by default the column `image` or `img`."""
    image_format: ImageFormat = "auto"
    """Image files or raw bytes; `auto`: as the column's type and its first value say."""
    label_column: str = "label"
    """Integers, text or truth values."""
    split_column: str | None = SPLIT_COLUMN
    """Where there is none, the names of files and folders tell the splits; where they say nothing either, all rows
    train and validate. None: there is none, whatever a column is called."""


class ImageTable(PictureTask[ImageTableConfig]):
    """Images of one shape with a label each."""

    Config: ClassVar[type[TaskConfig]] = ImageTableConfig

    name: ClassVar[str] = "image_table"

    def _open(self) -> Table:
        config = self.config
        images = ("image", "img") if config.image_column is None else (config.image_column,)
        return Table(
            config.path,
            image_columns=images,
            label_columns=(config.label_column,),
            split_column=config.split_column,
            splits=config.splits,
            image_format=config.image_format,
        )
