"""Operations: shapes, parameters, and pools at the border of the map."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.ops import NAMES, OpOptions, build_op
from nao_ray.spaces.darts_cnn import LOWERED

C = 6
PARAMETERS = {
    **{f"sep_conv_{k}x{k}": 2 * (k * k * C + C * C + 2 * C) for k in (3, 5, 7)},
    **{f"dil_sep_conv_{k}x{k}": k * k * C + C * C + 2 * C for k in (3, 5, 7)},
    **{f"conv_{k}x{k}": k * k * C * C + 2 * C for k in (1, 3)},
    **{f"conv_1x{k}_{k}x1": 2 * (k * C * C + 2 * C) for k in (3, 7)},
    "conv_7x1_1x7": 2 * 7 * C * C + 2 * C,
}


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_parameters(name, stride, size):
    op = build_op(name, C, stride)
    side = -(-size // stride)
    assert op.eval()(torch.ones(2, C, size, size)).shape == (2, C, side, side)
    reduce = C * C + 2 * C if name == "identity" and stride == 2 else 0
    assert sum(p.numel() for p in op.parameters()) == PARAMETERS.get(name, reduce)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_average_pools_of_a_constant_tell_who_counts_the_padding(kernel, stride):
    ones = torch.ones(1, C, 5, 5)
    excluded = build_op(f"avg_pool_{kernel}x{kernel}", C, stride)(ones)
    torch.testing.assert_close(excluded, torch.ones_like(excluded))
    counted = build_op(f"avg_pool_{kernel}x{kernel}_padded", C, stride)(ones)
    assert counted.min() < 0.8
    corrected = build_op(f"avg_pool_{kernel}x{kernel}_padded", C, stride, OpOptions(count_padding=False))(ones)
    torch.testing.assert_close(corrected, torch.ones_like(corrected))


def test_two_by_two_pools_pad_right_and_below():
    x = -torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # negative: a zero of the padding is the largest
    expected = torch.tensor([[-1.0, -2, 0], [-4, -5, 0], [0, 0, 0]])
    assert torch.equal(build_op("max_pool_2x2", 1, 1)(x)[0, 0], expected)
    assert build_op("avg_pool_2x2_padded", 1, 1)(x)[0, 0, 0, 2] == (-3 - 6) / 4
    real = build_op("max_pool_2x2", 1, 1, OpOptions(count_padding=False))(x)[0, 0]
    assert torch.equal(real, torch.tensor([[-1.0, -2, -3], [-4, -5, -6], [-7, -8, -9]]))


def test_zero_is_zero():
    assert (build_op("zero", C, 2)(torch.ones(1, C, 5, 5)) == 0).all()


EVALUATION_OPS = OpOptions(rectify_reduction=True)
DARTS = json.loads((Path(__file__).parents[1] / "golden" / "darts.json").read_text())["parameter_counts"]


@pytest.mark.parametrize("golden", [name for name in DARTS["op_params_C16"] if not name.startswith("_")])
def test_parameters_of_darts_operations(golden):
    """As counted of the published code: in evaluation, and in search, whose batch norms only normalise."""
    name, _, told = golden.partition("_stride")
    for stride in (told,) if told else (1, 2):
        counts = [
            sum(p.numel() for p in build_op(LOWERED[name], 16, int(stride), options).parameters())
            for options in (EVALUATION_OPS, SEARCH_OPS)
        ]
        assert counts == DARTS["op_params_C16"][golden]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", LOWERED.values())
def test_darts_operations_against_their_layers(name, stride):
    """Values and gradients, in search and in evaluation, as torch's layers give them one after the other."""
    for options in (EVALUATION_OPS, SEARCH_OPS):
        torch.manual_seed(0)
        op = build_op(name, C, stride, options).double()
        x, again = (torch.randn(3, C, 9, 9, dtype=torch.float64).requires_grad_() for _ in range(2))
        again.data.copy_(x.data)
        out = op(x.relu() if op.rectified_input else x)
        wanted = by_layers(name, stride, op, again, pools_normed=options.norm_pools)
        torch.testing.assert_close(out, wanted)
        if name == "zero":
            continue  # of which no gradient goes back
        probe = torch.randn_like(out)
        torch.testing.assert_close(
            torch.autograd.grad((out * probe).sum(), (x, *op.parameters()), allow_unused=True),
            torch.autograd.grad((wanted * probe).sum(), (again, *op.parameters()), allow_unused=True),
        )


def by_layers(name, stride, op, x, *, pools_normed):
    """An operation of darts.md section 2 with the weights of ours: kernels in their order, then norms in theirs."""
    kernels = [p for p in op.parameters() if p.dim() == 4]
    affine = [p for p in op.parameters() if p.dim() == 1] or [None, None] * 2

    def norm(x, at=0):
        return F.batch_norm(x, None, None, affine[2 * at], affine[2 * at + 1], training=True)

    if name == "zero":
        return 0 * x[:, :, ::stride, ::stride]
    if name == "identity" and stride == 1:
        return x
    if name.endswith("pool_3x3"):
        pooled = F.max_pool2d(x, 3, stride, 1) if name[0] == "m" else F.avg_pool2d(x, 3, stride, 1, False, False)
        return norm(pooled) if pools_normed else pooled
    x = x.relu()
    if name == "identity":  # an odd map: a zero row and column are appended
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return norm(torch.cat([F.conv2d(part, k, stride=2) for part, k in zip((x, moved), kernels, strict=True)], 1))
    if name == "conv_7x1_1x7":
        return norm(F.conv2d(F.conv2d(x, kernels[0], None, (1, stride), (0, 3)), kernels[1], None, (stride, 1), (3, 0)))
    k = int(name[-1])
    if name.startswith("dil"):
        return norm(F.conv2d(F.conv2d(x, kernels[0], None, stride, k - 1, 2, C), kernels[1]))
    x = norm(F.conv2d(F.conv2d(x, kernels[0], None, stride, k // 2, 1, C), kernels[1])).relu()
    return norm(F.conv2d(F.conv2d(x, kernels[2], None, 1, k // 2, 1, C), kernels[3]), 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("zero", "identity")])
def test_what_ends_in_a_batch_norm_takes_a_scale(name):
    for options in (OpOptions(norm_pools=True), SEARCH_OPS):
        op, scale = build_op(name, C, 2, options).double(), torch.tensor(0.3, dtype=torch.float64)
        x = torch.randn(2, C, 6, 6, dtype=torch.float64)
        torch.testing.assert_close(op(x, scale), 0.3 * op(x))
