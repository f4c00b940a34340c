"""A split of pictures that are decoded as they are read: one that does not fit in memory.

Legend: `n` pictures, `B` pictures of a batch, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.tasks.images import pictures, views
from nao_ray.tasks.images.base import Split
from nao_ray.tasks.images.pictures import Shape
from nao_ray.tasks.images.sources import Index, Reader

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel, of values in [0, 1]."""
_NEIGHBOURS = 10  # that may take a broken picture's place


@dataclass(frozen=True)
class Crops:
    """What is drawn for the training pictures of an epoch; of each the same, whoever decodes it."""

    seed: int
    least: float | None
    """Share of the picture's area; None: the centre, as in evaluation."""


@dataclass(frozen=True)
class StreamedImages(Split):
    """One split. It travels to the processes that decode."""

    parts: tuple[tuple[Reader, Index], ...]
    """Where the pictures are, and at which indices there; one part after the other."""
    labels: NDArray[np.int64]
    """``[n]``, 0..num_classes-1."""
    size: Shape
    """``(C, H, W)``, that each is made."""
    scale: Scale
    centre: float = 1.0
    """Share of the sides of the largest centre of this shape, that evaluation sees."""
    replaces: bool = False
    """In training the next picture, with its label, takes the place of one that cannot be read."""
    loaders: int | None = None
    """Processes that decode; None: as the device wants it."""

    @cached_property
    def _bounds(self) -> Index:
        """Where each part begins."""
        return np.cumsum([0, *(len(keep) for _, keep in self.parts[:-1])])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.size)

    @property
    def images(self) -> NDArray[np.uint8]:
        """``[n, C, H, W]``: all of it, decoded now, as evaluation sees it."""
        return self.read(range(len(self)))[0]

    def take(self, indices: Index) -> StreamedImages:
        parts = tuple(
            (reader, keep[indices[(indices >= start) & (indices < start + len(keep))] - start])
            for (reader, keep), start in zip(self.parts, self._bounds, strict=True)
        )
        return replace(self, parts=parts, labels=self.labels[indices])

    def joined(self, other: StreamedImages) -> StreamedImages:
        return replace(self, parts=(*self.parts, *other.parts), labels=np.concatenate([self.labels, other.labels]))

    def read(self, chosen: Sequence[int], crops: Crops | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pictures ``[B, C, H, W]`` and labels ``[B]``.

        Args:
            chosen: positions in the split, each once.
            crops: of training; None: the centres, as evaluation sees them.

        Raises:
            DataError: one cannot be read; says which.
        """
        images, labels = np.empty((len(chosen), *self.size), dtype=np.uint8), self.labels[np.asarray(chosen)]
        for place in np.argsort(np.asarray(chosen), kind="stable"):  # neighbours of one file after the other
            position = int(chosen[place])
            try:
                images[place] = self._seen(position, crops)
            except DataError as error:
                if crops is None:
                    raise
                if not self.replaces:
                    raise DataError(
                        f"{error}; put it right, or task.broken=replace trains on the next instead"
                    ) from None
                images[place], labels[place] = self._neighbour(position, crops, error)
        return images, labels

    def _seen(self, position: int, crops: Crops | None) -> NDArray[np.uint8]:
        part = int(np.searchsorted(self._bounds, position, side="right")) - 1
        reader, keep = self.parts[part]
        where, content = reader.picture(int(keep[position - self._bounds[part]]))
        least = None if crops is None else crops.least

        def box(height: int, width: int) -> views.Box:
            if crops is None or least is None:
                return views.centre_box(height, width, self.size[2] / self.size[1], self.centre)
            return views.random_box(height, width, least, rng.child(crops.seed, "crop", position))

        return pictures.view(content, self.size, where, box)

    def _neighbour(self, position: int, crops: Crops, error: DataError) -> tuple[NDArray[np.uint8], np.int64]:
        """The next picture that can be read."""
        sound = replace(self, replaces=False)
        for step in range(1, min(_NEIGHBOURS, len(self) - 1) + 1):
            try:
                images, labels = sound.read([(position + step) % len(self)], crops)
            except DataError:
                continue
            return images[0], labels[0]
        raise DataError(f"{error}; nor can the pictures after it")
