"""The faster paths against torch's own operations, value and gradients, in float32 and exactly in float64."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import networks, rng
from nao_ray.networks import fast, fast_depthwise, fast_norm

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request, monkeypatch):
    monkeypatch.setattr(fast, "DTYPES", {request.param})
    return request.param


@pytest.fixture
def taken(monkeypatch):
    """Names of the faster functions that ran."""
    names = []
    for function in (fast_depthwise._Depthwise, fast._AveragePool, fast_norm._BatchNorm):

        def apply(*args, _original=function.apply, _name=function.__name__):
            names.append(_name)
            return _original(*args)

        monkeypatch.setattr(function, "apply", apply)
    return names


def _images(*shape, dtype, seed=0):
    values = torch.from_numpy(rng.child(seed, "fast").standard_normal(shape)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_()


def _gradients(function, x, *parameters):
    out = function(x)
    weights = torch.from_numpy(rng.child(1, "fast gradient").standard_normal(out.shape)).to(out.dtype)
    return out.detach(), torch.autograd.grad((out * weights).sum(), (x, *parameters))


def _assert_same(mine, exact, tolerance):
    for a, b in zip([mine[0], *mine[1]], [exact[0], *exact[1]], strict=True):
        assert a.shape == b.shape
        assert ((a.double() - b).norm() / b.norm()).item() < tolerance


@pytest.mark.parametrize(("size", "count"), [((6, 4), 2), ((6, 4), 1), ((5, 7), 1)])
def test_every_second_pixel_is_the_slices(dtype, size, count):
    x = _images(2, 3, *size, dtype=dtype)

    def mine(x):
        return torch.cat([part * (index + 1) for index, part in enumerate(fast.every_second(x, count))])

    def slices(x):
        return torch.cat([x[:, :, index::2, index::2] * (index + 1) for index in range(count)])

    found, expected = _gradients(mine, x), _gradients(slices, x)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1][0], expected[1][0])
    assert found[1][0].is_contiguous(memory_format=torch.channels_last), (
        "which torch's are not, and slow what is before"
    )
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in fast.every_second(x, count))


@pytest.mark.parametrize("size", [(10, 10), (16, 9), (11, 13)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [(5, 1, 1), (5, 2, 1), (7, 1, 1), (7, 2, 1), (3, 1, 1), (3, 1, 2), (3, 2, 2), (5, 1, 2), (5, 2, 2)],
)
def test_depthwise(kernel, stride, dilation, size, dtype, taken):
    options = {"padding": dilation * (kernel // 2), "dilation": dilation, "groups": 6, "bias": False}
    conv = nn.Conv2d(6, 6, kernel, stride, **options).to(dtype)
    exact = nn.Conv2d(6, 6, kernel, stride, **options).double()
    exact.load_state_dict(conv.state_dict())
    x = _images(3, 6, *size, dtype=dtype)
    mine = _gradients(lambda images: fast_depthwise.depthwise(conv, images), x, conv.weight)
    assert taken == ["_Depthwise"]
    _assert_same(mine, _gradients(exact, x.detach().double().requires_grad_(), exact.weight), TOLERANCE[dtype])


def test_a_map_narrower_than_the_kernel(taken):
    conv = nn.Conv2d(4, 4, 7, padding=3, groups=4, bias=False)
    x = _images(2, 4, 2, 2, dtype=torch.float32)
    assert torch.equal(fast_depthwise.depthwise(conv, x), conv(x))
    assert taken == []


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 8)])
def test_average_pool(kernel, size, count_padding, dtype, taken):
    def reference(images):
        return F.avg_pool2d(images, kernel, 1, kernel // 2, count_include_pad=count_padding)

    x = _images(2, 5, *size, dtype=dtype)
    mine = _gradients(lambda images: fast.average_pool(images, kernel, count_padding=count_padding), x)
    assert taken == ["_AveragePool"]
    _assert_same(mine, _gradients(reference, x.detach().double().requires_grad_()), TOLERANCE[dtype])


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, (2, 3)), (5, 1, (9, 8)), (3, 2, (7, 6)), (5, 2, (5, 8))])
def test_average_pool_padded_beforehand(kernel, stride, size, count_padding):
    """What CUDA takes without kernels: its own gradient through padding is wrong, channels-last."""
    x = _images(2, 5, *size, dtype=torch.float64)
    mine = _gradients(lambda t: fast.average_of_padded(t, kernel, stride, count_padding=count_padding), x)
    theirs = _gradients(lambda t: F.avg_pool2d(t, kernel, stride, kernel // 2, count_include_pad=count_padding), x)
    _assert_same(mine, theirs, 1e-13)


@pytest.mark.parametrize("shape", [(16, 20, 32, 32), (11, 7, 39, 41), (4, 300, 64, 64)])
def test_batch_norm(shape, dtype, taken):
    channels = shape[1]
    norm, exact = nn.BatchNorm2d(channels).to(dtype), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
    exact.load_state_dict(norm.state_dict())
    x = (_images(*shape, dtype=dtype).detach() * 3 + 1).requires_grad_()
    mine = _gradients(lambda images: fast_norm.batch_norm(norm, images), x, norm.weight, norm.bias)
    assert taken == ["_BatchNorm"]
    expected = _gradients(exact, x.detach().double().requires_grad_(), exact.weight, exact.bias)
    _assert_same(mine, expected, TOLERANCE[dtype])
    assert norm.num_batches_tracked == 1
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norm, name).double(), getattr(exact, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["folded", "own", "evaluation"])
@pytest.mark.parametrize("affine", [True, False])
def test_a_scale_of_batch_norm(affine, case, dtype, monkeypatch):
    """The norm's output times a number that learns."""
    monkeypatch.setattr(fast_norm, "FOLD_ROWS", 64 if case == "folded" else 10**9)
    norm, exact = nn.BatchNorm2d(6, affine=affine).to(dtype), nn.BatchNorm2d(6, affine=affine).double()
    norm.train(case != "evaluation"), exact.train(case != "evaluation")
    scale = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    other = scale.detach().double().requires_grad_()
    x = (_images(4, 6, 8, 8, dtype=dtype).detach() * 3 + 1).requires_grad_()
    mine = _gradients(lambda images: fast_norm.batch_norm(norm, images, scale=scale), x, scale, *norm.parameters())
    double = x.detach().double().requires_grad_()
    expected = _gradients(lambda images: other * exact(images), double, other, *exact.parameters())
    _assert_same(mine, expected, TOLERANCE[dtype])
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer.double(), exact.get_buffer(name).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("twice", [True, False])
def test_weighted_sum(twice, dtype):
    terms = [_images(2, 3, 4, 4, dtype=dtype, seed=index) for index in range(3)]
    weights = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (0.5, -2.0, 0.25)]
    others = [tensor.detach().double().requires_grad_() for tensor in (*weights, *terms)]

    def ours(first):
        with fast.differentiable_twice() if twice else nullcontext():
            return fast.weighted_sum(weights, [first, *terms[1:]])

    def plain(first):
        return others[0] * first + others[1] * others[4] + others[2] * others[5]

    mine = _gradients(ours, terms[0], *weights, *terms[1:])
    _assert_same(mine, _gradients(plain, others[3], *others[:3], *others[4:]), TOLERANCE[dtype])


def test_batch_norm_is_closer_to_the_exact_result_than_the_native_one():
    norm, native, exact = nn.BatchNorm2d(20), nn.BatchNorm2d(20), nn.BatchNorm2d(20).double()
    x = (_images(64, 20, 32, 32, dtype=torch.float32).detach() * 3 + 1).requires_grad_()
    reference = exact(x.double())
    errors = [
        (out.double() - reference).norm() / reference.norm() for out in (fast_norm.batch_norm(norm, x), native(x))
    ]
    assert errors[0] < 5e-7
    assert errors[0] < errors[1]


def test_an_output_may_be_written_to():
    norm = nn.BatchNorm2d(8)
    x = _images(4, 8, 64, 64, dtype=torch.float32)
    fast_norm.batch_norm(norm, x).relu_().sum().backward()
    gradient, x.grad = x.grad, None
    F.relu(fast_norm.batch_norm(norm, x)).sum().backward()
    assert torch.equal(gradient, x.grad)


@pytest.mark.parametrize("case", ["evaluation", "double"])
def test_everything_else_takes_torchs_own(case, taken):
    dtype = torch.float64 if case == "double" else torch.float32
    norm, conv = nn.BatchNorm2d(6).to(dtype), nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False).to(dtype)
    x = _images(8, 6, 64, 64, dtype=dtype)
    if case == "evaluation":
        norm.eval()
        fast_norm.batch_norm(norm, x)
    else:
        fast_norm.batch_norm(norm, x)
        fast_depthwise.depthwise(conv, x)
        fast.average_pool(x, 3, count_padding=True)
    assert taken == []


@pytest.mark.parametrize("gradients", [True, False])
def test_batch_norm_without_running_statistics_leaves_them(gradients, taken):
    norm, x = nn.BatchNorm2d(6), _images(8, 6, 64, 64, dtype=torch.float32)
    expected = nn.BatchNorm2d(6)(x)
    norm.track_running_stats = False
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(fast_norm.batch_norm(norm, x), expected, rtol=1e-5, atol=1e-5)
    assert taken == ["_BatchNorm"]
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0


def test_kernels_are_for_graphs_but_those_that_torch_gets_wrong(monkeypatch):
    monkeypatch.setattr(fast, "_of_device", lambda _: "kernels")

    def taken():
        x = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.bfloat16, numel=lambda: 4)
        return {name for name in fast.KERNELS if fast.kernels_for(x, name) is not None}

    assert taken() == {"average_pool"}
    with fast.in_graph():
        assert taken() == {"average_pool", "batch_norm", "max_pool", "recurrent"}
        monkeypatch.setattr(fast, "KERNELS", {"max_pool"})
        assert taken() == {"max_pool"}
    assert taken() == set()


@pytest.mark.parametrize(
    "error", [ImportError("no triton"), subprocess.CalledProcessError(1, ["gcc"]), Exception("ptxas")]
)
def test_kernels_that_cannot_be_compiled_are_torchs_own(monkeypatch, caplog, error):
    def fail(*_):
        raise error

    broken = SimpleNamespace(AveragePool=SimpleNamespace(apply=fail))
    for name in ("kernels", "norm_kernels", "recurrent_kernels"):
        monkeypatch.setitem(sys.modules, f"nao_ray.networks.{name}", broken)
        monkeypatch.setattr(networks, name, broken, raising=False)
    assert fast._of_device.__wrapped__(torch.device("cpu")) is None
    assert str(error) in caplog.text
