"""Depthwise convolution for training: the same results in less time, where oneDNN is slow.

Measured with torch 2.14 (oneDNN), one thread, float32, channels-last, ``[32, 16, 32, 32]``: the gradients of a kernel
that is dilated by 2 take 4.2 ms for 3x3 and 9.0 ms for 5x5, at stride 2 9.1 and 16.7 ms, of plain ones 0.5 and 3.1 ms:
so dilated convolutions are taken as plain ones of every second pixel. A wide kernel's weight gradient is put together
from strips of three columns (``[64, 20, 32, 32]``: 5x5 6.4 ms, 5x3 1.1 ms, any height is fast), and the input's
gradient at stride 1 is a convolution with the kernel turned round.

Legend: `B` batch, `C` channels, `H` `W` pixels, `k` kernel, `s` stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nao_ray.networks.fast import applies, every_second

STRIP = 3
"""Columns whose weight gradient oneDNN computes fast."""


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)`` for a depthwise convolution without bias, of a square kernel."""
    (kernel, _), (stride, _), (dilation, _) = conv.kernel_size, conv.stride, conv.dilation
    padding = int(conv.padding[0])
    fast = (stride == 1 or kernel > STRIP or dilation == 2) and dilation * (kernel - 1) < x.shape[-1] + dilation - 1
    if not fast or dilation > 2 or not applies(x):
        return F.conv2d(x, conv.weight, None, stride, padding, dilation, conv.groups)
    if stride == dilation == 2 and padding % 2 == 0:  # what it reads are the even pixels, and it skips none
        (x,), stride, padding, dilation = every_second(x), 1, padding // 2, 1
    out: Tensor = _Depthwise.apply(
        x.contiguous(memory_format=torch.channels_last), conv.weight, stride, padding, dilation
    )
    return out


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    stride: int
    padding: int
    dilation: int


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.dilation = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _of_input(grad, x, weight, ctx)
        if ctx.needs_input_grad[1]:
            grad_weight = _of_weight(grad, x, weight, ctx)
        return grad_x, grad_weight, None, None, None


def _of_input(grad: Tensor, x: Tensor, weight: Tensor, how: _Context) -> Tensor:
    """At stride 1 it is a convolution with the kernel turned round, and that is the faster one."""
    if how.stride == 1:
        padding = how.dilation * (weight.shape[-1] - 1) - how.padding
        return F.conv2d(grad, weight.flip(2, 3), None, 1, padding, how.dilation, weight.shape[0])
    return _conv_backward(grad, x, weight, how.stride, (how.padding, how.padding), of_input=True)


def _of_weight(grad: Tensor, x: Tensor, weight: Tensor, how: _Context) -> Tensor:
    """``[C, 1, k, k]``; dilated by 2 it is a plain convolution of every second pixel, of which there are four sets."""
    kernel, padding = weight.shape[-1], how.padding
    if how.dilation == 2:
        padding //= 2
        if how.padding % 2 or x.shape[-2] % 2 or x.shape[-1] % 2 or grad.shape != x.shape:
            return _dilated_backward(grad, x, weight, how.padding)
        grad, x = _by_parity(grad), _by_parity(x)
        weight = weight.repeat(2, 1, 1, 1)
    strips = [
        _weight_strip(grad, x, weight[..., column : column + STRIP], how.stride, padding, column)
        for column in range(0, kernel, STRIP)
    ]
    found = strips[0] if len(strips) == 1 else torch.cat(strips, dim=-1)
    return found if how.dilation == 1 else found.view(2, -1, 1, kernel, kernel).sum(0)


def _by_parity(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` -> ``[2 B, 2 C, H/2, W/2]``: even rows, then odd ones; channels of even columns, then odd ones.

    In channels-last, pixels beside each other seen as one have twice the channels: only rows are moved.
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width * channels).transpose(1, 2)
    return rows.reshape(2 * batch, height // 2, width // 2, 2 * channels).permute(0, 3, 1, 2)


def _dilated_backward(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient of the weight by torch's own operation."""
    mask = [False, True, False]
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [padding] * 2, [2, 2], False, [0, 0], weight.shape[0], mask
    )
    return out[1]


def _weight_strip(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, column: int) -> Tensor:
    """Gradient ``[C, 1, k, 1..3]`` of the columns `weight`, which begin at `column`: a narrow kernel on x, moved."""
    if weight.shape[-2] <= STRIP:  # all there is
        return _conv_backward(grad, x, weight, stride, (padding, padding), of_input=False)
    width = (grad.shape[-1] - 1) * stride + weight.shape[-1]  # columns that this strip reads, from column - padding on
    left = padding - column
    moved = F.pad(x, (left, width - left - x.shape[-1])).contiguous(memory_format=torch.channels_last)
    return _conv_backward(grad, moved, weight, stride, (padding, 0), of_input=False)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], *, of_input: bool
) -> Tensor:
    which = [of_input, not of_input, False]
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], weight.shape[0], which
    )
    return out[0] if of_input else out[1]
