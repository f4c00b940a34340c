"""The network of NAS-Bench-201: sizes of the table, and the forward pass against a second implementation."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import build_network
from nao_ray.errors import ConfigError
from nao_ray.spaces.nas_bench_201 import NasBench201
from tests.networks.building import build, count
from tests.networks.pairs_201 import pairs

SPACE = NasBench201()
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
DEAD = "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|none~2|"
MIXED = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|"
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def counts(text, **settings):
    with torch.device("meta"):
        network = build(SPACE.lower(SPACE.parse(text)), **settings)
    return count(network, (3, 32, 32))


def expected_macs(text):
    """Convolutions and the linear layer, by hand: stem, two residual blocks, edges, head."""
    pixels = {16: 32**2, 32: 16**2, 64: 8**2}
    macs = 3 * 16 * 9 * pixels[16] + 64 * 10
    for small, large in ((16, 32), (32, 64)):
        macs += (small * large * 9 + large * large * 9 + small * large) * pixels[large]
    for kernel in (1, 3):
        macs += text.count(f"conv_{kernel}x{kernel}") * sum(5 * kernel**2 * c * c * p for c, p in pixels.items())
    return macs


@pytest.mark.parametrize("text", [BEST, DEAD, MIXED, EMPTY])
def test_parameters_and_multiply_adds(text):
    got = counts(text, auxiliary=True)
    assert got.num_params == 73306 + 28000 * text.count("1x1") + 243040 * text.count("nor_conv_3x3")
    assert got.num_params_auxiliary == 0
    assert got.macs == expected_macs(text)


def test_parameters_are_the_tables(data_folder):
    frame = pd.read_parquet(data_folder / "nas_bench_201" / "nas_bench_201.parquet", columns=["arch_str", "params"])
    sizes = frame.groupby("params")["arch_str"].agg(list)
    assert len(sizes) == 28, "every pair of numbers of the two convolutions"
    draw = np.random.default_rng(0)
    for params, texts in sizes.items():
        assert counts(texts[draw.integers(len(texts))]).num_params == params


def test_other_widths_and_classes():
    got = counts(BEST, network="cifar100")
    assert got.num_params == 73306 + 28000 + 4 * 243040 + 64 * 90 + 90
    assert counts(BEST, cells_per_stage=1, channels=8).num_params < got.num_params / 10


class Naive(nn.Module):
    """As the paper lists it, edge by edge; takes the weights of the real network by position."""

    def __init__(self, text, cells, channels):
        super().__init__()
        self.ops = [[word.split("~") for word in node.strip("|").split("|")] for node in text.split("+")]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        stages, blocks = [], []
        for stage in range(3):
            c = channels * 2**stage
            if stage:
                blocks.append(self._block(c // 2, c))
            stages.append(nn.ModuleList(self._cell(c) for _ in range(cells)))
        self.stages, self.blocks = nn.ModuleList(stages), nn.ModuleList(blocks)
        self.norm, self.head = nn.BatchNorm2d(c), nn.Linear(c, 10)

    @staticmethod
    def _conv(into, c, kernel, stride=1):
        conv = nn.Conv2d(into, c, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c))

    def _block(self, into, c):
        beside = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(into, c, 1, bias=False))
        return nn.ModuleList([self._conv(into, c, 3, 2), self._conv(c, c, 3), beside])

    def _cell(self, c):
        kinds = {
            "none": lambda: None,
            "skip_connect": nn.Identity,
            "nor_conv_1x1": lambda: self._conv(c, c, 1),
            "nor_conv_3x3": lambda: self._conv(c, c, 3),
            "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        }
        return nn.ModuleList(nn.ModuleList(kinds[op]() for op, _ in node) for node in self.ops)

    def forward(self, x):
        x = self.stem(x)
        for stage, cells in enumerate(self.stages):
            if stage:
                first, second, beside = self.blocks[stage - 1]
                x = beside(x) + second(first(x))
            for cell in cells:
                states = [x]
                for node, ops in zip(self.ops, cell, strict=True):
                    outs = [x * 0.0]
                    outs += [op(states[int(at)]) for op, (_, at) in zip(ops, node, strict=True) if op is not None]
                    states.append(sum(outs))
                x = states[-1]
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("text", [BEST, DEAD, MIXED, EMPTY])
def test_forward_and_gradients_are_those_of_a_naive_network(text, training):
    torch.manual_seed(0)
    ours = build(SPACE.lower(SPACE.parse(text)), cells_per_stage=2, channels=4).double()
    naive = Naive(text, 2, 4).double()
    shapes = [[tuple(p.shape) for p in sorted(net.parameters(), key=lambda p: p.shape)] for net in (ours, naive)]
    assert shapes[0] == shapes[1]
    _pair(ours, naive)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    ours.train(training)
    naive.train(training)
    out, reference = ours(x), naive(x)
    torch.testing.assert_close(out, reference, rtol=1e-9, atol=1e-9)
    out.square().sum().backward()
    reference.square().sum().backward()
    mine, its = ours.stem.weight.grad, naive.stem[0].weight.grad
    torch.testing.assert_close(torch.zeros_like(its) if mine is None else mine, its, rtol=1e-7, atol=1e-9)


def _pair(ours, naive):
    with torch.no_grad():
        for parameter in naive.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for mine, its in pairs(ours, naive, _of_cell):
            mine.load_state_dict(its.state_dict())


def _of_cell(cell, other):
    return [
        pair
        for ops, others in zip(cell.nodes, other, strict=True)
        for op, its in zip(ops, others, strict=True)
        if hasattr(op, "conv")
        for pair in ((op.conv, its[1]), (op.norm, its[2]))
    ]


def test_drop_path_drops_edges_with_parameters_alone():
    graph = SPACE.lower(SPACE.parse(MIXED))
    torch.manual_seed(0)
    network = build(graph, cells_per_stage=1, channels=4, drop_path=0.9)
    seen = Counter()
    cell = network.stages[2][0]
    hook = cell.nodes[0][0].register_forward_hook(lambda *_: seen.update(["pool"]))
    x = torch.randn(16, 3, 8, 8)
    outs = [network.train()(x) for _ in range(2)]
    assert not torch.equal(*outs)
    assert seen["pool"] == 2
    hook.remove()
    network.set_step(0, 1000)
    assert network.keep_probability(0) == pytest.approx(1 - 0.9 / 3 / 1000)
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("size", [8, 15, 28])
def test_any_image_size_and_one_channel(size):
    network = build(SPACE.lower(SPACE.parse(BEST)), network="small", cells_per_stage=1, channels=4)
    assert network.eval()(torch.zeros(2, 1, size, size)).shape == (2, 10)


def test_the_public_function_builds_it():
    network = build_network(BEST, space="nas_bench_201", channels=4, cells_per_stage=1, num_classes=7)
    logits = network.eval()(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_there_is_no_imagenet_stem():
    with pytest.raises(ConfigError, match="has no network imagenet; choose one of cifar10, cifar100, small"):
        build(SPACE.lower(SPACE.parse(BEST)), network="imagenet")
