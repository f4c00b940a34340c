"""Pooling, batch norm and weighted sums for training: the same results in less time.

Legend: `B` batch, `C` channels, `H` `W` pixels, `k` kernel, `s` stride.

Measured with torch 2.14 (oneDNN), one thread, float32, channels-last, ``[64, 20, 32, 32]``: average pooling 3x3 takes
2.5 ms forward and 2.0 ms backward, the same as a depthwise convolution 0.5 ms each; batch norm of 20 channels leaves
vector lanes empty and adds 65,536 numbers one by one, off by 3e-6, while sixteen pixels seen as 320 channels take half
of the time and are off by 1e-7. In a CUDA graph pools, batch norm and the nodes of recurrent cells are Triton kernels.
Other devices, other types and batch norm by running statistics take torch's own operations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nao_ray.networks import synchronised, whole_batch

_log = logging.getLogger(__name__)

FOLD_ROWS = 16384
"""Pixels of a batch from which on folding pays (measured; below, torch's batch norm is as fast and accurate enough)."""
FOLD_WIDTH = 256
"""Channels and pixels of a folded row together, at least: a multiple of every vector width."""


DTYPES = {torch.float32}
"""Types that take these paths: those of oneDNN's kernels."""


_is_twice = False


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """What is computed in here has a second derivative: torch's own operations are taken.

    The paths of this file have none, and torch tells only whoever follows them to their inputs: the second derivative
    by something else, as alphas, would lack their part without a word.
    """
    global _is_twice
    before, _is_twice = _is_twice, True
    try:
        yield
    finally:
        _is_twice = before


def is_twice() -> bool:
    """Whether what is computed now is to have a second derivative."""
    return _is_twice


def applies(x: Tensor) -> bool:
    """Whether these paths are made for `x`."""
    usual = not _is_twice and x.device.type == "cpu" and x.dtype in DTYPES and not torch.is_autocast_enabled("cpu")
    return usual and _mkldnn()


def _mkldnn() -> bool:
    return bool(torch._C._has_mkldnn and torch.backends.mkldnn.enabled)


KERNELS = {"average_pool", "max_pool", "batch_norm", "recurrent"}
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


def kernels_for(x: Tensor, what: str) -> Kernels | None:
    """Those for `x`, where it is on CUDA and they work there."""
    if _is_twice or x.device.type != "cuda" or what not in KERNELS or not (_is_in_graph or what in _LAUNCHED):
        return None
    if x.dtype not in (torch.float32, torch.bfloat16) or x.numel() >= 2**31:
        return None
    return _of_device(x.device)


class Kernels(NamedTuple):
    """Functions of `kernels`, `norm_kernels` and `recurrent_kernels`."""

    average_pool: Callable[..., Tensor]
    max_pool: Callable[..., Tensor]
    batch_norm: Callable[..., Tensor]
    recurrent_nodes: Callable[..., None]
    recurrent_gradients: Callable[..., None]


@cache
def _of_device(device: torch.device) -> Kernels | None:
    """The kernels, tried out on a device: they are compiled where they run."""
    try:
        from nao_ray.networks import kernels, norm_kernels, recurrent_kernels

        with torch.inference_mode(False), torch.enable_grad():  # an evaluation may be the first to ask
            x = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
            kernels.AveragePool.apply(x, 3, 1, False).sum().backward()
    except Exception as error:  # of a compiler, an assembler, a linker: each has kinds of its own
        reason = " ".join(str(error).split())[:200]
        _log.warning("pools, batch norm and recurrent nodes on %s are torch's own, slower: %s", device, reason)
        return None
    pools = kernels.AveragePool.apply, kernels.MaxPool.apply
    return Kernels(*pools, norm_kernels.BatchNorm.apply, recurrent_kernels.nodes, recurrent_kernels.gradients)


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    kernel: int
    inverse: Tensor
    eps: float
    shape: torch.Size


def average_pool(x: Tensor, kernel: int, stride: int = 1, *, count_padding: bool) -> Tensor:
    """Average pooling kxk, k odd, padded by k//2: ``[B, C, H, W]`` -> ``[B, C, ceil(H/s), ceil(W/s)]``."""
    if stride == 1 and applies(x):
        out: Tensor = _AveragePool.apply(x, kernel, _inverse_counts(kernel, *x.shape[-2:], count_padding, x.dtype))
        return out
    if (kernels := kernels_for(x, "average_pool")) is not None:
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
    kernels = kernels_for(x, "max_pool")
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


def every_second(x: Tensor, count: int = 1) -> tuple[Tensor, ...]:
    """The pixels of even rows and columns, with `count` 2 also those of odd ones: ``[B, C, ceil(H/2), ceil(W/2)]``."""
    if not applies(x):
        return tuple(x[:, :, start::2, start::2] for start in range(count))
    out: tuple[Tensor, ...] = _EverySecond.apply(x, count)
    return out


class _EverySecond(Function):
    """Its gradient is one map, channels-last; torch's are four and a sum, contiguous, which slows what is before."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.shape = x.shape
        return tuple(x[:, :, i::2, i::2].contiguous(memory_format=torch.channels_last) for i in range(count))

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor, None]:
        grad = torch.empty(ctx.shape, dtype=grads[0].dtype, memory_format=torch.channels_last).zero_()
        for i, each in enumerate(grads):
            grad[:, :, i::2, i::2] = each
        return grad, None


def batch_norm(norm: nn.BatchNorm2d, x: Tensor, *, relu: bool = False, scale: Tensor | None = None) -> Tensor:
    """``norm(x)``, times `scale`, a 0-dim tensor, where that is given, rectified on request: ``[B, C, H, W]`` twice."""
    if x.is_meta:  # the shape is all there is, and torch takes a millisecond to find that it stays
        return x
    part = whole_batch.current() if norm.training else None
    if part is not None:
        out, mean, variance = synchronised.batch_norm(x, *_affine_of(norm, x, scale), norm.eps, part)
        if norm.running_mean is not None:
            _track(norm, mean, variance, synchronised.pixels(x, part))
        return F.relu(out, inplace=True) if relu else out
    usual = norm.training and bool(norm.momentum) and norm.running_mean is not None
    kernels = kernels_for(x, "batch_norm") if usual else None
    pixels = x.numel() // x.shape[1]
    folds = usual and pixels >= FOLD_ROWS and applies(x) and x.is_contiguous(memory_format=torch.channels_last)
    if kernels is not None:
        return kernels.batch_norm(x, *_affine_of(norm, x, scale), norm, relu)
    if folds:
        out = _folded(norm, x, pixels, _affine_of(norm, x, scale))
    else:
        out = norm(x) if scale is None else _scaled(norm, x, scale)
    # in place: batch norm keeps its input and not its output
    return F.relu(out, inplace=True) if relu else out


def _affine_of(norm: nn.BatchNorm2d, x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` of a batch norm whose output is multiplied by `scale`."""
    weight, bias = (norm.weight, norm.bias) if norm.affine else (x.new_ones(x.shape[1]), x.new_zeros(x.shape[1]))
    return (weight, bias) if scale is None else (weight * scale, bias * scale)


def _scaled(norm: nn.BatchNorm2d, x: Tensor, scale: Tensor) -> Tensor:
    """As `norm`, by its own operation."""
    tracks = norm.track_running_stats or not norm.training
    if norm.training and tracks and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    statistics = (norm.running_mean, norm.running_var) if tracks else (None, None)
    momentum = 0.0 if norm.momentum is None else norm.momentum
    return F.batch_norm(x, *statistics, *_affine_of(norm, x, scale), norm.training, momentum, norm.eps)


def _folded(norm: nn.BatchNorm2d, x: Tensor, pixels: int, affine: tuple[Tensor, Tensor]) -> Tensor:
    out: Tensor
    out, mean, variance = _BatchNorm.apply(x, *affine, norm.eps)
    _track(norm, mean, variance, pixels)
    return out


def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, pixels: int) -> None:
    """Let the running statistics follow those of a batch ``[C]``, which is of so many pixels."""
    running_mean, running_var, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running_mean is not None
    assert running_var is not None
    assert norm.momentum is not None
    if not norm.track_running_stats:
        return
    with torch.no_grad():
        running_mean.lerp_(mean, norm.momentum)
        running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
        if batches is not None:
            batches.add_(1)


def weighted_sum(weights: Sequence[Tensor], terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape, each times its weight, a 0-dim tensor; a new tensor, which nothing keeps."""
    if _is_twice:
        return torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum(0)
    out: Tensor = _WeightedSum.apply(torch.stack(list(weights)), *terms)
    return out


class _WeightedSum(Function):
    """Without a product per term, forward or backward, that is as large as the term and kept."""

    @staticmethod
    def forward(ctx: _Context, weights: Tensor, *terms: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *terms)
        total = terms[0] * weights[0]
        for term, weight in zip(terms[1:], weights[1:], strict=True):
            total.addcmul_(term, weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *terms = ctx.saved_tensors
        of_terms = [
            grad * weight if needed else None for weight, needed in zip(weights, ctx.needs_input_grad[1:], strict=True)
        ]
        if not ctx.needs_input_grad[0]:
            return None, *of_terms
        return torch.stack([(grad * term).sum() for term in terms]), *of_terms


def _fold(x: Tensor) -> tuple[Tensor, int]:
    """Channels-last ``[B, C, H, W]`` seen as ``[B H W / k, k C]``, and k, a power of two."""
    channels = x.shape[1]
    pixels, k = x.numel() // channels, 1
    while k * channels < FOLD_WIDTH and pixels % (2 * k) == 0:
        k *= 2
    return x.permute(0, 2, 3, 1).view(pixels // k, k * channels), k


def _wide(channelwise: Sequence[Tensor], k: int) -> tuple[Tensor, ...]:
    """``[C]`` each -> ``[k C]`` each; all at once, for one by one they take longer than some sums over pixels."""
    return torch.stack(list(channelwise)).repeat(1, k).unbind()


def _affine(x: Tensor, channelwise: tuple[Tensor, Tensor, Tensor, Tensor], eps: float) -> Tensor:
    """``scale (x - mean) / sqrt(variance + eps) + shift`` in one pass; `channelwise`: those four, ``[C]`` each."""
    out = torch.empty_like(x, memory_format=torch.channels_last)
    (rows, k), none = _fold(x), x.new_empty(0)
    scale, shift, mean, variance = _wide(channelwise, k)
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
        ctx.set_materialize_grads(False)  # theirs would be zeros, made for nothing
        ctx.eps = eps
        return _affine(x, (weight, bias, mean, variance), eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor, *_: None) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors
        (rows, k), (grads, _k) = _fold(x), _fold(grad.contiguous(memory_format=torch.channels_last))
        wide = _wide((weight, mean, variance), k)
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
