"""The shared supernet: published sizes, one path at a time, and the stand-alone network of the same layout."""

from functools import cache

import pytest
import torch

from nao_ray import registry, rng
from nao_ray.errors import ConfigError
from nao_ray.networks.macro_supernet import MacroSearchStack
from nao_ray.networks.stacks import ImageStack, Stack
from nao_ray.skeletons.darts import Darts
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from tests.networks.building import build, count, keep, put_back, reached, supernet

SPACES = ("nao_cnn_small", "nao_cnn_middle", "enas_micro", "enas_macro")
NETWORKS = [*((name, {}) for name in SPACES), ("enas_micro", {"reduce_last": True})]
COUNTS = {  # without the auxiliary head, and of that
    "nao_cnn_small": (7_387_350, 412_938),
    "nao_cnn_middle": (18_152_950, 412_938),
    "enas_micro": (5_373_140, 412_928),
    "enas_macro": (697_860, 0),
}


def _space(name):
    space = registry.load("space", name)
    return space(space.Config(layers=7)) if name == "enas_macro" else space()


def _graph(name, index):
    """A random genotype; each second one leaves an input of the reduction cell unused, which few random ones do."""
    space = _space(name)
    words = space.sample(rng.child(3, "supernet", index)).key.split()
    if index % 2 and name != "enas_macro":
        unused, used = ("0", "1") if index % 4 == 1 else ("1", "0")
        words[20::2] = [used if word == unused else word for word in words[20::2]]
    return space.lower(space.parse(" ".join(words)))


@pytest.fixture(scope="module")
def tiny():
    """`tiny(name, **options)`, in training mode: made once, so for those that leave its weights alone."""
    made = cache(_tiny)
    return lambda name, **options: made(name, **options).train()


def _tiny(name, **options):
    with rng.torch_seeded(0, "supernet weights"):
        settings = {"network": "small", "cells_per_stage": 1, "channels": 4, "auxiliary": True, **options}
        return _unsettle(supernet.build(_space(name), **settings).double())


def _unsettle(net):
    """Weights and statistics that no two modules share, so that a wrong one shows."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand_like(tensor), alpha=0.1)
    return net


def _images(count=4, size=8):
    return torch.from_numpy(rng.child(0, "supernet images").standard_normal((count, 1, size, size)))


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_published_counts(name, options, monkeypatch):
    for kind in (torch.nn.Conv2d, torch.nn.BatchNorm2d):  # values are no part of it
        monkeypatch.setattr(kind, "reset_parameters", lambda _module: None)
    monkeypatch.setattr(Stack, "draw_weights", lambda _network: None)
    net = supernet.build(registry.load("space", name)(), auxiliary=True, **options)
    counts = {key: parameter.numel() for key, parameter in net.named_parameters()}
    auxiliary = sum(size for key, size in counts.items() if key.startswith("auxiliary."))
    assert (sum(counts.values()) - auxiliary, auxiliary) == COUNTS[name]


def test_no_parameter_is_dead(tiny):
    net, seen = tiny("nao_cnn_small"), set()
    for source in range(6):
        for op in ("sep_conv_3x3", "sep_conv_5x5", "identity"):
            edges = [(Edge(min(source, 1 + node), op),) * 2 for node in range(5)]
            read = {edge.source for pair in edges for edge in pair}
            cell = Cell(2, tuple(edges), tuple(state for state in range(7) if state not in read))
            seen |= reached(net, _images(), ArchGraph("nao", (("normal", cell), ("reduction", cell)))).keys()
    for unused in (0, 1):
        edge = Edge(1 - unused, "identity")
        cell = Cell(2, ((edge, edge),) * 5, (unused, 2, 3, 4, 5, 6))
        seen |= reached(net, _images(), ArchGraph("nao", (("normal", cell), ("reduction", cell)))).keys()
    assert seen == {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_what_has_a_gradient_is_what_the_derived_network_has(name, options, tiny):
    net = tiny(name, **options)
    for index in range(4):
        graph = _graph(name, index)
        shared, own = reached(net, _images(), graph), reached(net.derive(graph), _images())
        sizes, norms = ([[each(grad) for grad in found.values()] for found in (shared, own)] for each in _EACH)
        assert sum(sizes[0]) == sum(sizes[1])
        assert sum(norms[0]) == pytest.approx(sum(norms[1]), rel=1e-9)
    assert len(shared) < (0.4 if name == "enas_macro" else 0.2) * len(list(net.parameters()))


_EACH = (torch.Tensor.numel, lambda grad: grad.square().sum().item())


def test_what_only_a_zero_edge_reads_has_no_gradient():
    net = _tiny("nao_cnn_middle", auxiliary=False)
    zero, conv = Edge(1, "zero"), Edge(0, "sep_conv_3x3")
    dead = Cell(2, ((conv, conv), (Edge(2, "zero"), zero), (zero, zero), (zero, zero), (zero, zero)), (3, 4, 5, 6))
    used = reached(net, _images(), ArchGraph("nao", (("normal", dead), ("reduction", dead))))
    assert "classifier.weight" in used
    assert not any(".nodes." in key for key in used)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_derived_network_of_the_same_layout_is_the_same_function(name, options, tiny):
    """By running statistics, by those of the batch, and in training, after which the running ones are the same too."""
    net, images = tiny(name, **options).eval(), _images()  # modes change seldom: the largest has 17,000 modules
    graphs = [_graph(name, index) for index in range(4)]
    derived = [net.derive(graph) for graph in graphs]
    assert all(isinstance(each, MacroSearchStack if name == "enas_macro" else ImageStack) for each in derived)

    def equal(mode, own, graph):
        outputs = [net(images, graph), own(images)]
        outputs = [out if isinstance(out, torch.Tensor) else torch.cat(out) for out in outputs]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-10, msg=lambda text: f"{mode}: {text}")
        assert outputs[0].std() > 1e-3

    for own, graph in zip(derived, graphs, strict=True):
        equal("running statistics", own, graph)
    with supernet.batch_statistics(net):
        for own, graph in zip(derived, graphs, strict=True):
            with supernet.batch_statistics(own):
                equal("batch statistics", own, graph)
    net.train()
    buffers = keep(net.buffers())
    for own, graph in zip(derived, graphs, strict=True):
        equal("training", own.train(), graph)
        statistics, shared = own.state_dict(), net.derive(graph).state_dict()
        assert statistics.keys() == shared.keys()
        put_back(buffers)  # those that the next one was derived with
        for key, value in statistics.items():
            assert torch.allclose(value, shared[key], rtol=0, atol=1e-10), key


@pytest.mark.parametrize(("network", "shape"), [("cifar10", (3, 32, 32)), ("imagenet", (3, 64, 64))])
def test_other_stems(network, shape):
    net = supernet.build(_space("nao_cnn_small"), network=network, cells_per_stage=2, channels=6, auxiliary=True)
    graph, images = _graph("nao_cnn_small", 3), torch.randn(2, *shape, dtype=torch.float64)
    net = _unsettle(net.double()).eval()
    torch.testing.assert_close(net(images, graph), net.derive(graph)(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SPACES)
def test_copies_are_copies(name, tiny):
    net, graph = tiny(name), _graph(name, 0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    derived = net.derive(graph)
    with torch.no_grad():
        for tensor in (*derived.parameters(), *derived.buffers()):
            tensor.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_layout_by_name():
    graph = _graph("nao_cnn_small", 1)
    with torch.device("meta"):
        final, shared = (build(graph, cells_per_stage=3, channels=20, layout=name) for name in ("final", "supernet"))
    assert count(shared, (3, 32, 32)).macs > 0
    assert [cell.out_channels for cell in shared.cells] == [20] * 3 + [40] * 4 + [80] * 4
    assert final.cells[0].out_channels == 20 * len(graph.cell("normal").output)


@pytest.mark.parametrize("name", SPACES)
def test_a_network_of_the_layout_is_a_derived_one(name, tiny):
    graph = _graph(name, 1)
    with torch.device("meta"):
        alike = build(graph, network="small", cells_per_stage=1, channels=4, auxiliary=True, layout="supernet")
    shapes = [
        {key: value.shape for key, value in net.state_dict().items()} for net in (alike, tiny(name).derive(graph))
    ]
    assert shapes[0] == shapes[1]


# -- modes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_batch_statistics_leave_the_running_ones(name):
    net, graph, images = _tiny(name, dropout=0.5, drop_path=0.5), _graph(name, 2), _images()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with supernet.batch_statistics(net):
        first, again = net(images, graph), net(images, graph)
        for buffer in net.buffers():
            buffer.mul_(3)  # nor are they read
        assert torch.equal(first, net(images, graph))
        assert torch.equal(first, again), "neither dropout nor drop path"
    for buffer in net.buffers():
        buffer.div_(3, rounding_mode=None if buffer.is_floating_point() else "floor")
    assert net.training
    assert all(torch.allclose(value, before[key]) for key, value in net.state_dict().items())
    net(images, graph)
    moved = [key for key, value in net.state_dict().items() if not torch.allclose(value, before[key])]
    assert moved
    assert all("running" in key or "tracked" in key for key in moved)


def test_drop_path_is_off_in_evaluation_and_drops_identity_in_training():
    graph = ArchGraph("nao", tuple((role, Cell(2, ((Edge(1, "identity"),) * 2,) * 5, (0, 2, 3, 4, 5, 6)))
                                   for role in ("normal", "reduction")))  # fmt: skip
    net, images = _tiny("nao_cnn_small", drop_path=0.5), _images()
    assert not torch.equal(net(images, graph)[0], net(images, graph)[0])
    kept = _tiny("nao_cnn_small", drop_path=0.5, drop_path_identity=False)
    assert torch.equal(kept(images, graph)[0], kept(images, graph)[0])
    net.eval()
    assert torch.equal(net(images, graph), net(images, graph))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 5}, "channels must be even"),
        ({"network": "cifar11"}, "no network is named 'cifar11'"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\)"),
        ({"cells_per_stage": 0}, "cells_per_stage must be at least 1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        supernet.build(_space("nao_cnn_small"), **options)


def test_a_space_without_supernet(monkeypatch):
    monkeypatch.setattr(Darts, "shared", None)
    with pytest.raises(ConfigError, match="space darts_cnn has no shared supernet"):
        supernet.build(_space("darts_cnn"))


@pytest.mark.parametrize("name", ["enas_micro", "enas_macro"])
def test_enas_has_no_imagenet(name):
    with pytest.raises(ConfigError, match=f"{name} has no network imagenet"):
        supernet.build(_space(name), network="imagenet")
