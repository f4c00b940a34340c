"""Depthwise convolution and average pooling on CUDA, channels-last, as Triton kernels.

cuDNN's weight gradient of a depthwise convolution is a grouped one's: a fifth of a child's step. Torch's average pool
scatters its gradient. Each of these kernels reads its inputs as often as the cache allows, computes in float32, and
takes bfloat16 and float32 tensors as they come, so that autocast has no weights to cast.

Legend: `B` batch, `C` channels, `H` `W` pixels in, `OH` `OW` out, `K` kernel, `S` stride, `P` padding; `n` pixels of
all images together. A program computes `BP` pixels of `BC` channels.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_TILE = 2048
"""Numbers that a program of four warps computes at a time."""
_PROGRAMS = 1024
"""Programs that keep the largest GPU busy."""
_SIZES = ["n", "per_program", "height", "width", "source_height", "source_width", "out_height", "out_width"]
"""Numbers that no code is compiled anew for."""


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _window(  # type: ignore[no-untyped-def]
    source, weight, out, channels, n, height, width, source_height, source_width,
    K: tl.constexpr, S: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """``out[p] = sum_ij weight[i, j] source[p S + ij - P]``; BACK: its transpose, on the output's gradient."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    column, row, image = pixel % width, pixel // width % height, pixel // (width * height)
    total = tl.zeros([BP, BC], tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            if BACK:
                h, w = row + P - i, column + P - j
                inside = (pixel < n) & (h >= 0) & (w >= 0) & (h % S == 0) & (w % S == 0)
                h, w = h // S, w // S
            else:
                h, w = row * S + i - P, column * S + j - P
                inside = (pixel < n) & (h >= 0) & (w >= 0)
            inside = inside & (h < source_height) & (w < source_width)
            place = ((image * source_height + h) * source_width + w)[:, None] * channels + channel[None, :]
            value = tl.load(source + place, mask=inside[:, None] & (channel < channels)[None, :], other=0.0)
            factor = tl.load(weight + (i * K + j) * channels + channel, mask=channel < channels, other=0.0)
            total += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    place = pixel[:, None] * channels + channel[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(pixel < n)[:, None] & (channel < channels)[None, :])


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _weight_gradient(  # type: ignore[no-untyped-def]
    x, gradient, parts, channels, n, per_program, height, width, out_height, out_width,
    K: tl.constexpr, KP: tl.constexpr, S: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Row `i` of the kernel, from a part's pixels: ``parts[part, c, i, j] = sum_p gradient[p] x[p S + ij - P]``."""
    part, i = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    j = tl.arange(0, KP)  # K, filled up to a power of two
    total = tl.zeros([KP, BP, BC], tl.float32)
    for start in range(0, per_program, BP):
        pixel = part * per_program + start + tl.arange(0, BP)
        column, row, image = pixel % out_width, pixel // out_width % out_height, pixel // (out_width * out_height)
        known = (pixel < n)[:, None] & (channel < channels)[None, :]
        given = tl.load(gradient + pixel[:, None] * channels + channel[None, :], mask=known, other=0.0)
        h, w = row * S + i - P, column[None, :] * S + j[:, None] - P
        inside = (j < K)[:, None] & ((pixel < n) & (h >= 0) & (h < height))[None, :] & (w >= 0) & (w < width)
        place = (((image * height + h) * width)[None, :] + w)[:, :, None] * channels + channel[None, None, :]
        value = tl.load(x + place, mask=inside[:, :, None] & (channel < channels)[None, None, :], other=0.0)
        total += value.to(tl.float32) * given.to(tl.float32)[None, :, :]
    place = part * channels * (K * K) + channel[None, :] * (K * K) + i * K + j[:, None]
    tl.store(parts + place, tl.sum(total, axis=1), mask=(j < K)[:, None] & (channel < channels)[None, :])


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _average(  # type: ignore[no-untyped-def]
    source, out, channels, n, height, width,
    K: tl.constexpr, ALL: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Means of windows of stride 1, of real pixels or of ALL; BACK: each window's share of the gradient, added."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    column, row, image = pixel % width, pixel // width % height, pixel // (width * height)
    half: tl.constexpr = K // 2
    total = tl.zeros([BP, BC], tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            h, w = row + i - half, column + j - half
            inside = (pixel < n) & (h >= 0) & (w >= 0) & (h < height) & (w < width)
            place = ((image * height + h) * width + w)[:, None] * channels + channel[None, :]
            value = tl.load(source + place, mask=inside[:, None] & (channel < channels)[None, :], other=0.0)
            value = value.to(tl.float32)
            if BACK:
                pixels = _pixels(h, w, height, width, half, ALL)
                value = value / pixels[:, None]
            total += value
    if not BACK:
        around = _pixels(row, column, height, width, half, ALL)
        total = total / around[:, None]
    place = pixel[:, None] * channels + channel[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(pixel < n)[:, None] & (channel < channels)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _pixels(row, column, height, width, half: tl.constexpr, ALL: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many pixels the window around each has; at least 1."""
    rows = tl.minimum(row + half, height - 1) - tl.maximum(row - half, 0) + 1
    columns = tl.minimum(column + half, width - 1) - tl.maximum(column - half, 0) + 1
    if ALL:
        rows, columns = rows * 0 + (2 * half + 1), columns * 0 + (2 * half + 1)
    return tl.maximum(rows * columns, 1).to(tl.float32)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _blocks(x: Tensor, numbers: int = _TILE) -> tuple[int, int]:
    """BP and BC for the channels of `x`."""
    channels = min(triton.next_power_of_2(x.shape[1]), 64)
    return max(1, numbers // channels), channels


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class Depthwise(Function):
    """``[B, C, H, W]``, weight ``[C, 1, K, K]`` -> ``[B, C, OH, OW]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:  # noqa: ANN401
        x, kernel = _nhwc(x), weight.shape[-1]
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:])
        channels_last = weight.flatten(1).t().contiguous()  # [K K, C], read four or eight channels at a time
        ctx.save_for_backward(x, channels_last)
        ctx.stride, ctx.padding, ctx.shape = stride, padding, weight.shape
        return _convolve(x, channels_last, _empty(x, height, width), kernel, stride, padding, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        kernel, stride, padding = ctx.shape[-1], ctx.stride, ctx.padding
        gradient, of_x, of_weight = _nhwc(gradient), None, None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight, torch.empty_like(x), kernel, stride, padding, back=True)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(x, gradient, kernel, stride, padding).to(weight.dtype)
        return of_x, of_weight, None, None


def _convolve(
    source: Tensor, weight: Tensor, out: Tensor, kernel: int, stride: int, padding: int, *, back: bool
) -> Tensor:
    """`weight`: ``[K K, C]``."""
    pixels, channels = _blocks(out)
    n = out.numel() // out.shape[1]
    grid = (triton.cdiv(n, pixels), triton.cdiv(out.shape[1], channels))
    _window[grid](
        source, weight, out, out.shape[1], n, *out.shape[2:], *source.shape[2:],
        K=kernel, S=stride, P=padding, BP=pixels, BC=channels, BACK=back,
    )  # fmt: skip
    return out


def _gradient_of_weight(x: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """``[C, 1, K, K]``, float32."""
    padded = triton.next_power_of_2(kernel)
    pixels, channels = _blocks(x, 2 * _TILE // padded)
    groups, n = triton.cdiv(x.shape[1], channels), gradient.numel() // x.shape[1]
    parts = max(1, min(_PROGRAMS // (groups * kernel), n // pixels))
    per_program = triton.cdiv(triton.cdiv(n, parts), pixels) * pixels
    sums = torch.empty((parts, x.shape[1], 1, kernel, kernel), dtype=torch.float32, device=x.device)
    _weight_gradient[(parts, groups, kernel)](
        x, gradient, sums, x.shape[1], n, per_program, *x.shape[2:], *gradient.shape[2:],
        K=kernel, KP=padded, S=stride, P=padding, BP=pixels, BC=channels,
    )  # fmt: skip
    return sums.sum(0)


class AveragePool(Function):
    """``[B, C, H, W]`` -> the same: the mean of the KxK pixels around each, K odd; outside are zeros, or nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, count_padding: bool) -> Tensor:  # noqa: ANN401
        ctx.kernel, ctx.count_padding = kernel, count_padding
        return _averages(_nhwc(x), kernel, count_padding, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _averages(_nhwc(gradient), ctx.kernel, ctx.count_padding, back=True), None, None


def _averages(source: Tensor, kernel: int, count_padding: bool, *, back: bool) -> Tensor:
    pixels, channels = _blocks(source)
    out = torch.empty_like(source)
    n = out.numel() // out.shape[1]
    grid = (triton.cdiv(n, pixels), triton.cdiv(out.shape[1], channels))
    _average[grid](
        source, out, source.shape[1], n, *source.shape[2:],
        K=kernel, ALL=count_padding, BP=pixels, BC=channels, BACK=back,
    )  # fmt: skip
    return out
