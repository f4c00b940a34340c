"""The base of tasks that read people's own pictures, in a table or in folders: classes and shapes follow from them."""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from nao_ray.errors import DataError
from nao_ray.tasks.images import pictures, sources
from nao_ray.tasks.images.base import Images, ImageShapes, Split
from nao_ray.tasks.images.image_task import ImageTask, ImageTaskConfig
from nao_ray.tasks.images.labels import MOST_CLASSES, Classes, Labels, check_numbering
from nao_ray.tasks.images.picture_legend import PictureLegend
from nao_ray.tasks.images.streamed import StreamedImages
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role, Wanted

_MOST_BYTES = 8 * 2**30  # of decoded splits that are kept in memory; of no machine, so that all read the same
_IMAGENET_SIDE = 96  # from this size on the stem halves the image three times


class PictureConfig(ImageTaskConfig):
    """What the splits are called, and what the pictures become."""

    path: str
    train_split: str = "train"
    """Name of the split that trains: a value of the split column, or part of the names of files or folders. `train`
    also finds `training`, in any case."""
    valid_split: str | None = None
    """Name of the split that validates; None: `validation`, `valid`, `val` or `dev`, if there is one, else a tenth of
    the training rows."""
    test_split: str = "test"
    """Name of the split that full training tests on."""
    unused_splits: tuple[str, ...] = ()
    """Names of splits that are there and are not to be read."""
    num_classes: int | None = Field(default=None, ge=2, le=MOST_CLASSES)
    """None: as many as the training rows have distinct labels, in their order. Given: labels are 0..num_classes-1, and
    where they are text there are so many of them."""
    image_shape: tuple[int, int, int] | None = None
    """``(C, H, W)``: raw bytes have it, channels first; encoded images are converted and resized to it. By default the
    size of the first image, in colour if any training image is."""
    network: Literal["auto", "cifar10", "cifar100", "imagenet", "small"] = "auto"
    """The stem; `auto`: by the size of the images."""

    stream: Literal["auto"] | bool = "auto"
    """Pictures are decoded as they are read, from crops of their own, and not kept in memory; `auto`: where all of
    them, decoded, take more than 8 GiB. They have any size, and are made `image_shape`."""
    centre: float | None = Field(default=None, gt=0, le=1)
    """Of streamed pictures, the share of the sides of the largest centre that evaluation sees; None: 224/256 for the
    network `imagenet` (resized to 256, cut to 224), else all."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of streamed pictures, each channel's, of values in [0, 1]: ImageNet's. Of grey ones the mean of these."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """The same of the deviation."""
    broken: Literal["refuse", "replace"] = "refuse"
    """In training on streamed pictures one that cannot be read ends it, or the next takes its place."""
    loaders: int | None = Field(default=None, ge=0)
    """Processes that decode streamed pictures; 0: the one that trains. None: where a GPU trains, one for each core that
    may be used, at most 16; else 0. What is trained is the same."""
    hashed: ClassVar[frozenset[str]] = frozenset({"stream", "centre", "mean", "std", "broken", "loaders"})

    @field_validator("image_shape")
    @classmethod
    def _check_shape(cls, shape: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        return shape if shape is None else pictures.check_shape(shape)

    @property
    def splits(self) -> Wanted:
        """What the splits are called."""
        return Wanted(self.train_split, self.valid_split, self.test_split, self.unused_splits)


C = TypeVar("C", bound=PictureConfig)


class PictureTask(ImageTask[C]):
    """A task writes `_open`, which tells splits, labels and pictures."""

    _tested: ClassVar[Role] = "test"
    """What the data call the split that full training tests on; where that is `validation`, none validates."""

    _told: PictureLegend | None = None
    """Of the training pictures, which are then not asked."""

    @abstractmethod
    def _open(self) -> sources.Source:
        """The pictures; reads none, and a split that is not there is no error yet."""

    @property
    def legend(self) -> dict[str, Any]:
        told = PictureLegend(
            classes=self._classes.values,
            numbering=self._numbering,
            image_shape=self.image_shape,
            network=self.network,
            streams=self.streams,
        )
        return told.model_dump(mode="json")

    def by(self, legend: Mapping[str, Any]) -> Self:
        told = PictureLegend.read(legend, self._where)
        told.check(self.config, self._where)
        task = type(self)(self.config)
        task._told = told
        return task

    @cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # constant once read
        """From the config or from the training labels."""
        return self.config.num_classes or len(self._classes)

    @property
    def class_names(self) -> Sequence[str]:
        names = self._numbering
        if names is None or any(not isinstance(value, int) or value >= len(names) for value in self._classes.values):
            return self._classes.names
        return tuple(names[int(value)] for value in self._classes.values)

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # constant once read
        """From the config or from the training images."""
        if self._told is not None:
            return self._told.image_shape
        return self.config.image_shape or sources.native_shape(self._source, len(self._labels))

    @cached_property
    def network(self) -> str:  # type: ignore[override]  # constant once read
        """From the config or from the size of the images."""
        return self._told.network if self._told is not None else self._network_of(self.image_shape)

    @property
    def outline(self) -> ImageShapes | None:
        if self.config.network == "auto" and self.config.image_shape is None:
            return None
        shape = self.config.image_shape or (3, 32, 32)
        return ImageShapes(*shape, num_classes=self.config.num_classes or 2, network=self._network_of(shape))

    def _network_of(self, shape: tuple[int, int, int]) -> str:
        if self.config.network != "auto":
            return self.config.network
        if max(shape[1:]) >= _IMAGENET_SIDE:
            return "imagenet"
        return "cifar10" if shape[0] == 3 else "small"

    @cached_property
    def _source(self) -> sources.Source:
        return self._open()

    @cached_property
    def _labels(self) -> Labels:
        return self._source.check("train")

    @cached_property
    def _valid_labels(self) -> Labels | None:
        if self._tested == "validation":
            return None
        labels = self._source.labels("validation")
        if labels is None and self.config.valid_split is not None:
            self._source.check("validation")
        return labels

    @cached_property
    def _classes(self) -> Classes:
        if self._told is not None:
            return Classes(self._told.classes)
        return Classes.of(self._labels, f"{self._where}, training rows", self.config.num_classes)

    @cached_property
    def _numbering(self) -> tuple[str, ...] | None:
        return self._source.names("train") if self._told is None else self._told.numbering

    @property
    def _validation_is_given(self) -> bool:
        return self._valid_labels is not None

    def training_rows(self) -> Split:
        return self._read("train", self._labels)

    def validation_rows(self) -> Split | None:
        return None if self._valid_labels is None else self._read("validation", self._valid_labels)

    def test_rows(self) -> Split:
        return self._read(self._tested, self._source.check(self._tested))

    def odd_test(self) -> tuple[str, ...]:
        labels = self._source.check(self._tested)
        numbers = self._classes.numbers(labels, f"{self._where}, {self._tested} rows")
        return self._missing(numbers, "test")

    def _read(self, role: Role, labels: Labels) -> Split:
        """The rows of a split, once all its labels were found to be of a class."""
        check_numbering(self._source.names(role), self._numbering, f"{self._where}: the {role} rows")
        numbers = self._classes.numbers(labels, f"{self._where}, {'training' if role == 'train' else role} rows")
        keep = None if role == self._tested else self._kept(numbers, role, self._sizes)
        if self.streams:
            return self._streamed(role, numbers, keep)
        return read_rows(
            self._source, role, numbers, keep, self.image_shape, convert=self.config.image_shape is not None
        )

    # -- pictures that are decoded as they are read ----------------------------------------------------------------

    @cached_property
    def streams(self) -> bool:
        """Whether the splits are too large for memory, or are said to be."""
        if self._told is not None:
            return self._told.streams
        if self.config.stream != "auto":
            return self.config.stream
        count = len(self._labels) + len(self._valid_labels or ())
        decoded = min(count, self.config.limit or count) * math.prod(self.image_shape)
        return decoded > _MOST_BYTES and not self._source.is_raw("train", self.image_shape)

    def _streamed(self, role: Role, numbers: NDArray[np.int64], keep: NDArray[np.int64] | None) -> StreamedImages:
        config = self.config
        if self._source.is_raw(role, self.image_shape):
            raise DataError(f"{self._where}: raw bytes are not streamed; set task.stream=false")
        keep = np.arange(len(numbers)) if keep is None else keep
        return StreamedImages(
            ((self._source.reader(role), keep),),
            numbers[keep],
            self.image_shape,
            (self._per_channel("mean", config.mean), self._per_channel("std", config.std)),
            self._share,
            config.broken == "replace",
            config.loaders,
        )

    @property
    def centre(self) -> float | None:
        """Share of the sides of the largest centre of a picture that evaluation sees; None, not streamed: all."""
        return self._share if self.streams else None

    @property
    def _share(self) -> float:
        given = self.config.centre
        return given if given is not None else 224 / 256 if self.network == "imagenet" else 1.0

    def _per_channel(self, name: str, given: tuple[float, ...]) -> tuple[float, ...]:
        channels = self.image_shape[0]
        if channels == 1 and len(given) == 3:
            return (sum(given) / 3,)
        if len(given) != channels:
            raise DataError(f"{self._where}: task.{name} has {len(given)} numbers, the pictures {channels} channels")
        return given

    def _digest(self, train: Split, valid: Split) -> str:
        """Of what is streamed: names, sizes and classes of pictures, or of their files, and how they are seen.

        Nothing is decoded.
        """
        if not isinstance(train, StreamedImages) or not isinstance(valid, StreamedImages):
            return super()._digest(train, valid)
        sha = hashlib.sha256(json.dumps([self.image_shape, train.scale, train.centre]).encode())
        for name, size in self._source.sizes(("train", "validation") if self._validation_is_given else ("train",)):
            sha.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        for split in (train, valid):
            for array in (*(keep for _, keep in split.parts), split.labels):
                sha.update(np.ascontiguousarray(array, dtype="<i8").data)
        return sha.hexdigest()

    @property
    def _sizes(self) -> tuple[int, int] | None:
        valid = self._valid_labels
        return None if valid is None else (len(self._labels), len(valid))

    def _files(self) -> list[FileIdentity] | None:
        if self.streams:  # they are listed and not decoded, which need not be remembered
            return None
        return self._source.files(("train", "validation"))

    def _layout(self) -> tuple[str, tuple[str, ...]]:
        layout, odd = self._source.told()
        if not self.streams:
            return layout, odd
        note = self._source.reader("train").note
        return f"{layout}, streamed", (*odd, *((note,) if note else ()))

    @property
    def _where(self) -> str:
        return f"task {self.name}, {self.config.path}"


def read_rows(
    source: sources.Source,
    role: Role,
    numbers: NDArray[np.int64],
    keep: NDArray[np.int64] | None,
    shape: tuple[int, int, int],
    *,
    convert: bool = False,
) -> Images:
    """Pictures and classes of the rows of a split at the ascending indices `keep`; None: of all.

    Raises:
        DataError: a picture cannot be decoded or has another shape.
    """
    keep = np.arange(len(numbers)) if keep is None else keep
    return Images(sources.read(source, role, keep, shape, convert=convert), numbers[keep])
