"""The Triton kernels against torch's own operations, on the CPU by Triton's interpreter, which takes a process."""

import importlib.util
import json
import os
import sys

import _forks
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton")

_COMPARE = """
import json
import torch
import torch.nn.functional as F
from nao_ray.networks import fast, kernels, norm_kernels, recurrent, recurrent_fast, recurrent_kernels
from nao_ray.spaces.base import Cell, Edge

with torch.inference_mode():
    assert fast._of_device(torch.device("cpu")) is not None, "an evaluation is the first to ask for them"
torch.manual_seed(0)

def furthest(mine, theirs, inputs, gradient):
    gradients = [torch.autograd.grad(out, inputs, gradient.to(out.dtype)) for out in (mine, theirs)]
    pairs = [(mine, theirs), *zip(*gradients)]
    return [((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs]

found = {}
for kernel, stride, count_padding in [(3, 1, True), (3, 1, False), (5, 1, False), (3, 2, True), (5, 2, False)]:
    x = torch.randn(2, 3, 6, 5, requires_grad=True)
    theirs = F.avg_pool2d(x, kernel, stride, kernel // 2, count_include_pad=count_padding)
    mine = kernels.AveragePool.apply(x, kernel, stride, count_padding)
    found[f"average {kernel} {stride} {count_padding}"] = furthest(mine, theirs, [x], torch.randn_like(theirs))
for kernel, stride, padding in [(3, 1, 1), (5, 2, 2), (2, 2, 0), (3, 2, 1)]:
    x = torch.randint(9, (2, 3, 6, 5)).float().requires_grad_()  # with ties: the first counts
    theirs = F.max_pool2d(x, kernel, stride, padding)
    mine = kernels.MaxPool.apply(x, kernel, stride, padding)
    found[f"max {kernel} {stride}"] = furthest(mine, theirs, [x], torch.randn_like(theirs))
for relu, channels in [(False, 6), (True, 6), (True, 70)]:
    wide = torch.randn(3, 2 * channels, 5, 6).to(memory_format=torch.channels_last)
    norms = [torch.nn.BatchNorm2d(channels) for _ in range(2)]
    with torch.no_grad():
        norms[0].weight.uniform_(-1, 1), norms[0].bias.uniform_(-1, 1)
        norms[0].running_mean.uniform_(-1, 1)
    norms[1].load_state_dict(norms[0].state_dict())
    x = (100 + torch.randn(3, channels, 5, 6)).requires_grad_()
    theirs = norms[0].double()(x.double())
    theirs = theirs.relu() if relu else theirs
    mine = norm_kernels.BatchNorm.apply(x, norms[1].weight, norms[1].bias, norms[1], relu)
    parts = []
    for gradient in (torch.randn(3, channels, 5, 6), wide[:, channels:]):
        mines = torch.autograd.grad(mine, [x, norms[1].weight, norms[1].bias], gradient, retain_graph=True)
        others = [x, norms[0].weight, norms[0].bias]
        parts += zip(mines, torch.autograd.grad(theirs, others, gradient.double(), retain_graph=True))
    buffers = zip(norms[1].buffers(), norms[0].buffers())
    parts += [(mine, theirs), *buffers]
    found[f"norm {relu} {channels}"] = [
        ((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in parts
    ]
x = torch.randn(4, 8, 8, 8).bfloat16().requires_grad_()
theirs = F.avg_pool2d(x.double(), 3, 1, 1)
mine = kernels.AveragePool.apply(x, 3, 1, True)
assert mine.dtype is torch.bfloat16
assert mine.is_contiguous(memory_format=torch.channels_last)
found["bfloat16"] = furthest(mine, theirs, [x], torch.randn(theirs.shape).bfloat16())
NAMES = ("tanh", "relu", "sigmoid", "identity")
cells = {
    "one source": [(0, name) for name in (*NAMES, "relu")],
    "a chain": [(node, name) for node, name in enumerate(NAMES)],
    "in part": [(0, "relu"), (0, "tanh"), (2, "sigmoid"), (2, "sigmoid"), (4, "identity"), (0, "identity")],
}
calls = []
made = fast._of_device(torch.device("cpu"))
made = made._replace(recurrent_nodes=lambda *given: calls.append(0) or recurrent_kernels.nodes(*given))
fast.kernels_for = lambda x, what: made
mask = (torch.rand(2, 5) < 0.7) / 0.7
for (name, nodes), hidden, mask in zip(cells.items(), (70, 5, 5), (None, mask, mask)):
    cell = Cell(1, tuple((Edge(source, op),) for source, op in nodes), tuple(range(1, len(nodes) + 1)))
    scale = 1.0 if hidden == 5 else 0.04  # of published networks: candidates about 0
    given = [torch.randn(2 * hidden, 2 * hidden), *(torch.randn(hidden, 2 * hidden) for _ in nodes)]
    tensors = [scale * weight for weight in given] + [torch.randn(9, 2, hidden), torch.randn(2, hidden)]
    [tensor.requires_grad_() for tensor in tensors]
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    mine = recurrent_fast.segment(cell, tensors[0], tensors[1:-2], *tensors[-2:], mask)
    plain = None if mask is None else mask.double()
    theirs = recurrent.segment(cell, wide[0], wide[1:-2], *wide[-2:], plain)
    gradient = torch.randn_like(mine)
    gradients = zip(torch.autograd.grad(mine, tensors, gradient), torch.autograd.grad(theirs, wide, gradient.double()))
    found[f"recurrent {name}"] = [((a.double() - b).norm() / b.norm()).item() for a, b in [(mine, theirs), *gradients]]
assert len(calls) == 9 * (2 + 5 + 4), "a unit a step, and that of state 0"
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def differences():
    """Of the result and each gradient, relative, by case."""
    ran = _forks.run(
        [sys.executable, "-c", _COMPARE],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_they_are_torchs_whatever_kernel_stride_and_size(differences):
    exact = {
        case: max(parts) for case, parts in differences.items() if not case.startswith(("bfloat16", "norm", "rec"))
    }
    assert len(exact) == 9
    assert max(exact.values()) < 2e-6, exact


def test_batch_norm_is_torchs_far_from_zero_and_of_gradients_within_wider_ones(differences):
    exact = {case: max(parts) for case, parts in differences.items() if case.startswith("norm")}
    assert len(exact) == 3
    assert max(exact.values()) < 3e-5, exact  # x is 100 and more, in float32


def test_bfloat16_is_added_up_in_float32(differences):
    out, of_x = differences["bfloat16"]
    assert 1e-4 < out < 5e-3  # rounded once
    assert 1e-4 < of_x < 5e-3


def test_segments_of_recurrent_cells_are_the_plain_ones_with_every_activation(differences):
    exact = {case: max(parts) for case, parts in differences.items() if case.startswith("recurrent")}
    assert len(exact) == 3
    assert 0 < max(exact.values()) < 1e-5, exact  # a chain of large weights multiplies what float32 rounds
