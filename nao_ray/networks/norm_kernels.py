"""Batch norm with the ReLU after it on CUDA, channels-last, as Triton kernels: sums, totals, and a pass to apply them.

Torch takes twice as long: six kernels forward, and backward the slow ones of other layouts where a gradient is a part
of a wider one, as it is of what is put side by side. The running statistics and the count of batches are the second
kernel's. Sums are of differences from the first pixel, which lies within the channel's spread: nothing cancels.

Legend: `B` batch, `C` channels, `H` `W` pixels; `n` pixels of all images together. A program computes `BP` pixels of
`BC` channels.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nao_ray.networks.kernels import TILE, blocks, nhwc

PER_PROGRAM = 8192
"""Numbers that a program adds up."""
_ROWS = 64
"""Parts whose sums are added at a time."""
_COUNTS = ["n", "per_program", "parts"]
"""Numbers that no code is compiled anew for."""


@triton.jit  # type: ignore[untyped-decorator]
def _normal(  # type: ignore[no-untyped-def]
    x, gradient, place, row, known, channel, inside, weight, bias, stats, channels, RELU: tl.constexpr
):  # fmt: skip
    """What batch norm made of `x`, before weight and bias, and the gradient that came through the ReLU."""
    mean = tl.load(stats + channel, mask=inside, other=0.0)[None, :]
    scale = tl.load(stats + channels + channel, mask=inside, other=0.0)[None, :]
    normal = (tl.load(x + place, mask=known, other=0.0).to(tl.float32) - mean) * scale
    given = tl.load(gradient + row, mask=known, other=0.0).to(tl.float32)
    if RELU:
        factor = tl.load(weight + channel, mask=inside, other=0.0)[None, :]
        shift = tl.load(bias + channel, mask=inside, other=0.0)[None, :]
        given = tl.where(normal * factor + shift <= 0, 0.0, given)
    return normal, given


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _sums(  # type: ignore[no-untyped-def]
    x, gradient, weight, bias, stats, sums, channels, stride, n, per_program,
    BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """Of a part's pixels, ``sums[part]``: differences and their squares; BACK: the gradient, and times the normal x."""
    part = tl.program_id(0)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = channel < channels
    first, second = tl.zeros([BP, BC], tl.float32), tl.zeros([BP, BC], tl.float32)
    for start in range(0, per_program, BP):
        pixel = part * per_program + start + tl.arange(0, BP)
        place = pixel[:, None] * channels + channel[None, :]
        known = (pixel < n)[:, None] & inside[None, :]
        if BACK:
            row = pixel[:, None] * stride + channel[None, :]
            normal, given = _normal(
                x, gradient, place, row, known, channel, inside, weight, bias, stats, channels, RELU
            )
            first += given
            second += given * normal
        else:
            origin = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(x + place, mask=known, other=0.0).to(tl.float32) - origin[None, :]
            value = tl.where(known, value, 0.0)
            first += value
            second += value * value
    tl.store(sums + part * 2 * channels + channel, tl.sum(first, axis=0), mask=inside)
    tl.store(sums + (part * 2 + 1) * channels + channel, tl.sum(second, axis=0), mask=inside)


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _totals(  # type: ignore[no-untyped-def]
    sums, out, x, running_mean, running_var, batches, channels, n, parts, eps, momentum,
    BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr, UPDATE: tl.constexpr,
):  # fmt: skip
    """``[2, C]``: mean and one over the standard deviation, which UPDATE the running ones; BACK: the two sums."""
    channel = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = channel < channels
    first, second = tl.zeros([BP, BC], tl.float32), tl.zeros([BP, BC], tl.float32)
    for start in range(0, parts, BP):
        part = start + tl.arange(0, BP)
        place = part[:, None] * (2 * channels) + channel[None, :]
        known = (part < parts)[:, None] & inside[None, :]
        first += tl.load(sums + place, mask=known, other=0.0)
        second += tl.load(sums + place + channels, mask=known, other=0.0)
    one, two = tl.sum(first, axis=0), tl.sum(second, axis=0)
    if not BACK:
        count = n.to(tl.float32)
        shift = one / count
        mean = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32) + shift
        variance = tl.maximum(two / count - shift * shift, 0.0)
        if UPDATE:
            old = tl.load(running_mean + channel, mask=inside, other=0.0)
            tl.store(running_mean + channel, old + momentum * (mean - old), mask=inside)
            old = tl.load(running_var + channel, mask=inside, other=0.0)
            unbiased = variance * (count / (count - 1))
            tl.store(running_var + channel, old + momentum * (unbiased - old), mask=inside)
            if tl.program_id(0) == 0:
                tl.store(batches, tl.load(batches) + 1)
        one, two = mean, 1 / tl.sqrt(variance + eps)
    tl.store(out + channel, one, mask=inside)
    tl.store(out + channels + channel, two, mask=inside)


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _apply(  # type: ignore[no-untyped-def]
    x, gradient, weight, bias, stats, totals, out, channels, stride, n,
    BP: tl.constexpr, BC: tl.constexpr, BACK: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """The result; BACK: the gradient of `x`, from the gradient and its `totals`."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = channel < channels
    place = pixel[:, None] * channels + channel[None, :]
    known = (pixel < n)[:, None] & inside[None, :]
    factor = tl.load(weight + channel, mask=inside, other=0.0)[None, :]
    scale = tl.load(stats + channels + channel, mask=inside, other=0.0)[None, :]
    if BACK:
        row = pixel[:, None] * stride + channel[None, :]
        normal, given = _normal(x, gradient, place, row, known, channel, inside, weight, bias, stats, channels, RELU)
        one = (tl.load(totals + channel, mask=inside, other=0.0) / n)[None, :]
        two = (tl.load(totals + channels + channel, mask=inside, other=0.0) / n)[None, :]
        value = factor * scale * (given - one - normal * two)
    else:
        mean = tl.load(stats + channel, mask=inside, other=0.0)[None, :]
        shift = tl.load(bias + channel, mask=inside, other=0.0)[None, :]
        value = (tl.load(x + place, mask=known, other=0.0).to(tl.float32) - mean) * scale * factor + shift
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # NaN stays
    tl.store(out + place, value.to(out.dtype.element_ty), mask=known)


class BatchNorm(Function):
    """``[B, C, H, W]`` -> the same, by the batch's statistics, rectified on request."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        relu: bool,
    ) -> Tensor:
        x, n = nhwc(x), x.numel() // x.shape[1]
        sums = _add_up(x, x, (weight, bias, x), x.shape[1], BACK=False, RELU=relu)
        stats = _total(sums, x, norm, n, back=False)
        ctx.save_for_backward(x, weight, bias, stats)
        ctx.relu = relu
        return _result(x, x, (weight, bias, stats, stats), x.shape[1], BACK=False, RELU=relu)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:  # noqa: ANN401
        x, *small = ctx.saved_tensors
        gradient, stride = _rows(gradient)
        sums = _add_up(x, gradient, tuple(small), stride, BACK=True, RELU=ctx.relu)
        totals = _total(sums, x, None, x.numel() // x.shape[1], back=True)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _result(x, gradient, (*small, totals), stride, BACK=True, RELU=ctx.relu)
        return of_x, totals[1], totals[0], None, None


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """`x`, channels-last perhaps among other channels, and how far its pixels are from each other."""
    _, channels, height, width = x.shape
    stride = x.stride(3) if width > 1 else channels
    if stride >= channels and x.stride() == (height * width * stride, 1, width * stride, stride):
        return x, stride
    return nhwc(x), channels


def _add_up(x: Tensor, gradient: Tensor, small: tuple[Tensor, ...], stride: int, **how: bool) -> Tensor:
    """``[parts, 2, C]``."""
    (pixels, block), channels = blocks(x, TILE), x.shape[1]
    n, per_program = x.numel() // channels, max(1, PER_PROGRAM // TILE) * pixels
    parts = triton.cdiv(n, per_program)
    sums = torch.empty((parts, 2, channels), dtype=torch.float32, device=x.device)
    grid = (parts, triton.cdiv(channels, block))
    _sums[grid](x, gradient, *small, sums, channels, stride, n, per_program, BP=pixels, BC=block, **how)
    return sums


def _total(sums: Tensor, x: Tensor, norm: nn.BatchNorm2d | None, n: int, *, back: bool) -> Tensor:
    """``[2, C]``; see `_totals`."""
    parts, _, channels = sums.shape
    out = torch.empty((2, channels), dtype=torch.float32, device=sums.device)
    running: tuple[Tensor | None, ...] = (out, out, out)
    eps, momentum, update = 0.0, 0.0, False
    if norm is not None:
        eps, momentum, update = norm.eps, norm.momentum or 0.0, norm.track_running_stats
        running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    _totals[(triton.cdiv(channels, 16),)](
        sums, out, x, *running, channels, n, parts, eps, momentum, BP=_ROWS, BC=16, BACK=back, UPDATE=update
    )
    return out


def _result(x: Tensor, gradient: Tensor, small: tuple[Tensor, ...], stride: int, **how: bool) -> Tensor:
    """``[B, C, H, W]``."""
    (pixels, block), channels = blocks(x, TILE), x.shape[1]
    n, out = x.numel() // channels, torch.empty_like(x)
    grid = (triton.cdiv(n, pixels), triton.cdiv(channels, block))
    _apply[grid](x, gradient, *small, out, channels, stride, n, BP=pixels, BC=block, **how)
    return out
