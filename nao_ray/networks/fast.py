"""Depthwise convolution, pooling and batch norm for training: the same results in less time.

Legend: `B` batch, `C` channels, `H` `W` pixels, `k` kernel, `s` stride.

Measured with torch 2.14 (oneDNN), one thread, float32, channels-last, ``[64, 20, 32, 32]``: the weight gradient of a
depthwise 5x5 convolution takes 6.4 ms, of a 5x3 one 1.1 ms (any height is fast, widths over 3 are not), so a wide
kernel's gradient is put together from strips of three columns; average pooling 3x3 takes 2.5 ms forward and 2.0 ms
backward, the same as a depthwise convolution 0.5 ms each; batch norm of 20 channels leaves vector lanes empty and
adds 65,536 numbers one by one, off by 3e-6, while sixteen pixels seen as 320 channels take half of the time and are off
by 1e-7. In a CUDA graph pools and batch norm are Triton kernels. Other devices, other types and batch norm by
running statistics take torch's own operations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

_log = logging.getLogger(__name__)

STRIP = 3
"""Columns whose weight gradient oneDNN computes fast."""
FOLD_ROWS = 16384
"""Pixels of a batch from which on folding pays (measured; below, torch's batch norm is as fast and accurate enough)."""
FOLD_WIDTH = 256
"""Channels and pixels of a folded row together, at least: a multiple of every vector width."""


DTYPES = {torch.float32}
"""Types that take these paths: those of oneDNN's kernels."""


def applies(x: Tensor) -> bool:
    """Whether these paths are made for `x`."""
    usual = x.device.type == "cpu" and x.dtype in DTYPES and not torch.is_autocast_enabled("cpu")
    return usual and _mkldnn()


def _mkldnn() -> bool:
    return bool(torch._C._has_mkldnn and torch.backends.mkldnn.enabled)


KERNELS = {"average_pool", "max_pool", "batch_norm"}
"""What takes Triton kernels on CUDA; less, to measure what each brings."""
_LAUNCHED = {"average_pool"}
"""What takes them outside of graphs too: launching one from Python takes longer than torch's own."""
_is_in_graph = False


@contextmanager
def in_graph() -> Iterator[None]:
    """What is computed in here is recorded in a CUDA graph, or gets ready for it."""
    global _is_in_graph
    before, _is_in_graph = _is_in_graph, True
    try:
        yield
    finally:
        _is_in_graph = before


def _kernels(x: Tensor, what: str) -> Kernels | None:
    """Those for `x`, where it is on CUDA and they work there."""
    if x.device.type != "cuda" or what not in KERNELS or not (_is_in_graph or what in _LAUNCHED):
        return None
    if x.dtype not in (torch.float32, torch.bfloat16) or x.numel() >= 2**31:
        return None
    return _of_device(x.device)


class Kernels(NamedTuple):
    """Functions of `kernels` and `norm_kernels`."""

    average_pool: Callable[..., Tensor]
    max_pool: Callable[..., Tensor]
    batch_norm: Callable[..., Tensor]


@cache
def _of_device(device: torch.device) -> Kernels | None:
    """The kernels, tried out on a device: they are compiled where they run."""
    try:
        from nao_ray.networks import kernels, norm_kernels

        with torch.inference_mode(False), torch.enable_grad():  # an evaluation may be the first to ask
            x = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
            kernels.AveragePool.apply(x, 3, 1, False).sum().backward()
    except Exception as error:  # of a compiler, an assembler, a linker: each has kinds of its own
        reason = " ".join(str(error).split())[:200]
        _log.warning("pools and batch norm on %s are torch's own, which are slower: %s", device, reason)
        return None
    return Kernels(kernels.AveragePool.apply, kernels.MaxPool.apply, norm_kernels.BatchNorm.apply)


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)`` for a depthwise convolution without bias."""
    wide = STRIP < conv.kernel_size[1] < x.shape[-1] and max(conv.dilation) == 1
    if not wide or not applies(x):
        return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    out: Tensor = _Depthwise.apply(x, conv.weight, conv.stride[0], conv.padding[0])
    return out


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    stride: int
    padding: int
    kernel: int
    inverse: Tensor
    eps: float


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv_backward(grad, x, weight, ctx.stride, (ctx.padding, ctx.padding), of_input=True)
        if ctx.needs_input_grad[1]:
            strips = [
                _weight_strip(grad, x, weight[..., column : column + STRIP], ctx.stride, ctx.padding, column)
                for column in range(0, weight.shape[-1], STRIP)
            ]
            grad_weight = torch.cat(strips, dim=-1)
        return grad_x, grad_weight, None, None


def _weight_strip(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, column: int) -> Tensor:
    """Gradient ``[C, 1, k, 1..3]`` of the columns `weight`, which begin at `column`: a narrow kernel on x, moved."""
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


def average_pool(x: Tensor, kernel: int, stride: int = 1, *, count_padding: bool) -> Tensor:
    """Average pooling kxk, k odd, padded by k//2: ``[B, C, H, W]`` -> ``[B, C, ceil(H/s), ceil(W/s)]``."""
    if stride == 1 and applies(x):
        out: Tensor = _AveragePool.apply(x, kernel, _inverse_counts(kernel, *x.shape[-2:], count_padding, x.dtype))
        return out
    if (kernels := _kernels(x, "average_pool")) is not None:
        return kernels.average_pool(x, kernel, stride, count_padding)
    if x.device.type == "cuda":
        return average_of_padded(x, kernel, stride, count_padding=count_padding)
    return F.avg_pool2d(x, kernel, stride, kernel // 2, count_include_pad=count_padding)


def average_of_padded(x: Tensor, kernel: int, stride: int, *, count_padding: bool) -> Tensor:
    """`average_pool`, padded beforehand: torch's gradient through padding, channels-last on CUDA, is another pixel's.

    pytorch#188344; so it was with torch 2.11.
    """
    total = F.avg_pool2d(F.pad(x, (kernel // 2,) * 4), kernel, stride)
    if count_padding:
        return total
    ones = x.new_ones(1, 1, *x.shape[-2:])
    return total / F.avg_pool2d(F.pad(ones, (kernel // 2,) * 4), kernel, stride)


def max_pool(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Max pooling kxk."""
    kernels = _kernels(x, "max_pool")
    if kernels is not None:
        return kernels.max_pool(x, kernel, stride, padding)
    return F.max_pool2d(x, kernel, stride, padding)


@lru_cache(maxsize=256)
def _inverse_counts(kernel: int, height: int, width: int, count_padding: bool, dtype: torch.dtype) -> Tensor:
    """``[1, 1, H, W]``: one over the pixels in each window."""
    ones = torch.ones(1, 1, height, width, dtype=dtype)
    shares = F.avg_pool2d(ones, kernel, 1, kernel // 2, count_include_pad=count_padding)
    counts = F.avg_pool2d(ones, kernel, 1, kernel // 2, count_include_pad=True) * kernel**2
    return shares / counts


class _AveragePool(Function):
    """A sum over windows, times a map; the backward pass is the same sum of the gradient times that map."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, kernel: int, inverse: Tensor) -> Tensor:
        ctx.kernel, ctx.inverse = kernel, inverse
        return _window_sum(x, kernel).mul_(inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return _window_sum((grad * ctx.inverse).contiguous(memory_format=torch.channels_last), ctx.kernel), None, None


def _window_sum(x: Tensor, kernel: int) -> Tensor:
    channels = x.shape[1]
    return F.conv2d(x, x.new_ones(channels, 1, kernel, kernel), None, 1, kernel // 2, 1, channels)


def batch_norm(norm: nn.BatchNorm2d, x: Tensor, *, relu: bool = False) -> Tensor:
    """``norm(x)``, rectified on request: ``[B, C, H, W]`` -> ``[B, C, H, W]``."""
    if x.is_meta:  # the shape is all there is, and torch takes a millisecond to find that it stays
        return x
    usual = norm.training and norm.affine and bool(norm.momentum) and norm.running_mean is not None
    kernels = _kernels(x, "batch_norm") if usual else None
    if kernels is not None:
        return kernels.batch_norm(x, norm.weight, norm.bias, norm, relu)
    pixels = x.numel() // x.shape[1]
    folds = pixels >= FOLD_ROWS and applies(x) and x.is_contiguous(memory_format=torch.channels_last)
    out: Tensor = _folded(norm, x, pixels) if usual and folds else norm(x)
    # in place: batch norm keeps its input and not its output
    return F.relu(out, inplace=True) if relu else out


def _folded(norm: nn.BatchNorm2d, x: Tensor, pixels: int) -> Tensor:
    out: Tensor
    out, mean, variance = _BatchNorm.apply(x, norm.weight, norm.bias, norm.eps)
    running_mean, running_var, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running_mean is not None
    assert running_var is not None
    assert norm.momentum is not None
    if not norm.track_running_stats:
        return out
    with torch.no_grad():
        running_mean.lerp_(mean, norm.momentum)
        running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
        if batches is not None:
            batches.add_(1)
    return out


def _fold(x: Tensor) -> tuple[Tensor, int]:
    """Channels-last ``[B, C, H, W]`` seen as ``[B H W / k, k C]``, and k, a power of two."""
    channels = x.shape[1]
    pixels, k = x.numel() // channels, 1
    while k * channels < FOLD_WIDTH and pixels % (2 * k) == 0:
        k *= 2
    return x.permute(0, 2, 3, 1).view(pixels // k, k * channels), k


def _affine(x: Tensor, channelwise: tuple[Tensor, Tensor, Tensor, Tensor], eps: float) -> Tensor:
    """``scale (x - mean) / sqrt(variance + eps) + shift`` in one pass; `channelwise`: those four, ``[C]`` each."""
    out = torch.empty_like(x, memory_format=torch.channels_last)
    (rows, k), none = _fold(x), x.new_empty(0)
    scale, shift, mean, variance = (tensor.repeat(k) for tensor in channelwise)
    results = {"out": _fold(out)[0], "save_mean": none, "save_invstd": none}
    torch.ops.aten.native_batch_norm.out(rows, scale, shift, mean, variance, False, 0.0, eps, **results)
    return out


class _BatchNorm(Function):
    """Statistics of the k pixels of a folded row are combined; every pass over the data is one of torch's kernels."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, k = _fold(x)
        means, variances = (part.view(k, -1) for part in torch.ops.aten.batch_norm_update_stats(rows, None, None, 0.0))
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps = eps
        return _affine(x, (weight, bias, mean, variance), eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors
        (rows, k), (grads, _k) = _fold(x), _fold(grad.contiguous(memory_format=torch.channels_last))
        wide = [tensor.repeat(k) for tensor in (weight, mean, variance)]
        sums = torch.ops.aten.native_batch_norm_backward(
            grads, rows, *wide, None, None, False, ctx.eps, [False, True, True]
        )
        grad_weight, grad_bias = (part.view(k, -1).sum(0) for part in sums[1:])
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None
        # grad_x = weight / sigma (grad - mean(grad) - x^ mean(grad x^)), x^ = (x - mean) / sigma
        pixels = rows.shape[0] * k
        scale = weight * (variance + ctx.eps).rsqrt()
        centred = (-scale * grad_weight / pixels, -scale * grad_bias / pixels, mean, variance)
        grad_x = _affine(x, centred, ctx.eps)
        _fold(grad_x)[0].addcmul_(grads, scale.repeat(k))
        return grad_x, grad_weight, grad_bias, None
