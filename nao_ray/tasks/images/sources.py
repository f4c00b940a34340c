"""Where pictures come from: a Parquet table or a folder, in splits.

Legend: `n` images, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError, MissingDataError
from nao_ray.tasks.images import pictures
from nao_ray.tasks.images.labels import Labels
from nao_ray.tasks.images.pictures import Shape
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role

Index = NDArray[np.int64]


class Reader(ABC):
    """The pictures of a split, one by one in any order; travels to other processes."""

    note: str = ""
    """What is odd about reading them so, in words."""

    @abstractmethod
    def picture(self, index: int) -> tuple[str, bytes]:
        """What begins a message, and the content of the split's row `index`.

        Raises:
            DataError: it cannot be read.
        """


class Source(ABC):
    """Labelled pictures, of which those of other splits are neither opened nor decoded."""

    path: str

    @abstractmethod
    def labels(self, role: Role) -> Labels | None:
        """Of every row of the split, in a fixed order; None: there is no such split.

        Raises:
            DataError: they are not labels, or splits cannot be told apart.
        """

    @abstractmethod
    def reader(self, role: Role) -> Reader:
        """The pictures of a split that is there, in any order."""

    def pictures(self, role: Role, keep: Index) -> Iterator[tuple[int, str, bytes]]:
        """(position in `keep`, what begins a message, content) of the rows at the ascending indices `keep`."""
        reader = self.reader(role)
        for place, index in enumerate(keep):
            yield place, *reader.picture(int(index))

    @abstractmethod
    def sizes(self, roles: tuple[Role, ...]) -> Iterable[tuple[str, int]]:
        """(name below the path, bytes) of every file that is opened for these splits: what they are without reading."""

    @abstractmethod
    def files(self, roles: tuple[Role, ...]) -> list[FileIdentity] | None:
        """What is opened for these splits; None: that cannot be told."""

    @abstractmethod
    def told(self) -> tuple[str, tuple[str, ...]]:
        """How the splits are told apart, in words, and what is odd about them."""

    def is_raw(self, role: Role, shape: Shape | None) -> bool:
        """Whether the pictures are bytes of pixels, channels first, and not image files."""
        return False

    def names(self, role: Role) -> tuple[str, ...] | None:
        """What the numbers 0, 1, ... of the labels stand for, where the data say it."""
        return None

    def check(self, role: Role) -> Labels:
        """The labels of a split that has to be there.

        Raises:
            MissingDataError: it is not.
        """
        labels = self.labels(role)
        if labels is None or not len(labels):
            raise MissingDataError(f"{self.path}: has no {role} images: {self.told()[0]}")
        return labels


def native_shape(source: Source, count: int) -> Shape:
    """``(C, H, W)`` of the training pictures: the first one's size, and colour if any of them is.

    Raises:
        DataError: they are raw bytes, or one of them is no picture.
    """
    if source.is_raw("train", None):
        raise DataError(f"{source.path}: raw bytes need image_shape")
    first: Shape | None = None
    for _, where, content in source.pictures("train", np.arange(count)):
        shape = pictures.shape_of(content, where)
        first = first or shape
        if shape[0] == 3:
            return (3, *first[1:])
    assert first is not None
    return first


def read(source: Source, role: Role, keep: Index, shape: Shape, *, convert: bool = False) -> NDArray[np.uint8]:
    """``[n, C, H, W]``, the pictures at the ascending indices `keep`.

    Raises:
        DataError: one cannot be decoded, or has another shape and `convert` is false; says which.
    """
    images, is_raw = np.empty((len(keep), *shape), dtype=np.uint8), source.is_raw(role, shape)
    for place, where, content in source.pictures(role, keep):
        images[place] = (
            _raw(content, shape, where) if is_raw else pictures.decode(content, shape, where, convert=convert)
        )
    return images


def _raw(content: bytes, shape: Shape, where: str) -> NDArray[np.uint8]:
    if len(content) != int(np.prod(shape)):
        raise DataError(f"{where}: {len(content)} raw bytes, expected {int(np.prod(shape))} for the shape {shape}")
    if content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) and pictures.is_encoded(content):
        raise DataError(f"{where}: an image file among raw bytes; a column holds one or the other")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
