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
from nao_ray.networks import fast, kernels, norm_kernels

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
    exact = {case: max(parts) for case, parts in differences.items() if not case.startswith(("bfloat16", "norm"))}
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
