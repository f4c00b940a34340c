"""What every skeleton keeps, of networks for images or for text.

It is checked with a space that it is the skeleton of.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from nao_ray import registry, rng
from nao_ray.contracts.checking import about, refused, require
from nao_ray.errors import ConfigError
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.supernet import Composed, batch_statistics
from nao_ray.sizes import Size, read_size
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.training.recipe import ImageRegularisation, Regularisation, TextRegularisation

Space = SearchSpace[Any]

TASKS = ("synthetic", "made_up_text")
"""Whose shapes networks are made for."""
DROPPING: tuple[Regularisation, ...] = (
    ImageRegularisation(auxiliary_weight=0.4, dropout=0.1, drop_path_keep=0.8),
    TextRegularisation(dropout=0.1, dropout_hidden=0.1, dropout_words=0.1, slowness_penalty=0.1),
)


def check_skeleton(space: type[Space] | Space) -> None:
    """Check a space's skeleton as those of nao_ray are checked, with small networks for a small task.

    Args:
        space: a class, made without settings, or an instance; its `skeleton` is checked.

    Raises:
        AssertionError: says what is broken.
    """
    made = space() if isinstance(space, type) else space
    for check in CHECKS:
        with about(f"{made.skeleton or made.name}, {check.__name__.replace('_', ' ')}"):
            check(made)


def dropping(skeleton: Skeleton[Any]) -> Regularisation:
    """Of a training in which much is dropped."""
    return next(found for found in DROPPING if isinstance(found, skeleton.regularisation))


def graph_of(space: Space) -> ArchGraph:
    """One of the space's."""
    return space.lower(space.sample(rng.child(0, "contract of skeletons")))


def small(skeleton: Skeleton[Any]) -> Size:
    """As published for small images or any text, but of 4 channels or units."""
    published = skeleton.published[shapes(skeleton).network]
    return published.changed({"channels": 4, "hidden": 4})


def shapes(skeleton: Skeleton[Any]) -> ImageShapes | TokenShapes:
    """Of small grey images, or of a text of few words."""
    for name in TASKS:
        task = registry.load("task", name)
        found: ImageShapes | TokenShapes = task(task.Config()).shapes
        with suppress(ConfigError):
            skeleton.check(found)
            return found
    raise AssertionError(f"{skeleton.name} makes networks for none of the tasks {', '.join(TASKS)}")


def batch(skeleton: Skeleton[Any]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """What a network is called with, of 3 examples, and the shape of its logits of them."""
    fits = shapes(skeleton)
    if isinstance(fits, TokenShapes):
        tokens = rng.torch_generator(0, "contract of skeletons")
        return (torch.randint(fits.vocabulary, (3, 5), generator=tokens), None), (3, 5, fits.vocabulary)
    return (torch.zeros(3, fits.in_channels, fits.height, fits.width),), (3, fits.num_classes)


def a_network_has_the_shapes_of_the_task(space: Space) -> None:
    """Logits of the task's classes, in evaluation and in training, where an auxiliary head may add its own."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    require(skeleton.name == graph.skeleton, f"lower() names the skeleton {graph.skeleton}, the space {skeleton.name}")
    fits, size, (inputs, wanted) = shapes(skeleton), small(skeleton), batch(skeleton)
    skeleton.check(fits, size, dropping(skeleton))
    with rng.torch_seeded(0, "weights"):
        network = skeleton.build(graph, fits, size, dropping(skeleton))
    for training in (False, True):
        network.train(training)
        tell: Callable[[int, int], None] | None = getattr(network, "set_step", None)
        if training and tell is not None:
            tell(0, 10)
        made = network(*inputs)
        outs = made[:1] if isinstance(fits, TokenShapes) else [made] if torch.is_tensor(made) else made
        require(training or len(outs) == 1, "in evaluation a network makes more than its logits")
        for out in outs:
            shape = tuple(out.shape)
            require(shape == wanted, f"a network makes {[*shape]} of 3 examples, expected {[*wanted]}")


def counts_are_those_of_the_network(space: Space) -> None:
    """Parameters with and without the auxiliary head; counted once, and wider as published."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    counts = skeleton.count(graph, shapes(skeleton), small(skeleton))
    network = skeleton.build(graph, shapes(skeleton), small(skeleton), dropping(skeleton))
    counted, has = counts.num_params + counts.num_params_auxiliary, sum(p.numel() for p in network.parameters())
    require(counted == has, f"{counted} parameters are counted of a network of {has}")
    require(counts.macs > 0, "a network has no multiply-adds")
    sized = skeleton.sized(graph, shapes(skeleton), small(skeleton))
    require(None not in sized.model_dump().values(), f"sized() leaves out a size: {sized}")
    require(sized == small(skeleton), f"sized() makes {sized} of {small(skeleton)}")
    require(skeleton.count(graph, shapes(skeleton), sized) is counts, "one network is counted twice")
    require(
        skeleton.count(graph, shapes(skeleton)).num_params > counts.num_params,
        "as published it is no wider than with 4",
    )


def shared_weights_compute_what_is_derived_of_them(space: Space) -> None:
    """Where there are any: a genotype's logits are those of the network that is derived, also scored with others."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    if skeleton.shared is None:
        with refused(ConfigError, "a supernet, of which there is none,"):
            skeleton.supernet(space, shapes(skeleton))
        return
    with rng.torch_seeded(0, "shared weights"):
        net = skeleton.supernet(space, shapes(skeleton), small(skeleton), dropping(skeleton)).eval()
        (images, *carried), _ = batch(skeleton)
        inputs = images if images.dtype == torch.int64 else torch.randn(images.shape)
    torch.testing.assert_close(net(inputs, *carried, graph), net.derive(graph)(inputs, *carried))
    if isinstance(net, Composed):
        with batch_statistics(net):
            alone = net(inputs, graph)
        torch.testing.assert_close(
            pool_logits(net, inputs, [graph])[0], alone, msg="scored together it has other logits"
        )


def a_size_below_one_is_refused(space: Space) -> None:
    """Before anything starts."""
    skeleton = skeleton_of(space)
    for name in skeleton.sizes.model_fields:
        with refused(ConfigError, f"a network of {name} 0"):
            skeleton.check(shapes(skeleton), read_size(skeleton.sizes, {name: 0}))


CHECKS: tuple[Callable[[Space], None], ...] = (
    a_network_has_the_shapes_of_the_task,
    counts_are_those_of_the_network,
    shared_weights_compute_what_is_derived_of_them,
    a_size_below_one_is_refused,
)
