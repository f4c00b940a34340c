"""The Triton kernels compiled, against torch's own operations: ``pytest -m gpu tests/gpu``."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray.networks import fast

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def results(function, x, parameters, gradient):
    out = function(x)
    return [out, *torch.autograd.grad(out, [x, *parameters], gradient)]


def furthest(mine, theirs):
    pairs = zip(mine, theirs, strict=True)
    return max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs)


@pytest.fixture(autouse=True)
def _kernels():
    assert fast._of_device(torch.device("cuda", 0)) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "size", "channels"), [
    (3, 1, 32, 32), (5, 1, 32, 32), (7, 1, 16, 64), (3, 2, 32, 64), (5, 2, 16, 128), (5, 1, 8, 128), (5, 2, 7, 20),
])  # fmt: skip
def test_depthwise_is_torchs_convolution(kernel, stride, size, channels, dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False).cuda()
    x = torch.randn(64, channels, size, size, device="cuda", generator=generator).to(dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    exact, weight = x.detach().double().requires_grad_(), conv.weight.detach().double().requires_grad_()
    expected = F.conv2d(exact, weight, None, stride, kernel // 2, 1, channels)
    gradient = torch.randn(expected.shape, device="cuda", generator=generator).to(dtype)
    theirs = [expected, *torch.autograd.grad(expected, [exact, weight], gradient.double())]
    mine = results(lambda t: fast.depthwise(conv, t), x, [conv.weight], gradient)
    assert mine[0].dtype is dtype
    assert furthest(mine, theirs) < (1e-5 if dtype is torch.float32 else 1e-2)


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize(("kernel", "size"), [(3, 32), (5, 16), (3, 5)])
def test_average_pool_is_torchs(kernel, size, count_padding):
    x = torch.randn(64, 32, size, size, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(x)
    theirs = results(
        lambda t: F.avg_pool2d(t, kernel, 1, kernel // 2, count_include_pad=count_padding), x, [], gradient
    )
    mine = results(lambda t: fast.average_pool(t, kernel, count_padding=count_padding), x, [], gradient)
    assert furthest(mine, theirs) < 1e-5
