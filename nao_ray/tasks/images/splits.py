"""What every image task does with its rows: check them, split them, name them.

Legend: `n` images, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.tasks.images.base import Images, Split

S = TypeVar("S", bound=Split)

VALID_SHARE = 0.1
"""Share of the training rows that validate: 5,000 of CIFAR-10's 50,000 (NAO, section 4)."""


def stratified(labels: NDArray[np.int64], count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Ascending indices of `count` of `n` rows, classes in their proportions (to the nearest row).

    Rows are drawn by (seed, purpose), class by class; what rounding leaves goes to the largest remainders.
    """
    assert 0 <= count <= len(labels), (count, len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / max(len(labels), 1)
    take = np.floor(exact).astype(np.int64)
    take[np.argsort(take - exact, kind="stable")[: count - take.sum()]] += 1
    chosen = [
        rng.child(seed, purpose, int(label)).permutation(np.flatnonzero(labels == label))[:number]
        for label, number in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ascending indices of the training and of the validation rows: 90/10 in every class."""
    valid = stratified(labels, round(len(labels) * VALID_SHARE), seed, "train/validation split")
    return np.setdiff1d(np.arange(len(labels)), valid, assume_unique=True), valid


def split_images(rows: S, seed: int, where: str) -> tuple[S, S]:
    """Training and validation split of all rows that a search may see.

    Raises:
        DataError: too few rows for two splits.
    """
    train, valid = split(rows.labels, seed)
    if not len(train) or not len(valid):
        raise DataError(f"{where}: {len(rows)} training images are too few; a 90/10 split needs at least 5")
    return rows.take(train), rows.take(valid)


def share(labels: NDArray[np.int64], part: float, seed: int) -> NDArray[np.int64] | None:
    """Ascending indices of a stratified part, in (0, 1], of the rows, at least two; None: all."""
    if part >= 1:
        return None
    return stratified(labels, min(len(labels), max(2, round(len(labels) * part))), seed, "data share")


def shrink(rows: Images, size: int) -> Images:
    """Square images of `size` pixels a side, which divides theirs: each pixel is the mean of a square."""
    n, channels, side, _ = rows.images.shape
    if size == side:
        return rows
    squares = rows.images.reshape(n, channels, size, side // size, size, side // size)
    return Images(np.round(squares.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8), rows.labels)


def check_labels(labels: NDArray[np.int64], num_classes: int, where: str) -> None:
    """Labels have to be 0..num_classes-1.

    Raises:
        DataError: one is not; says which row.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise DataError(f"{where}: label {labels[wrong[0]]} in row {wrong[0]}, expected 0..{num_classes - 1}")


def digest(*splits: Images) -> str:
    """Hex digest of images and labels, in order."""
    sha = hashlib.sha256()
    for rows in splits:
        sha.update(str(rows.images.shape).encode())
        sha.update(np.ascontiguousarray(rows.images).data)
        sha.update(np.ascontiguousarray(rows.labels, dtype="<i8").data)
    return sha.hexdigest()


def count_shared(rows: Images, *others: Images) -> int:
    """How many of `rows` have pixels that one of `others` has too."""
    seen = {_pixels(image) for split in others for image in split.images}
    return sum(_pixels(image) in seen for image in rows.images)


def _pixels(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
