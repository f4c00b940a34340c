"""Any Parquet table of images and labels, or a folder of such files, local or at an s3:// or gs:// address."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from nao_ray.tasks import _parquet
from nao_ray.tasks._image_task import ImageTask, ImageTaskConfig
from nao_ray.tasks.base import Images, TaskConfig

_IMAGENET_SIDE = 96  # from this size on the stem halves the image three times


class ImageTableConfig(ImageTaskConfig):
    """Where the table is, and what its columns mean."""

    path: str
    """A Parquet file, a folder of them, or an address."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    image_column: str | None = None
    """PNG, JPEG, raw bytes or a struct with `bytes`; by default the column `image` or `img`."""
    label_column: str = "label"
    """Integers 0, 1, 2, ..."""
    split_column: str = "split"
    """Where there is none, files named `train-*` and `test-*` are the splits; else all rows train and validate."""
    train_split: str = "train"
    """Value of the split column (or start of the file names) that trains and validates."""
    test_split: str = "test"
    num_classes: int | None = Field(default=None, ge=2)
    """By default one more than the largest training label."""
    image_shape: tuple[int, int, int] | None = None
    """``(C, H, W)``: raw bytes have it, channels first; encoded images are converted and resized to it. By default the
    shape of the first image."""
    network: Literal["auto", "cifar10", "cifar100", "imagenet", "small"] = "auto"
    """The stem; `auto`: by the size of the images."""

    @field_validator("image_shape")
    @classmethod
    def _check_shape(cls, shape: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        return shape if shape is None else _parquet.check_shape(shape)


class ImageTable(ImageTask[ImageTableConfig]):
    """Images of one shape with integer labels."""

    Config: ClassVar[type[TaskConfig]] = ImageTableConfig

    name: ClassVar[str] = "image_table"

    @cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # constant once read
        """From the config or from the training labels."""
        return self.config.num_classes or int(self._rows.labels.max()) + 1

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # constant once read
        """From the config or from the first training image."""
        return self.config.image_shape or self._table.shape(self._rows)

    @cached_property
    def network(self) -> str:  # type: ignore[override]  # constant once read
        """From the config or from the size of the images."""
        if self.config.network != "auto":
            return self.config.network
        if max(self.image_shape[1:]) >= _IMAGENET_SIDE:
            return "imagenet"
        return "cifar10" if self.image_shape[0] == 3 else "small"

    def _training_rows(self) -> Images:
        rows = self._rows
        return self._table.read(rows, self.image_shape, self._kept(rows.labels), resize=self._resize)

    def _test_rows(self) -> Images:
        return self._table.read(self._table.rows(self.config.test_split), self.image_shape, resize=self._resize)

    def check_test(self) -> None:
        self._table.check_split(self.config.test_split)

    @cached_property
    def _table(self) -> _parquet.Table:
        config = self.config
        images = ("image", "img") if config.image_column is None else (config.image_column,)
        return _parquet.Table(
            config.path,
            image_columns=images,
            label_columns=(config.label_column,),
            split_column=config.split_column,
            train_split=config.train_split,
        )

    @cached_property
    def _rows(self) -> _parquet.Rows:
        return self._table.rows(self.config.train_split)

    @property
    def _resize(self) -> bool:
        return self.config.image_shape is not None

    @property
    def _where(self) -> str:
        return f"task {self.name}, {self.config.path}"
