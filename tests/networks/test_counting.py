"""Every published count, to the integer."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nao_ray
from tests.networks.building import count, input_shape

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "nao_cnn_counts.json").read_text(encoding="utf-8"))
BUILD = ("space", "network", "cells_per_stage", "channels")


def _build(row, auxiliary=True):
    classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[row["network"]]
    with torch.device("meta"):
        keys = {key: row[key] for key in BUILD}
        return nao_ray.build_network(row["genotype"], num_classes=classes, auxiliary=auxiliary, **keys)


def _name(row):
    return f"{row['genotype']}-{row['network']}-N{row['cells_per_stage']}-F{row['channels']}"


def _size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("row", GOLDEN, ids=_name)
def test_parameters(row):
    counts = count(_build(row), input_shape(row["network"]))
    assert counts.num_params == row["num_params"]
    assert counts.num_params_auxiliary == row["num_params_auxiliary"]
    if "macs" in row:
        assert counts.macs == row["macs"]
    without = count(_build(row, auxiliary=False), input_shape(row["network"]))
    assert (without.num_params, without.num_params_auxiliary, without.macs) == (row["num_params"], 0, counts.macs)


@pytest.mark.parametrize("row", [row for row in GOLDEN if "cells" in row], ids=_name)
def test_breakdown(row):
    network = _build(row)
    assert _size(network.stem) == row["stem"]
    assert _size(network.classifier) == row["classifier"]
    assert [_size(cell) for cell in network.cells] == row["cells"]
    shapes, seen = [], []
    for cell in network.cells:
        cell.register_forward_hook(lambda _module, _args, out: shapes.append(tuple(out.value.shape)))
    network.auxiliary.register_forward_hook(lambda *_: seen.append(len(shapes) - 1))
    network(torch.empty(2, *input_shape(row["network"]), device="meta"))
    expected = [(2, c, size, size) for c, size in zip(row["out_channels"], row["out_size"], strict=True)]
    assert shapes == expected
    assert seen == [row["auxiliary_after"]]
    halving = [i for i, size in enumerate(row["out_size"]) if i and size < row["out_size"][i - 1]]
    assert halving == row["reduction_cells"]


def test_counting_leaves_the_network_as_it_was():
    network = nao_ray.build_network("NAONet-B", space="nao_cnn_small", network="small", channels=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    counts = count(network, (1, 8, 8))
    assert network.training
    assert counts.num_params == _size(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert count(network.eval(), (1, 8, 8)) == counts
    assert not network.training


def test_multiply_adds_of_a_known_network():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(4 * 5 * 5, 7))
    assert count(network, (3, 5, 5)).macs == 25 * 4 * 27 + 100 * 7


class Mixed(nn.Module):
    """What is counted by other shapes than torch's own, in forms that the networks do not have."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv = nn.Linear(6, 4), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        x = self.conv(x) + 1
        x = torch.cat([x.relu(), (x + x.mean((-1, -2), keepdim=True)).relu_().add_(x)], dim=-3)
        x = torch.cat([torch.empty(0, device=x.device), x])  # as torch allows for old code
        features = x.double().add(x.mean()).float().mean(dim=(2, -1))
        return self.linear(features) @ self.linear.weight + features.mean(0)


WINDOWS = [
    nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2, groups=1),
    nn.Conv2d(3, 3, (1, 5), padding=(0, 2), groups=3, bias=False),
    nn.ConvTranspose2d(3, 4, 3, stride=2),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d((2, 3), dilation=(1, 2), ceil_mode=True),
    nn.AvgPool2d(2, ceil_mode=True),
    nn.AvgPool2d(3, stride=4, padding=1, ceil_mode=True),
    nn.AvgPool2d(3, padding=1, count_include_pad=False),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("side", [7, 8])
def test_what_a_window_leaves_of_a_picture_is_what_torch_leaves(window, side):
    seen = []
    window.register_forward_hook(lambda _module, _inputs, out: seen.append(out.shape))
    count(window, (3, side, side + 3))
    window(torch.ones(1, 3, side, side + 3))
    assert seen[0] == seen[1]


def test_multiply_adds_are_those_of_torchs_own_counter():
    with FlopCounterMode(display=False) as theirs:
        Mixed()(torch.ones(1, 3, 5, 7))
    assert count(Mixed(), (3, 5, 7)).macs * 2 == theirs.get_total_flops() > 0
