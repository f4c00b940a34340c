"""Batch norm of a batch that several processes compute, each a part: statistics and gradients of the whole batch.

Each process sums over its own pixels, and the sums are added up over the processes, once forward and once backward, in
float64: so what they come to is that of one process, but for the order of sums. Gradients of scale and shift stay those
of the part, as those of all other weights: the processes' mean is taken with theirs.

Differs from torch's SyncBatchNorm: that one is for GPUs alone.

Legend: `B` batch, `C` channels, `H` `W` pixels, `N` pixels of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from nao_ray.networks.whole_batch import Part


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Of a part ``[B, C, H, W]`` in training: it normalised, and mean and variance ``[C]`` of the whole batch.

    Args:
        x: this process's part.
        weight: the scale, ``[C]``.
        bias: the shift, ``[C]``.
        eps: added to the variance.
        part: which it is.
    """
    out: tuple[Tensor, Tensor, Tensor] = _OfPart.apply(x, weight, bias, eps, part)
    return out


def pixels(x: Tensor, part: Part) -> int:
    """N, of the whole batch of which x is a part."""
    return part.total * x[0, 0].numel()


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    eps: float
    part: Part


class _OfPart(Function):
    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor, eps: float, part: Part
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        variance, mean = torch.var_mean(x.to(wide), dim=(0, 2, 3), correction=0)
        own = torch.stack([mean.double(), variance.double() + mean.double().square()]) * (x.numel() // x.shape[1])
        first, second = part.add(own) / pixels(x, part)
        mean, variance = first.to(wide), (second - first.square()).clamp_min(0).to(wide)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.part = eps, part
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor, *_: None) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight, mean, variance = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        own = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )[1:]
        if not ctx.needs_input_grad[0]:  # nor in any other process
            return None, *own, None, None
        # grad_x = weight / sigma (grad - mean(grad) - x^ mean(grad x^)), x^ = (x - mean) / sigma; means over N
        of_weight, of_bias = (ctx.part.add(torch.stack(own).double()) / pixels(x, ctx.part)).to(mean.dtype)
        scale = weight * (variance + ctx.eps).rsqrt()
        shift = F.batch_norm(x, mean, variance, -scale * of_weight, -scale * of_bias, eps=ctx.eps)
        return shift.addcmul_(grad, scale.view(1, -1, 1, 1).to(grad.dtype)), *own, None, None
