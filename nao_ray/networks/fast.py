"""Pooling and weighted sums for training: the same results in less time; and who may take such paths.

Legend: `B` batch, `C` channels, `H` `W` pixels, `k` kernel, `s` stride.

Measured with torch 2.14 (oneDNN), one thread, float32, channels-last, ``[64, 20, 32, 32]``: average pooling 3x3 takes
2.5 ms forward and 2.0 ms backward, the same as a depthwise convolution 0.5 ms each. In a CUDA graph pools, batch norm
and the nodes of recurrent cells are Triton kernels. Other devices and other types take torch's own operations.

Faster batch norm is in `fast_norm`, depthwise convolution in `fast_depthwise`, recurrent cells in `recurrent_fast`;
whether each applies is asked here: `applies` on CPUs, `kernels_for` on CUDA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

_log = logging.getLogger(__name__)

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
