"""The final network of ENAS's micro space: published counts, and the forward pass against a second implementation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nao_ray
from nao_ray import rng
from nao_ray.errors import ConfigError
from nao_ray.spaces.enas_micro import EnasMicro
from tests.networks.building import build, count

SPACE = EnasMicro()
PARAMS = {  # of the published cells by width, 15 + 2 layers
    20: 1_299_860,
    24: 1_818_936,
    28: 2_424_380,
    32: 3_116_192,
    36: 3_894_372,
    40: 4_758_920,
    44: 5_709_836,
}


def on_meta(genotype="ENAS-micro", **settings):
    with torch.device("meta"):
        return nao_ray.build_network(genotype, space="enas_micro", **settings)


@pytest.mark.parametrize(("channels", "params"), PARAMS.items())
def test_parameters(channels, params):
    assert count(on_meta(channels=channels), (3, 32, 32)).num_params == params


def test_the_published_size_is_the_default():
    network = on_meta(auxiliary=True)
    counts = count(network, (3, 32, 32))
    assert (counts.num_params, counts.num_params_auxiliary) == (3_894_372, 494_848)
    assert (network.config.cells_per_stage, network.config.channels) == (5, 36)


def test_widths_and_sizes_of_the_layers():
    network, shapes, seen = on_meta(auxiliary=True), [], []
    for cell in network.cells:
        cell.register_forward_hook(lambda _module, _args, out: shapes.append(tuple(out.value.shape)[1:3]))
    network.auxiliary.register_forward_hook(lambda *_: seen.append(len(shapes) - 1))
    network(torch.empty(2, 3, 32, 32, device="meta"))
    assert shapes == [(180, 32)] * 5 + [(288, 16)] + [(360, 16)] * 5 + [(576, 8)] + [(720, 8)] * 5
    assert seen == [12]


class Naive:
    """The network as the paper's code lists it; takes the layers of the real one in the order they were made."""

    def __init__(self, network):
        self.layers = iter([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)])

    def conv(self, x, stride=1, **settings):
        weight = next(self.layers).weight
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, **settings)

    def norm(self, x):
        n = next(self.layers)
        return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=1e-5)

    def squeeze(self, x):
        return self.norm(self.conv(x.relu()))

    def halve(self, x):
        path = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.conv(x[:, :, ::2, ::2]), self.conv(path[:, :, ::2, ::2])], 1))

    def op(self, op, x, stride):
        if op == 4:
            return x if stride == 1 else self.halve(x)
        if op == 2:
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if op == 3:
            return F.max_pool2d(x, 3, stride, 1)
        for step in (stride, 1):
            x = self.norm(self.conv(self.conv(x.relu(), step, groups=x.shape[1])))
        return x

    def cell(self, arc, x0, x1, channels, reduction):
        if x0.shape[-1] != x1.shape[-1]:
            x0 = self.halve(x0.relu())
        elif x0.shape[1] != channels:
            x0 = self.squeeze(x0)
        if x1.shape[1] != channels:
            x1 = self.squeeze(x1)
        states = [x0, self.squeeze(x1)]
        for node in range(5):
            index1, op1, index2, op2 = arc[4 * node : 4 * node + 4]
            strides = [2 if reduction and index < 2 else 1 for index in (index1, index2)]
            states.append(self.op(op1, states[index1], strides[0]) + self.op(op2, states[index2], strides[1]))
        loose = [state for state in range(7) if state not in arc[::2]]
        return torch.cat([self.halve(states[i]) if reduction and i < 2 else states[i] for i in loose], 1)

    def __call__(self, images, arc, n, channels):
        x0 = x1 = self.norm(self.conv(images))
        for layer in range(3 * n + 2):
            reduction = layer in (n, 2 * n + 1)
            channels *= 2 if reduction else 1
            x0, x1 = x1, self.cell(arc[20:] if reduction else arc[:20], x0, x1, channels, reduction)
        return x1.relu().mean((2, 3)) @ next(self.layers).weight.T


def random_weights(network):
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn_like(tensor)
            tensor.copy_(noise.abs() + 0.5 if "var" in name else noise * (0.3 if tensor.dim() > 1 else 1.0))
    return network


@pytest.mark.parametrize("index", range(-1, 12))
def test_logits(index):
    text = SPACE.sample(rng.child(3, "enas micro", index)).key if index >= 0 else SPACE.published["ENAS-micro"]
    if index % 3 == 1:  # leave an input of the reduction unused
        words = text.split()
        words[20::2] = ["1" if word == "0" else word for word in words[20::2]]
        text = " ".join(words)
    with rng.torch_seeded(index + 1, "weights"), torch.no_grad():
        network = build(SPACE.lower(SPACE.parse(text)), cells_per_stage=1 + index % 2, channels=4)
        random_weights(network.double().eval())
        images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        logits = network(images)
        expected = Naive(network)(images, list(map(int, text.split())), 1 + index % 2, 4)
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_the_auxiliary_head():
    with rng.torch_seeded(0, "weights"):
        network = build(SPACE.lower(SPACE.parse("ENAS-micro")), cells_per_stage=1, channels=4, auxiliary=True)
        head = random_weights(network).auxiliary.double().eval()
        x = torch.randn(2, head.conv1.in_channels, 8, 8, dtype=torch.float64).relu()
    naive = Naive(head)
    with torch.no_grad():
        middle = naive.norm(naive.conv(F.avg_pool2d(x, 5, 3))).relu()
        wide = F.pad(middle, (0, 1, 0, 1))
        expected = naive.norm(F.conv2d(wide, next(naive.layers).weight)).relu().mean((2, 3)) @ head.classifier.weight.T
        torch.testing.assert_close(head(x), expected)


def test_training_reaches_every_parameter():
    with rng.torch_seeded(0, "weights"):
        network = build(
            SPACE.lower(SPACE.parse("ENAS-micro")),
            network="small",
            channels=4,
            auxiliary=True,
            drop_path=0.3,
            dropout=0.2,
        )
        logits, auxiliary = network(torch.randn(4, 1, 28, 28))
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_there_is_no_imagenet_network():
    with pytest.raises(ConfigError, match="enas_micro has no network imagenet; choose one of cifar10, cifar100, small"):
        on_meta(network="imagenet")
