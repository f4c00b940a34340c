"""Rows of a task from a data set that torch knows: whatever has a length and gives (image, label) by index."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError
from nao_ray.tasks.images.base import Images


class MapDataset(Protocol):
    """A `torch.utils.data.Dataset` with a length, or anything that is used like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...  # noqa: ANN401


def rows(dataset: MapDataset) -> Images:
    """All of it: images ``[C, H, W]``, tensors or arrays, PIL pictures; 8 bits, or floats of 0 to 1; with labels.

    Raises:
        DataError: it is empty, or an item is not such a pair, or of another shape than the first; says which.
    """
    pairs = [_pair(dataset, index) for index in range(len(dataset))]
    if not pairs:
        raise DataError(f"the data set {type(dataset).__name__} is empty")
    for index, (image, _) in enumerate(pairs):
        if image.shape != pairs[0][0].shape:
            shapes = f"{list(image.shape)}, that of item 0 {list(pairs[0][0].shape)}"
            raise DataError(f"item {index} of {type(dataset).__name__} has an image of shape {shapes}; resize them")
    return Images(np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs], dtype=np.int64))


def _pair(dataset: MapDataset, index: int) -> tuple[NDArray[np.uint8], int]:
    where = f"item {index} of {type(dataset).__name__}"
    try:
        image, label = dataset[index]
        pixels, number = np.asarray(image), int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} is no pair of an image and a label: {error}") from error
    if not hasattr(image, "dtype"):  # a picture of PIL's has its channels last, or none
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if pixels.ndim != 3:
        raise DataError(f"{where} has an image of shape {list(pixels.shape)}; expected [channels, height, width]")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(f"{where} has values from {pixels.min():g} to {pixels.max():g}; expected floats of 0 to 1")
        pixels = np.rint(pixels * 255)
    elif pixels.dtype != np.uint8:
        raise DataError(f"{where} has an image of {pixels.dtype}; expected 8 bits, or floats of 0 to 1")
    return pixels.astype(np.uint8), number
