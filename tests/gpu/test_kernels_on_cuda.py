"""The Triton kernels compiled, against torch's own operations: ``pytest -m gpu tests/gpu``."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray.networks import fast, fast_norm

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
    with fast.in_graph():
        yield


def on_cpu(function, x, gradient):
    """In float64, contiguous."""
    return results(function, x.detach().double().cpu().contiguous().requires_grad_(), [], gradient.double().cpu())


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 32), (5, 1, 16), (3, 1, 5), (3, 2, 32), (5, 2, 7)])
def test_average_pools_are_right_with_kernels_and_without(kernel, stride, size, count_padding):
    """Against the CPU: torch's own gradient is wrong here, channels-last and padded (pytorch#188344)."""
    x = torch.randn(64, 32, size, size, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
    out = fast.average_pool(x, kernel, stride, count_padding=count_padding)
    gradient = torch.randn_like(out)
    theirs = on_cpu(
        lambda t: F.avg_pool2d(t, kernel, stride, kernel // 2, count_include_pad=count_padding), x, gradient
    )
    for function in (fast.average_pool, fast.average_of_padded):
        mine = results(lambda t, f=function: f(t, kernel, stride, count_padding=count_padding), x, [], gradient)
        assert furthest([t.cpu() for t in mine], theirs) < 1e-5


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 2, 0)])
def test_max_pool_is_torchs(kernel, stride, padding):
    x = torch.randint(99, (64, 32, 16, 16), device="cuda").float()  # with ties
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(fast.max_pool(x, kernel, stride, padding))
    theirs = on_cpu(lambda t: F.max_pool2d(t, kernel, stride, padding), x, gradient)
    mine = results(lambda t: fast.max_pool(t, kernel, stride, padding), x, [], gradient)
    assert furthest([t.cpu() for t in mine], theirs) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("channels", "size"), [(32, 32), (20, 9), (128, 8), (768, 1)])
def test_batch_norm_is_torchs(channels, size, relu, dtype):
    norms = [nn.BatchNorm2d(channels).cuda() for _ in range(2)]
    with torch.no_grad():
        norms[0].weight.uniform_(-1, 1), norms[0].bias.uniform_(-1, 1)
    norms[1].load_state_dict(norms[0].state_dict())
    norms[1].double()
    x = (3 + torch.randn(64, channels, size, size, device="cuda")).to(dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    wide = torch.randn(64, 2 * channels, size, size, device="cuda").to(dtype).to(memory_format=torch.channels_last)
    exact = x.detach().double().requires_grad_()

    def theirs(t):
        out = norms[1](t)
        return out.relu() if relu else out

    gradient = wide[:, channels:]  # as that of what is put side by side
    expected = results(theirs, exact, [norms[1].weight, norms[1].bias], gradient.double())
    mine = results(
        lambda t: fast_norm.batch_norm(norms[0], t, relu=relu), x, [norms[0].weight, norms[0].bias], gradient
    )
    assert mine[0].dtype is dtype
    assert furthest(mine, expected) < (1e-5 if dtype is torch.float32 else 1e-2)
    assert furthest([norms[0].running_mean, norms[0].running_var], [norms[1].running_mean, norms[1].running_var]) < 1e-5
    assert norms[0].num_batches_tracked.item() == 1
