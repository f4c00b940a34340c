"""Pooling on CUDA, channels-last, as Triton kernels.

Torch scatters the gradients of pools, and that of a padded average pool is wrong, channels-last (pytorch#188344; so it
was with torch 2.11 on an H200). Depthwise convolutions are cuDNN's: ours took a tenth longer in a child's step. Each of
these kernels reads its inputs as often as the cache allows, computes in float32, and takes bfloat16 and float32
tensors as they come, so that autocast has no weights to cast. Compiled for every height and width: dividing by a number
that is not known takes longer than everything else here.

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

TILE = 2048
"""Numbers that a program of four warps computes at a time."""
_COUNTS = ["n"]
"""Numbers that no code is compiled anew for."""


@triton.jit  # type: ignore[untyped-decorator]
def _source(  # type: ignore[no-untyped-def]
    row, column, i, j: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
    S: tl.constexpr, P: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """The pixel that tap i, j of the window around an output reads, and whether there is one; BACK: that reads it."""
    if BACK:
        h, w = row + P - i, column + P - j
        inside = (h >= 0) & (w >= 0) & (h % S == 0) & (w % S == 0)
        h, w = h // S, w // S
    else:
        h, w = row * S + i - P, column * S + j - P
        inside = (h >= 0) & (w >= 0)
    return h, w, inside & (h < height) & (w < width)


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _average(  # type: ignore[no-untyped-def]
    source, out, channels, n,
    height: tl.constexpr, width: tl.constexpr, source_height: tl.constexpr, source_width: tl.constexpr,
    K: tl.constexpr, S: tl.constexpr, ALL: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Means of windows, of real pixels or of ALL; BACK: each window's share of the gradient, added."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    column, row, image = pixel % width, pixel // width % height, pixel // (width * height)
    total = tl.zeros([BP, BC], tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            h, w, inside = _source(row, column, i, j, source_height, source_width, S, K // 2, BACK)
            place = ((image * source_height + h) * source_width + w)[:, None] * channels + channel[None, :]
            known = (inside & (pixel < n))[:, None] & (channel < channels)[None, :]
            value = tl.load(source + place, mask=known, other=0.0).to(tl.float32)
            if BACK:
                value = value / _pixels(h * S, w * S, height, width, K // 2, ALL)[:, None]
            total += value
    if not BACK:
        total = total / _pixels(row * S, column * S, source_height, source_width, K // 2, ALL)[:, None]
    place = pixel[:, None] * channels + channel[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(pixel < n)[:, None] & (channel < channels)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _pixels(  # type: ignore[no-untyped-def]
    row, column, height: tl.constexpr, width: tl.constexpr, half: tl.constexpr, ALL: tl.constexpr
):  # fmt: skip
    """How many pixels of the map the window around each has, at least 1; ALL: the zeros around it count too."""
    rows = tl.minimum(row + half, height - 1) - tl.maximum(row - half, 0) + 1
    columns = tl.minimum(column + half, width - 1) - tl.maximum(column - half, 0) + 1
    if ALL:
        rows, columns = rows * 0 + (2 * half + 1), columns * 0 + (2 * half + 1)
    return tl.maximum(rows * columns, 1).to(tl.float32)


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _maximum(  # type: ignore[no-untyped-def]
    source, taps, out, channels, n,
    height: tl.constexpr, width: tl.constexpr, source_height: tl.constexpr, source_width: tl.constexpr,
    K: tl.constexpr, S: tl.constexpr, P: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """The first greatest of a window, and its tap i K + j; BACK: the gradients of the windows that a pixel was of."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    column, row, image = pixel % width, pixel // width % height, pixel // (width * height)
    best = tl.zeros([BP, BC], tl.float32) + (0.0 if BACK else float("-inf"))
    tap = tl.zeros([BP, BC], tl.int32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            h, w, inside = _source(row, column, i, j, source_height, source_width, S, P, BACK)
            place = ((image * source_height + h) * source_width + w)[:, None] * channels + channel[None, :]
            known = (inside & (pixel < n))[:, None] & (channel < channels)[None, :]
            if BACK:
                chosen = tl.load(taps + place, mask=known, other=K * K) == i * K + j
                value = tl.load(source + place, mask=known, other=0.0).to(tl.float32)
                best += tl.where(chosen, value, 0.0)
            else:
                value = tl.load(source + place, mask=known, other=float("-inf")).to(tl.float32)
                better = (value > best) | (value != value)
                best, tap = tl.where(better, value, best), tl.where(better, i * K + j, tap)
    place = pixel[:, None] * channels + channel[None, :]
    known = (pixel < n)[:, None] & (channel < channels)[None, :]
    tl.store(out + place, best.to(out.dtype.element_ty), mask=known)
    if not BACK:
        tl.store(taps + place, tap.to(tl.uint8), mask=known)


# -- functions ------------------------------------------------------------------------------------------------------


def nhwc(x: Tensor) -> Tensor:
    """The same, channels-last."""
    return x.contiguous(memory_format=torch.channels_last)


def blocks(x: Tensor, numbers: int) -> tuple[int, int]:
    """BP and BC for the channels of `x`."""
    channels = min(triton.next_power_of_2(x.shape[1]), 64)
    return max(1, numbers // channels), channels


def _empty(like: Tensor, kernel: int, stride: int, padding: int, dtype: torch.dtype | None = None) -> Tensor:
    """For what windows on `like` give."""
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in like.shape[2:])
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


def _per_pixel(run: Any, source: Tensor, beside: tuple[Tensor, ...], out: Tensor, **how: Any) -> Tensor:  # noqa: ANN401
    """Launch a kernel that computes every pixel of `out` from a window of `source`."""
    pixels, channels = blocks(out, TILE)
    n = out.numel() // out.shape[1]
    grid = (triton.cdiv(n, pixels), triton.cdiv(out.shape[1], channels))
    run[grid](source, *beside, out, out.shape[1], n, *out.shape[2:], *source.shape[2:], BP=pixels, BC=channels, **how)
    return out


class AveragePool(Function):
    """``[B, C, H, W]`` -> ``[B, C, OH, OW]``: means of the KxK pixels around, K odd; outside are zeros, or nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, count_padding: bool) -> Tensor:  # noqa: ANN401
        ctx.shape, ctx.how = x.shape, {"K": kernel, "S": stride, "ALL": count_padding}
        x = nhwc(x)
        return _per_pixel(_average, x, (), _empty(x, kernel, stride, kernel // 2), **ctx.how, BACK=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        gradient = nhwc(gradient)
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
        return _per_pixel(_average, gradient, (), of_x, **ctx.how, BACK=True), None, None, None


class MaxPool(Function):
    """``[B, C, H, W]`` -> ``[B, C, OH, OW]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:  # noqa: ANN401
        x = nhwc(x)
        ctx.shape, ctx.how = x.shape, {"K": kernel, "S": stride, "P": padding}
        taps = _empty(x, kernel, stride, padding, torch.uint8)
        ctx.save_for_backward(taps)
        return _per_pixel(_maximum, x, (taps,), _empty(x, kernel, stride, padding), **ctx.how, BACK=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (taps,), gradient = ctx.saved_tensors, nhwc(gradient)
        of_x = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
        return _per_pixel(_maximum, gradient, (taps,), of_x, **ctx.how, BACK=True), None, None, None
