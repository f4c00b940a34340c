"""The Triton kernels against torch's own operations, on the CPU by Triton's interpreter, which takes a process."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton")

_COMPARE = """
import json
import torch
import torch.nn.functional as F
from nao_ray.networks import kernels

torch.manual_seed(0)

def furthest(mine, theirs, inputs, gradient):
    gradients = [torch.autograd.grad(out, inputs, gradient.to(out.dtype)) for out in (mine, theirs)]
    pairs = [(mine, theirs), *zip(*gradients)]
    return [((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs]

found = {}
for kernel, stride, size, channels in [(3, 1, (6, 5), 6), (5, 1, (6, 6), 4), (5, 2, (7, 6), 4), (3, 2, (8, 8), 70),
                                       (7, 1, (4, 4), 4)]:
    x = torch.randn(2, channels, *size, requires_grad=True)
    weight = torch.randn(channels, 1, kernel, kernel, requires_grad=True)
    theirs = F.conv2d(x, weight, None, stride, kernel // 2, 1, channels)
    mine = kernels.Depthwise.apply(x, weight, stride, kernel // 2)
    assert mine.is_contiguous(memory_format=torch.channels_last)
    found[f"depthwise {kernel} {stride}"] = furthest(mine, theirs, [x, weight], torch.randn_like(theirs))
for kernel in (3, 5):
    for count_padding in (True, False):
        x = torch.randn(2, 3, 6, 5, requires_grad=True)
        theirs = F.avg_pool2d(x, kernel, 1, kernel // 2, count_include_pad=count_padding)
        mine = kernels.AveragePool.apply(x, kernel, count_padding)
        found[f"average {kernel} {count_padding}"] = furthest(mine, theirs, [x], torch.randn_like(theirs))
x = torch.randn(4, 8, 8, 8).bfloat16().requires_grad_()
weight = torch.randn(8, 1, 3, 3, requires_grad=True)
theirs = F.conv2d(x.double(), weight.double(), None, 1, 1, 1, 8)
mine = kernels.Depthwise.apply(x, weight, 1, 1)
assert mine.dtype is torch.bfloat16
found["bfloat16"] = furthest(mine, theirs, [x, weight], torch.randn(theirs.shape).bfloat16())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def differences():
    """Of the result and each gradient, relative, by case."""
    ran = subprocess.run(
        [sys.executable, "-c", _COMPARE],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_depthwise_and_average_pool_are_torchs_whatever_kernel_stride_and_size(differences):
    exact = {case: max(parts) for case, parts in differences.items() if case != "bfloat16"}
    assert len(exact) == 9
    assert max(exact.values()) < 2e-6, exact


def test_bfloat16_is_added_up_in_float32(differences):
    out, of_x, of_weight = differences["bfloat16"]
    assert 1e-4 < out < 5e-3  # rounded once
    assert 1e-4 < of_x < 5e-3
    assert of_weight < 1e-6  # not at all
