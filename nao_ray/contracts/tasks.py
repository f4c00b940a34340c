"""What every task keeps: splits that are apart and always the same, and a hash that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.contracts.checking import about, require
from nao_ray.errors import DataError
from nao_ray.skeletons.images.base import NETWORKS
from nao_ray.tasks.base import Task
from nao_ray.tasks.images.base import Images, ImageShapes
from nao_ray.tasks.images.streamed import StreamedImages
from nao_ray.tasks.texts.base import Tokens, TokenShapes
from nao_ray.training.recipe import ImageRecipe, TextRecipe

Make = Callable[..., Task[Any]]
"""Makes the task anew; settings on top of those that give it its data."""


def check_task(task: type[Task[Any]], **settings: object) -> None:
    """Check a task as those of nao_ray are checked.

    Args:
        task: a class.
        settings: of its `Config`, so that it finds its data.

    Raises:
        AssertionError: says what is broken.
    """

    def make(**more: object) -> Task[Any]:
        return task(task.Config(**{**settings, **more}))

    for check in CHECKS:
        with about(f"{task.name}, {check.__name__.replace('_', ' ')}"):
            check(make)


def splits_are_what_the_task_says(make: Make) -> None:
    """Of its shape, type and classes, and not empty; its stem is one that networks have."""
    task = make()
    shapes, splits = task.shapes, task.load()
    if isinstance(shapes, TokenShapes):
        for split in splits:
            _check_tokens(split, shapes)
        return
    require(isinstance(shapes, ImageShapes), f"shapes are {shapes}, expected those of images or of tokens")
    assert isinstance(shapes, ImageShapes)
    for split in splits:
        _check_images(split, shapes)
    require(shapes.network in NETWORKS, f"network is {shapes.network!r}, expected one of {', '.join(NETWORKS)}")


def _check_tokens(split: Tokens, shapes: TokenShapes) -> None:
    require(split.dtype == np.int64 and split.ndim == 1, f"tokens are {split.dtype}{list(split.shape)}, expected [n]")
    require(len(split) > 1, "a split has less than two tokens")
    least, most = split.min(), split.max()
    require(0 <= least <= most < shapes.vocabulary, f"tokens are {least}..{most}, expected 0..{shapes.vocabulary - 1}")


def _check_images(split: Images | StreamedImages, shapes: ImageShapes) -> None:
    images = split.images
    require(images.dtype == np.uint8, f"images are {images.dtype}, expected uint8")
    require(split.labels.dtype == np.int64, f"labels are {split.labels.dtype}, expected int64")
    wanted = (len(split), shapes.in_channels, shapes.height, shapes.width)
    require(images.shape == wanted, f"images are {list(images.shape)}, expected {list(wanted)}")
    require(len(split) > 0, "a split is empty")
    least, most = split.labels.min(), split.labels.max()
    require(
        0 <= least <= most < shapes.num_classes, f"labels are {least}..{most}, expected 0..{shapes.num_classes - 1}"
    )


def loading_again_gives_the_same(make: Make) -> None:
    """In another instance."""
    for first, again in zip(make().load(), make().load(), strict=True):
        pairs = zip(_arrays(first), _arrays(again), strict=True)
        same = all(np.array_equal(one, two) for one, two in pairs)
        require(same, "the splits are others when they are loaded again: draw them with a generator of your own")


def _arrays(split: Images | StreamedImages | Tokens) -> tuple[NDArray[Any], ...]:
    return (split,) if isinstance(split, np.ndarray) else (split.images, split.labels)


def the_hash_names_the_data(make: Make) -> None:
    """64 hexadecimal digits, the same for the same data."""
    digest = make().data_hash()
    require(len(digest) == 64 and int(digest, 16) >= 0, f"data_hash is {digest!r}, expected 64 hexadecimal digits")
    require(digest == make().data_hash(), "data_hash is another one when it is asked for again")


def what_is_read_is_told_in_one_line(make: Make) -> None:
    """Of its facts; the digest is the hash."""
    facts = make().facts()
    require(facts.digest == make().data_hash(), "facts().digest is not data_hash()")
    require("\n" not in facts.line, f"facts().line is more than one line: {facts.line!r}")


def the_test_split_is_refused_when_it_is_asked_for(make: Make) -> None:
    """`check_test` refuses what `load_test` would, and takes what it gives."""
    try:
        make().load_test()
    except DataError:
        try:
            make().check_test()
        except DataError:
            return
        raise AssertionError("load_test raises DataError, and check_test does not") from None
    make().check_test()


def a_legend_stands_for_the_training_data(make: Make) -> None:
    """As JSON: by it shapes and test split are the same."""
    task, told = make(), make().by(json.loads(json.dumps(make().legend)))
    require(told.shapes == task.shapes, f"by its legend shapes are {told.shapes}, else {task.shapes}")
    try:
        expected = task.load_test()
    except DataError:
        return
    pairs = zip(_arrays(expected), _arrays(told.load_test()), strict=True)
    require(all(np.array_equal(one, two) for one, two in pairs), "by its legend the test split is another one")


def an_epoch_has_the_batches_it_says(make: Make) -> None:
    """On the device, of one shape but the last, in an order that the generator alone decides."""
    import torch

    task = make()
    family = TextRecipe if isinstance(task.shapes, TokenShapes) else ImageRecipe
    objective = task.objective(torch.device("cpu"), family(batch=8))
    one, two = (list(objective.batches(rng.torch_generator(7, "contract of tasks"))) for _ in range(2))
    require(len(one) == objective.steps >= 1, f"an epoch has {len(one)} batches, and steps says {objective.steps}")
    shapes = [[tuple(part.shape) for part in batch] for batch in one]
    require(all(shape == shapes[0] for shape in shapes[:-1]), f"batches before the last one differ: {shapes[0]}")
    same = all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))
    require(same, "equal generators give different batches")


CHECKS: tuple[Callable[[Make], None], ...] = (
    splits_are_what_the_task_says,
    loading_again_gives_the_same,
    the_hash_names_the_data,
    what_is_read_is_told_in_one_line,
    the_test_split_is_refused_when_it_is_asked_for,
    a_legend_stands_for_the_training_data,
    an_epoch_has_the_batches_it_says,
)
