"""What every skeleton keeps, whatever its name: a new file is tested the moment it exists."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nao_ray import registry
from nao_ray.contracts import skeletons as contract
from nao_ray.contracts.skeletons import CHECKS, dropping, small
from nao_ray.errors import ConfigError
from nao_ray.sizes import read_size
from nao_ray.skeletons.base import skeleton_of
from nao_ray.skeletons.images.base import ImageSkeleton
from nao_ray.tasks.texts.base import TokenShapes

NAMES = registry.names("skeleton")
SPACES = [name for name in registry.names("space") if registry.load("space", name).skeleton in NAMES]


def _skeleton(space):
    return registry.load("skeleton", registry.load("space", space).skeleton)


def test_every_skeleton_has_a_space():
    assert {registry.load("space", name).skeleton for name in SPACES} == set(NAMES)


@pytest.fixture(params=SPACES)
def space(request):
    return registry.load("space", request.param)()


@pytest.fixture
def shapes(space):
    return contract.shapes(skeleton_of(space))


@pytest.fixture(params=[name for name in SPACES if issubclass(_skeleton(name), ImageSkeleton)])
def image_space(request):
    return registry.load("space", request.param)()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(space, check):
    check(space)


class _NoReading(TorchDispatchMode):
    """Refuses what would make a device wait: that the host looks at a tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket is not torch.ops.aten._local_scalar_dense, "a tensor was read on the host"
        return func(*args, **(kwargs or {}))


def test_drop_path_follows_a_tensor_that_the_host_never_reads(image_space):
    space = image_space
    graph, shapes = contract.graph_of(space), contract.shapes(skeleton_of(space))
    network = skeleton_of(space).build(graph, shapes, small(skeleton_of(space)), dropping(skeleton_of(space))).train()
    network.set_step(4, 10)
    before = network.keep_probability(0)
    network.capturable()
    held = network._progress
    assert network.keep_probability(0).item() == pytest.approx(before)
    images = torch.zeros(3, shapes.in_channels, shapes.height, shapes.width)
    with _NoReading():
        network.set_step(9, 10)
        network(images)
    assert network.keep_probability(0).item() < before
    assert network.keep_probability(network.num_cells - 1).item() == pytest.approx(0.8)
    assert network._progress is held, "or a recorded step would not see it"
    assert not any("progress" in name for name in network.state_dict())
    undropped = skeleton_of(space).build(graph, shapes, small(skeleton_of(space)))
    undropped.capturable()
    assert undropped.keep_probability(0) == 1.0


def test_shared_weights_or_one_line_of_refusal(space, shapes):
    skeleton = skeleton_of(space)
    if skeleton.shared is None:
        for refused in (lambda: skeleton_of(space, shared=True), lambda: skeleton.supernet(space, shapes)):
            with pytest.raises(ConfigError, match=f"^space {space.name} has no shared supernet; spaces of [^\n]*$"):
                refused()
        return
    if isinstance(skeleton, ImageSkeleton):
        with pytest.raises(ConfigError, match="channels must be even"):
            skeleton.check(shapes, skeleton.sizes.model_construct(channels=5), shared=True)


def test_what_cannot_be_built_is_refused(image_space):
    skeleton = skeleton_of(image_space)
    with pytest.raises(ConfigError, match="makes networks for images, and the task has none"):
        skeleton.check(TokenShapes(vocabulary=10))
    with pytest.raises(ConfigError, match=r"channels: .*greater than or equal to 2, got 0"):
        read_size(skeleton.sizes, {"channels": 0})
