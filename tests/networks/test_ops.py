"""Operations: shapes, parameters, and pools at the border of the map."""

import pytest
import torch

from nao_ray.networks.ops import NAMES, OpOptions, build_op

C = 6
PARAMETERS = {
    **{f"sep_conv_{k}x{k}": 2 * (k * k * C + C * C + 2 * C) for k in (3, 5, 7)},
    **{f"dil_sep_conv_{k}x{k}": k * k * C + C * C + 2 * C for k in (3, 5, 7)},
    **{f"conv_{k}x{k}": k * k * C * C + 2 * C for k in (1, 3)},
    **{f"conv_1x{k}_{k}x1": 2 * (k * C * C + 2 * C) for k in (3, 7)},
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
