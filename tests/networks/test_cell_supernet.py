"""The supernet of ENAS's micro space against a second implementation, and what its reduction cells read."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import rng
from nao_ray.networks.ops import SepConv
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from nao_ray.spaces.enas_micro import EnasMicro
from tests.networks.building import reached, supernet

SPACE = EnasMicro()
OPTIONS = [{}, {"reduce_last": True}]


@cache
def _net(cells_per_stage, **options):
    """Made once, in evaluation mode: nothing here changes it."""
    with rng.torch_seeded(cells_per_stage, "micro supernet"):
        net = supernet.build(SPACE, cells_per_stage=cells_per_stage, channels=4, **options).double()
        for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            tensor.data.add_(torch.rand_like(tensor), alpha=0.2)
    return net.eval()


def _images():
    return torch.from_numpy(rng.child(0, "micro supernet images").standard_normal((2, 3, 16, 16)))


def _norm(n, x):
    return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=1e-5)


def _halve(reduction, x):
    moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [
        F.conv2d(part[:, :, ::2, ::2], conv.weight)
        for part, conv in ((x, reduction.conv_even), (moved, reduction.conv_odd))
    ]
    return _norm(reduction.norm, torch.cat(halves, 1))


def _calibrate(calibrator, x, larger, channels):
    if larger:
        return _halve(calibrator, x.relu())
    if x.shape[1] != channels:
        return _norm(calibrator.norm, F.conv2d(x.relu(), calibrator.conv.weight))
    assert not list(calibrator.parameters())
    return x


def _op(cell, node, slot, index, op, x):
    if op == 4:
        return x
    if op in (2, 3):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if op == 2 else F.max_pool2d(x, 3, 1, 1)
    layers = cell.nodes[node][slot][index][SPACE.ops[op]]
    for part in ("1", "2"):
        depthwise, pointwise = (getattr(layers, kind + part).weight for kind in ("depthwise", "pointwise"))
        x = F.conv2d(x.relu(), depthwise, padding=depthwise.shape[-1] // 2, groups=x.shape[1])
        x = _norm(getattr(layers, "norm" + part), F.conv2d(x, pointwise))
    return x


def _naive(net, images, arc, n, *, reduce_last):
    """The search network as the code lists it, with the weights of `net`."""
    x = _norm(net.stem.norm, F.conv2d(images, net.stem.conv.weight, padding=1))
    layers, channels = [x, x], 4
    for index in range(3 * n + 2):
        cell, inputs, numbers = net.cells[index], layers, arc[:20]
        if index in (n, 2 * n + 1):
            channels, numbers = 2 * channels, arc[20:]
            halved = _halve(net.halvings[str(index)], layers[1])
            inputs = [layers[1] if reduce_last else layers[0], halved]
            layers = [layers[1], halved]
        larger = inputs[0].shape[-1] == 2 * inputs[1].shape[-1]
        assert larger == (index in (n, 2 * n + 1))
        states = [
            _calibrate(cell.calibrators[which], state, larger and which == 0, channels)
            for which, state in enumerate(inputs)
        ]
        for node in range(5):
            index1, op1, index2, op2 = numbers[4 * node : 4 * node + 4]
            states.append(
                _op(cell, node, 0, index1, op1, states[index1]) + _op(cell, node, 1, index2, op2, states[index2])
            )
        loose = [state for state in range(7) if state not in numbers[::2]]
        weight = torch.cat([cell.blocks[state] for state in loose], 1)
        out = _norm(cell.norm, F.conv2d(torch.cat([states[i] for i in loose], 1).relu(), weight))
        layers = [layers[1], out]
    return layers[1].relu().mean((2, 3)) @ net.classifier.weight.T


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n", [1, 2])
def test_logits(n, options):
    net, images = _net(n, **options), _images()
    for index in range(6):
        text = SPACE.sample(rng.child(3, "micro supernet", index)).key if index else SPACE.published["ENAS-micro"]
        with torch.no_grad():
            logits = net(images, SPACE.lower(SPACE.parse(text)))
            expected = _naive(net, images, list(map(int, text.split())), n, reduce_last=bool(options))
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS)
def test_no_edge_of_a_reduction_has_weights_but_convolutions(options):
    net = _net(2, **options)
    for cell in net.cells:
        operations = [m for m in cell.nodes.modules() if isinstance(m, nn.Conv2d)]
        assert len(operations) == 4 * sum(isinstance(m, SepConv) for m in cell.nodes.modules())
        assert all(conv.stride == (1, 1) for conv in operations)
        assert not cell.reducers


@pytest.mark.parametrize("options", OPTIONS)
def test_what_input_0_of_a_reduction_is(options):
    """Normal cells read the last layer alone, reductions their input 0: by default cell 0, as published cell 1."""
    net, cells = _net(2, **options), []
    for role, source in (("normal", 1), ("reduction", 0)):
        edges = (Edge(source, "sep_conv_3x3"), Edge(source, "identity"))
        cells.append((role, Cell(2, (edges,) * 5, (2, 3, 4, 5, 6))))
    used = reached(net, _images(), ArchGraph("enas_micro", tuple(cells)))
    assert ("cells.1.norm.weight" in used) == bool(options)
    assert used.keys() >= {"cells.0.norm.weight", "cells.2.calibrators.0.norm.weight"}
    assert not any(name.startswith("halvings") for name in used)
