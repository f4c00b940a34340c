"""What every skeleton of networks for images keeps; it is checked with a space that it is the skeleton of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nao_ray import registry, rng
from nao_ray.contracts.checking import about, refused, require
from nao_ray.errors import ConfigError
from nao_ray.sizes import Size, read_size
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.training.recipe import Recipe

Space = SearchSpace[Any]

RECIPE = Recipe(auxiliary_weight=0.4, dropout=0.1, drop_path_keep=0.8)


def check_skeleton(space: type[Space] | Space) -> None:
    """Check a space's skeleton as those of nao_ray are checked, with small networks for the images of `synthetic`.

    Args:
        space: a class, made without settings, or an instance; its `skeleton` is checked.

    Raises:
        AssertionError: says what is broken.
    """
    made = space() if isinstance(space, type) else space
    for check in CHECKS:
        with about(f"{made.skeleton or made.name}, {check.__name__.replace('_', ' ')}"):
            check(made)


def graph_of(space: Space) -> ArchGraph:
    """One of the space's."""
    return space.lower(space.sample(rng.child(0, "contract of skeletons")))


def small(skeleton: Skeleton[Any]) -> Size:
    """As published for small images, but of 4 channels."""
    return skeleton.published[shapes().network].changed({"channels": 4})


def shapes() -> ImageShapes:
    """Of small grey images."""
    task = registry.load("task", "synthetic")
    found: ImageShapes = task(task.Config()).shapes
    return found


def _images(draw: Callable[..., Tensor]) -> Tensor:
    return draw(3, shapes().in_channels, shapes().height, shapes().width)


def a_network_has_the_shapes_of_the_task(space: Space) -> None:
    """Logits of the task's classes, in evaluation and in training, where an auxiliary head may add its own."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    require(skeleton.name == graph.skeleton, f"lower() names the skeleton {graph.skeleton}, the space {skeleton.name}")
    skeleton.check(shapes(), small(skeleton), RECIPE)
    with rng.torch_seeded(0, "weights"):
        network = skeleton.build(graph, shapes(), small(skeleton), RECIPE)
    wanted = (3, shapes().num_classes)
    out = network.eval()(_images(torch.zeros))
    require(out.shape == wanted, f"a network makes {list(out.shape)} of 3 images, expected {list(wanted)}")
    network.train().set_step(0, 10)
    given = network(_images(torch.zeros))
    outs = [given] if torch.is_tensor(given) else given
    require(all(out.shape == wanted for out in outs), f"in training an output is not {list(wanted)}")


def counts_are_those_of_the_network(space: Space) -> None:
    """Parameters with and without the auxiliary head; counted once, and wider as published."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    counts = skeleton.count(graph, shapes(), small(skeleton))
    network = skeleton.build(graph, shapes(), small(skeleton), RECIPE)
    counted, has = counts.num_params + counts.num_params_auxiliary, sum(p.numel() for p in network.parameters())
    require(counted == has, f"{counted} parameters are counted of a network of {has}")
    require(counts.macs > 0, "a network has no multiply-adds")
    sized = skeleton.sized(graph, shapes(), small(skeleton))
    require(None not in sized.model_dump().values(), f"sized() leaves out a size: {sized}")
    require(sized == small(skeleton), f"sized() makes {sized} of {small(skeleton)}")
    require(skeleton.count(graph, shapes(), sized) is counts, "one network is counted twice")
    require(skeleton.count(graph, shapes()).num_params > counts.num_params, "as published it is no wider than with 4")


def shared_weights_compute_what_is_derived_of_them(space: Space) -> None:
    """Where there are any: a genotype's logits are those of the network that is derived."""
    graph, skeleton = graph_of(space), skeleton_of(space)
    if skeleton.shared is None:
        with refused(ConfigError, "a supernet, of which there is none,"):
            skeleton.supernet(space, shapes())
        return
    with rng.torch_seeded(0, "shared weights"):
        net = skeleton.supernet(space, shapes(), small(skeleton), RECIPE).eval()
        images = _images(torch.randn)
    torch.testing.assert_close(net(images, graph), net.derive(graph)(images))


def a_size_below_one_is_refused(space: Space) -> None:
    """Before anything starts."""
    skeleton = skeleton_of(space)
    for name in skeleton.sizes.model_fields:
        with refused(ConfigError, f"a network of {name} 0"):
            skeleton.check(shapes(), read_size(skeleton.sizes, {name: 0}))


CHECKS: tuple[Callable[[Space], None], ...] = (
    a_network_has_the_shapes_of_the_task,
    counts_are_those_of_the_network,
    shared_weights_compute_what_is_derived_of_them,
    a_size_below_one_is_refused,
)
