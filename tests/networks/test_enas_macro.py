"""The final network of ENAS's macro space: published counts, and the forward pass against a second implementation."""

import pytest
import torch
import torch.nn.functional as F

import nao_ray
from nao_ray import rng
from nao_ray.errors import ConfigError
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig
from tests.networks.building import build, count

PARAMS = {  # of the published 24 layers by width, separable convolutions built as ordinary ones
    36: 5_997_852,
    48: 10_653_648,
    64: 18_927_552,
    72: 23_950_008,
    80: 29_562_800,
    96: 42_559_392,
    128: 75_636_608,
}


def on_meta(genotype="ENAS-macro", **settings):
    with torch.device("meta"):
        return nao_ray.build_network(genotype, space="enas_macro", **settings)


@pytest.mark.parametrize(("channels", "params"), PARAMS.items())
def test_parameters_as_published(channels, params):
    assert count(on_meta(channels=channels, plain_separable=True), (3, 32, 32)).num_params == params


def test_the_published_size_is_the_default():
    network = on_meta(plain_separable=True, auxiliary=True)
    counts = count(network, (3, 32, 32))
    assert (counts.num_params, counts.num_params_auxiliary) == (42_559_392, 0)
    assert (network.num_cells, network.config.cells_per_stage, network.config.channels) == (24, 8, 96)


def formula(arc, channels, plain):
    """Parameters, layer by layer."""
    layers, c, total = len(arc), channels, 29 * channels
    for i, (op, *bits) in enumerate(arc):
        k = (3, 3, 5, 5, 0, 0)[op]
        weights = k * k * c + c * c if op in (1, 3) and not plain else k * k * c * c
        total += c * c + 2 * c + (weights + 2 * c if k else 0)
        total += (sum(bits) + 1) * c * c + 2 * c if i else 0
        if i + 1 in (layers // 3, 2 * (layers // 3)):
            total += (i + 2) * (2 * c * c + 4 * c)
            c *= 2
    return total + 10 * c


def rows(text):
    numbers, arc = list(map(int, text.split())), []
    while numbers:
        arc.append([numbers.pop(0) for _ in range(len(arc) + 1)])
    return arc


@pytest.mark.parametrize("layers", [3, 4, 12, 14])
@pytest.mark.parametrize("plain", [False, True])
def test_parameters_of_any_network(layers, plain):
    space = EnasMacro(EnasMacroConfig(layers=layers))
    for index in range(3):
        key = space.sample(rng.child(5, "enas macro", index)).key
        counts = count(on_meta(key, channels=12, plain_separable=plain), (3, 32, 32))
        assert counts.num_params == formula(rows(key), 12, plain)


def norm(n, x):
    return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=1e-5)


def naive(network, images, arc, plain):
    """The network as section 2.3 and the code list it, every reduction computed, with the weights of `network`."""
    entries = [norm(network.stem_norm, F.conv2d(images, network.stem.weight, padding=1))]
    for i, (op, *bits) in enumerate(arc):
        layer = network.layers[i]
        x = norm(layer.entry.norm, F.conv2d(entries[-1].relu(), layer.entry.conv.weight)).relu()
        padding, plainly = (1, 1, 2, 2, 0, 0)[op], plain or op in (0, 2)
        if op == 4:
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        elif op == 5:
            x = F.max_pool2d(x, 3, 1, 1)
        elif plainly:
            x = norm(layer.operation.norm, F.conv2d(x, layer.operation.conv.weight, padding=padding))
        else:
            x = F.conv2d(x, layer.operation.depthwise.weight, padding=padding, groups=x.shape[1])
            x = norm(layer.operation.norm, F.conv2d(x, layer.operation.pointwise.weight))
        if i:
            joined = torch.cat([*(entries[j] for j, bit in enumerate(bits) if bit), x], 1).relu()
            x = norm(layer.join.norm, F.conv2d(joined, layer.join.conv.weight))
        entries.append(x)
        if i + 1 in (len(arc) // 3, 2 * (len(arc) // 3)):
            entries = [halve(r, e) for r, e in zip(network.reductions[str(i)], entries, strict=True)]
    return entries[-1].mean((2, 3)) @ network.classifier.weight.T


def halve(reduction, x):
    path = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [
        F.conv2d(part[:, :, ::2, ::2], conv.weight)
        for part, conv in ((x, reduction.conv_even), (path, reduction.conv_odd))
    ]
    return norm(reduction.norm, torch.cat(halves, 1))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("layers", [3, 7, 12, 24])
def test_logits(layers, plain):
    space = EnasMacro(EnasMacroConfig(layers=layers))
    text = EnasMacro.published["ENAS-macro"] if layers == 24 else space.sample(rng.child(6, "macro", layers)).key
    with rng.torch_seeded(layers, "weights"), torch.no_grad():
        network = build(space.lower(space.parse(text)), channels=4, plain_separable=plain).double().eval()
        for name, tensor in network.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.copy_(torch.randn_like(tensor).abs() + 0.5)
        images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        expected = naive(network, images, rows(text), plain)
        torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)
    assert expected.std() > 0


def test_training_reaches_every_parameter_that_something_reads():
    space = EnasMacro(EnasMacroConfig(layers=6))
    everything = " ".join(" ".join([str(layer % 6)] + ["1"] * layer) for layer in range(6))
    with rng.torch_seeded(0, "weights"):
        network = build(
            space.lower(space.parse(everything)), network="small", channels=4, auxiliary=True, drop_path=0.4
        )
        out = network(torch.randn(4, 1, 28, 28))
    out.square().sum().backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []


def test_reductions_that_nothing_reads_are_not_computed():
    space = EnasMacro(EnasMacroConfig(layers=6))
    chain = " ".join(" ".join(["0"] * (layer + 1)) for layer in range(6))
    network, calls = build(space.lower(space.parse(chain)), channels=4), []
    for reduction in (r for group in network.reductions.values() for r in group):
        reduction.register_forward_hook(lambda *_: calls.append(1))
    network(torch.ones(1, 3, 8, 8))
    assert (sum(map(len, network.reductions.values())), len(calls)) == (3 + 5, 2)


def test_drop_path_spares_layers_without_skips():
    space = EnasMacro(EnasMacroConfig(layers=3))
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for text, changes in (("0 0 0 0 0 0", False), ("0 0 1 0 1 1", True)):
        with rng.torch_seeded(0, "weights"):
            network = build(space.lower(space.parse(text)), channels=4, drop_path=0.9)
        outputs = []
        for seed in range(6):
            with rng.torch_seeded(seed, "drop path"):
                outputs.append(network(images))
        assert any(not torch.equal(outputs[0], other) for other in outputs[1:]) == changes


def test_the_genotype_says_how_many_layers():
    assert on_meta("0  1 0  2 0 1", cells_per_stage=7).config.cells_per_stage == 1
    with pytest.raises(ConfigError, match="enas_macro has no network imagenet"):
        on_meta(network="imagenet")
