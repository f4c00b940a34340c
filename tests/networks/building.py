"""Networks by loose options, as the tests of this folder name them: each goes to where a skeleton takes it.

Values are not checked on the way, so that what a skeleton says of bad ones is seen.
"""

from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from nao_ray import registry
from nao_ray.networks import counting
from nao_ray.networks.enas_micro import MicroSearchStack
from nao_ray.networks.macro_supernet import MacroSearchStack
from nao_ray.networks.stacks import SearchStack
from nao_ray.networks.supernet import batch_statistics
from nao_ray.skeletons.base import skeleton_of
from nao_ray.skeletons.images.base import NETWORKS, ImageSkeleton, image_shapes
from nao_ray.tasks.images.base import ImageShapes

_PATHS = {"nao": SearchStack, "enas_micro": MicroSearchStack, "enas_macro": MacroSearchStack}
"""By the skeleton: networks of one genotype in the layout that it has within the shared weights."""


def build(graph, *, layout="final", **options):
    """The network of one genotype; with the layout `supernet`, as it stands in the shared weights."""
    skeleton, shapes, size, recipe = _sorted(graph.skeleton, options)
    if layout == "supernet":
        return _PATHS[graph.skeleton](graph, skeleton.stack_config(shapes, size, recipe))
    return skeleton.build(graph, shapes, size, recipe)


def _supernet(space, **options):
    """The shared weights of a space."""
    skeleton_of(space, shared=True)
    skeleton, shapes, size, recipe = _sorted(space.skeleton, options)
    return skeleton.supernet(space, shapes, size, recipe)


supernet = SimpleNamespace(build=_supernet, batch_statistics=batch_statistics)


def reached(network, images, *choice):
    """By name, the gradients after a training step's backward pass on images ``[B, C, H, W]``; nothing is changed."""
    if network not in _TENSORS:
        _TENSORS[network] = dict(network.named_parameters()), list(network.buffers())
    parameters, buffers = _TENSORS[network]
    before = keep(buffers)
    training = network.training
    outputs = (network if training else network.train())(images, *choice)
    loss = sum(out.square().sum() for out in (outputs if isinstance(outputs, tuple) else (outputs,)))
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    put_back(before)
    if not training:
        network.eval()
    return {name: grad for name, grad in zip(parameters, grads, strict=True) if grad is not None}


def keep(tensors):
    """For `put_back`: by type, tensors and their values; thousands of them, by one call a type."""
    kinds = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    return [(kind, torch._foreach_add(kind, 0)) for kind in kinds.values()]


def put_back(kept):
    """The values that tensors had."""
    with torch.no_grad():
        for tensors, values in kept:
            torch._foreach_copy_(tensors, values)


_TENSORS: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()
"""Parameters and buffers of networks: of 17,000 modules, the largest here, they take long to find."""


def count(network, shape):
    """Counts on an image of ``(C, H, W)``."""
    return counting.count(network, torch.empty(1, *shape))


def input_shape(network, in_channels=None, image_size=None):
    """``(C, H, W)`` of a network's images."""
    shapes = _shapes({"network": network, "in_channels": in_channels, "image_size": image_size})
    return shapes.in_channels, shapes.height, shapes.width


def _sorted(name, options: dict[str, Any]):
    cls = registry.load("skeleton", name)
    options = {key: value for key, value in options.items() if key not in cls.former_sizes}
    shapes = _shapes(options)
    size = cls.sizes.model_construct(**{name: options.pop(name, None) for name in cls.sizes.model_fields})
    recipe = ImageSkeleton.plain.model_copy(
        update={
            "auxiliary_weight": float(options.pop("auxiliary", False)),
            "dropout": options.pop("dropout", 0.0),
            "drop_path_keep": 1 - options.pop("drop_path", 0.0),
            **{name: options.pop(name) for name in ("drop_path_identity",) if name in options},
        }
    )
    return cls(cls.Config(**options)), shapes, size, recipe


def _shapes(options):
    network, size = options.pop("network", "cifar10"), options.pop("image_size", None)
    given = {name: options.pop(name, None) for name in ("num_classes", "in_channels")}
    shapes = image_shapes(network, **given)
    if size is None:
        return shapes
    return ImageShapes(shapes.in_channels, size, size, shapes.num_classes, network)


__all__ = ["NETWORKS", "build", "count", "input_shape", "keep", "put_back", "reached", "supernet"]
