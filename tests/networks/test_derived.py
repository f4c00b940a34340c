"""The networks against the naive second implementation, and what `build` promises besides."""

import naive_backbone as naive
import pytest
import torch

import nao_ray
from nao_ray import registry, rng
from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.networks.ops import FactorizedReduce
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from tests.networks.building import NETWORKS, build, input_shape

SPACES = ("nao_cnn", "nao_cnn_small", "nao_cnn_middle")
SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 16, 16), "imagenet": (3, 64, 64), "small": (1, 28, 28)}


def _genotype(space, index):
    """A random genotype; each second one leaves an input of the reduction cell unused, which few random ones do."""
    words = registry.load("space", space)().sample(rng.child(7, f"networks {space}", index)).key.split()
    if index % 2:
        unused, used = ("0", "1") if index % 4 == 1 else ("1", "0")
        words[20::2] = [used if word == unused else word for word in words[20::2]]
    return " ".join(words)


SMALLER = {"cifar10": (3, 16, 16), "cifar100": (3, 8, 8), "imagenet": (3, 64, 64), "small": (1, 20, 20)}


def _compare(text, space, network, cells_per_stage, channels, shapes=SHAPES):
    classes = {"cifar100": 100, "imagenet": 23}.get(network, 10)
    built = build(
        registry.load("space", space)().lower(registry.load("space", space)().parse(text)),
        network=network,
        cells_per_stage=cells_per_stage,
        channels=channels,
        num_classes=classes,
        auxiliary=True,
    )
    naive.fill(built.double().eval())
    images = naive.images(2, *shapes[network])
    expected = naive.logits(
        text,
        space,
        images,
        imagenet=network == "imagenet",
        cells_per_stage=cells_per_stage,
        channels=channels,
        num_classes=classes,
    )
    with torch.no_grad():
        logits = built(images)
    assert logits.shape == (2, classes)
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    assert (logits - expected).norm() < 1e-9 * expected.norm()  # some architectures make small logits of this rule


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("space", SPACES)
def test_logits(space, network):
    for index in range(8):
        _compare(_genotype(space, index), space, network, cells_per_stage=1, channels=4)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "network"), list(enumerate(NETWORKS)))
@pytest.mark.parametrize("space", SPACES)
def test_logits_of_more_and_deeper(space, number, network):
    """Each genotype by one network: those before are compared by all, which differ in stem and head alone."""
    for index in range(8 * (1 + number), 8 * (2 + number)):
        size = {"cells_per_stage": 1 + index % 3, "channels": 2 * (2 + index % 4)}
        _compare(_genotype(space, index), space, network, **size, shapes=SMALLER)


@pytest.mark.parametrize(
    ("name", "space"),
    [(name, space) for space in SPACES for name in registry.load("space", space).published],
)
def test_logits_of_the_published(name, space):
    _compare(registry.load("space", space).published[name], space, "cifar10", cells_per_stage=2, channels=6)


def test_the_random_genotypes_hold_what_is_easily_got_wrong():
    seen = set()
    for space in SPACES:
        for index in range(8):
            graph = registry.load("space", space)().lower(_parse(space, index))
            cell = graph.cell("reduction")
            seen |= {f"input {state} unused in a reduction" for state in (0, 1) if state in cell.output}
            for role, part in graph.cells:
                for edge in (edge for node in part.nodes for edge in node):
                    strided = role == "reduction" and edge.source < 2
                    seen.add(f"{edge.op}, stride {2 if strided else 1}")
    ops = {op for space in SPACES for op in registry.load("space", space).ops}
    expected = {f"{op}, stride {stride}" for op in ops for stride in (1, 2)}
    assert expected | {"input 0 unused in a reduction", "input 1 unused in a reduction"} <= seen


def _parse(space, index):
    return registry.load("space", space)().parse(_genotype(space, index))


def test_build_network_is_the_same_network():
    text = registry.load("space", "nao_cnn").published["NAONet-A"]
    by_name, by_text, by_dialect = (
        nao_ray.build_network(genotype, space="nao_cnn", cells_per_stage=1, channels=4, dialect=dialect).double().eval()
        for genotype, dialect in [("NAONet-A", None), (text, None), (_v2(text), "v2")]
    )
    images = naive.images(1, 3, 32, 32)
    for network in (by_name, by_text, by_dialect):
        naive.fill(network)
    with torch.no_grad():
        assert torch.equal(by_name(images), by_text(images))
        assert torch.equal(by_name(images), by_dialect(images))


def _v2(text):
    return " ".join(str(int(word) - 5 * (i % 2)) for i, word in enumerate(text.split()))


@pytest.mark.parametrize("space", SPACES)
def test_swapping_the_edges_of_a_node_leaves_the_function(space):
    numbers = _genotype(space, 3).split()
    images = torch.from_numpy(rng.child(0, "images").standard_normal((2, 3, 16, 16)))

    def network_of(words):
        with rng.torch_seeded(0, "weights"):
            built = nao_ray.build_network(" ".join(words), space=space, cells_per_stage=1, channels=4)
        return built.double().eval()

    network = network_of(numbers)
    with torch.no_grad():
        expected = network(images)
        for node in range(10):
            swapped = numbers.copy()
            swapped[4 * node : 4 * node + 4] = numbers[4 * node + 2 : 4 * node + 4] + numbers[4 * node : 4 * node + 2]
            other = network_of(swapped)
            _exchange(network, other, role="reduction" if node >= 5 else "normal", node=node % 5)
            torch.testing.assert_close(expected, other(images), rtol=0, atol=1e-12)


def _exchange(network, swapped, role, node):
    """Give `swapped` the weights of `network`, those of one node's two edges exchanged."""
    state = {}
    for name, tensor in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "cells" and parts[2] == "nodes" and parts[3] == str(node):
            reduction = int(parts[1]) in (1, 3)
            if reduction == (role == "reduction"):
                parts[4] = str(1 - int(parts[4]))
        state[".".join(parts)] = tensor
    swapped.load_state_dict(state)


# -- options --------------------------------------------------------------------------------------------------


def _graph(*ops, output=None):
    nodes = tuple((Edge(i % 2, op), Edge((i + 1) % 2, op)) for i, op in enumerate(ops))
    cell = Cell(2, nodes, output or tuple(range(2, 2 + len(ops))))
    return ArchGraph("nao", (("normal", cell), ("reduction", cell)))


def test_any_graph_of_known_operations_is_built():
    nodes = ((Edge(0, "sep_conv_3x3"),), (Edge(2, "identity"), Edge(1, "zero"), Edge(0, "max_pool_3x3")))
    normal = Cell(2, nodes, (2, 3))  # one edge, three edges, a used state in the output, inputs not in it
    reduction = Cell(2, ((Edge(1, "zero"), Edge(1, "zero")), (Edge(1, "identity"),)), (0, 2, 3))
    network = build(ArchGraph("nao", (("normal", normal), ("reduction", reduction))), network="small", channels=6)
    out = network(torch.ones(2, 1, 8, 8))
    out.sum().backward()
    assert out.shape == (2, 10)


def test_relu_before_the_head():
    images = naive.images(2, 3, 16, 16)
    plain, rectified = (
        build(_graph("conv_3x3", "identity"), cells_per_stage=1, channels=4, relu_before_head=flag).double().eval()
        for flag in (False, True)
    )
    for network in (plain, rectified):
        naive.fill(network)
    last = []
    plain.cells[-1].register_forward_hook(lambda _module, _args, out: last.append(out.value.clone()))
    with torch.no_grad():
        assert not torch.allclose(plain(images), rectified(images))
        expected = last[0].clamp(min=0).mean((2, 3)) @ plain.classifier.weight.T
        torch.testing.assert_close(rectified(images), expected)


def test_auxiliary_head_is_for_training_alone():
    network = build(_graph("conv_1x1", "identity"), network="small", cells_per_stage=1, channels=4, auxiliary=True)
    images = torch.ones(2, 1, 28, 28)
    logits, auxiliary = network(images)
    assert logits.shape == auxiliary.shape == (2, 10)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert isinstance(network.eval()(images), torch.Tensor)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("space", SPACES)
def test_training_reaches_every_parameter(space, network):
    for index in range(3):
        genotype = _parse(space, index)
        graph = registry.load("space", space)().lower(genotype)
        built = build(graph, network=network, cells_per_stage=1, channels=4, auxiliary=True, dropout=0.2, drop_path=0.2)
        images = torch.from_numpy(rng.child(0, "images", index).standard_normal((4, *SHAPES[network]))).float()
        with rng.torch_seeded(index, "dropout"):
            logits, auxiliary = built(images)
            (logits.square().sum() + auxiliary.square().sum()).backward()
        missing = [name for name, parameter in built.named_parameters() if parameter.grad is None]
        assert not missing or _has_zero(graph), missing  # a zero operation cuts off what leads to it
        assert all(torch.isfinite(p.grad).all() for p in built.parameters() if p.grad is not None)


def _has_zero(graph):
    return any(edge.op == "zero" for _, cell in graph.cells for node in cell.nodes for edge in node)


def test_weights_are_drawn_from_the_seeded_generator():
    networks = []
    for seed in (1, 1, 2):
        with rng.torch_seeded(seed, "weights"):
            networks.append(build(_graph("sep_conv_5x5"), network="small", channels=32))
    first, again, other = ([p.detach() for p in network.parameters()] for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    for module in networks[0].modules():  # kaiming: variance 2 / fan in
        if isinstance(module, torch.nn.Conv2d):
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.2), module
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "cifar11"}, "no network is named 'cifar11'; known: cifar10, cifar100, imagenet, small"),
        ({"cells_per_stage": 0}, "cells_per_stage must be at least 1, got 0"),
        ({"channels": -2}, "channels must be at least 1, got -2"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"network": "imagenet", "channels": 7}, "choose an even number of channels"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"drop_path": -0.1}, r"drop_path must be in \[0, 1\)"),
        ({"image_size": 0}, "image_size must be at least 1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(_graph("conv_1x1"), **options)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="no operation is named 'conv_9x9'; known: zero, identity"):
        build(_graph("conv_9x9"))
    with pytest.raises(ConfigError, match="a normal and a reduction cell of two inputs, got cells normal"):
        build(ArchGraph("nao", (("normal", _graph("conv_1x1").cell("normal")),)))
    with pytest.raises(GenotypeError, match="did you mean"):
        nao_ray.build_network("NAONet-C", space="nao_cnn")


def test_odd_channels_where_nothing_halves_them():
    assert build(_graph("conv_1x1"), channels=5, cells_per_stage=1)(torch.ones(2, 3, 8, 8)).shape == (2, 10)


def test_input_shapes():
    assert input_shape("imagenet") == (3, 224, 224)
    assert input_shape("small", image_size=8) == (1, 8, 8)
    assert input_shape("cifar10", in_channels=1) == (1, 32, 32)
    with pytest.raises(ConfigError, match="known: cifar10"):
        input_shape("mnist")


def test_the_reduction_of_an_unused_input_has_no_relu():
    cell = Cell(2, ((Edge(1, "conv_1x1"),),), (0, 2))
    network = build(ArchGraph("nao", (("normal", cell), ("reduction", cell))), cells_per_stage=1, channels=4)
    reducer = network.cells[1].reducers["0"]
    assert type(reducer) is FactorizedReduce
    assert not reducer.rectified_input
