"""Parameters and multiply-adds of a network, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, slots=True)
class Counts:
    """Size of a network."""

    num_params: int
    """Trainable numbers without the auxiliary head."""
    num_params_auxiliary: int
    """Those of the auxiliary head alone; 0 without one."""
    macs: int
    """Multiply-adds of convolutions and matrix products in one evaluation forward of one example, no auxiliary head."""


def count(network: nn.Module, *inputs: Tensor) -> Counts:
    """Count a network that is called with `inputs`, of which shapes and types alone matter.

    Shapes alone are propagated (torch's meta device), so neither time nor memory depends on the network's width; the
    network may itself live on the meta device.
    """
    own, auxiliary = parameters(network)
    tensors = (*network.named_parameters(), *network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors if not tensor.is_meta}
    training = network.training
    counter = _Flops()
    network.eval()
    try:
        with torch.no_grad(), counter:
            functional_call(network, shapes, tuple(tensor.to("meta") for tensor in inputs))
    finally:
        network.train(training)
    return Counts(own, auxiliary, counter.total // 2)


def parameters(network: nn.Module) -> tuple[int, int]:
    """Trainable numbers without the auxiliary head, and those of that head."""
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    auxiliary = sum(size for name, size in sizes.items() if name.startswith("auxiliary."))
    return sum(sizes.values()) - auxiliary, auxiliary


class _Flops(TorchDispatchMode):
    """Adds up torch's formulas.

    Torch's own counter, and what it has in Python of the operations in `_SHAPES`, load its compiler: see `optimisers`.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        formula = flop_registry.get(getattr(func, "_overloadpacket", func))
        if formula is None and isinstance(func, torch._ops.OpOverload):
            with self:  # what is made of others is counted by them
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = _SHAPES[func](*args) if func in _SHAPES and not any(kwargs.values()) else None
        out = func(*args, **kwargs) if out is None else out
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def _alike(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _add(a: Tensor, b: Tensor | float) -> Tensor | None:
    same = isinstance(b, Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape)
    return a.new_empty(a.shape) if same else None


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor | None:
    first, *rest = tensors
    if any(tensor.dtype != first.dtype or tensor.dim() != first.dim() for tensor in rest):
        return None
    shape = list(first.shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return first.new_empty(shape)


def _mean(x: Tensor, dims: list[int] | None, keep: bool = False) -> Tensor:
    gone = {dim % x.dim() for dim in dims or range(x.dim())}
    return x.new_empty([1 if i in gone else size for i, size in enumerate(x.shape) if keep or i not in gone])


def _convolution(
    x: Tensor, weight: Tensor, _bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, *_: object,
) -> Tensor | None:  # fmt: skip
    sides, kernel = x.shape[2:], weight.shape[2:]
    if transposed or len(sides) != len(stride):
        return None
    by_side = zip(sides, kernel, stride, padding, dilation, strict=True)
    return x.new_empty(len(x), len(weight), *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in by_side))


def _pool(
    x: Tensor, kernel: list[int], stride: list[int] | None = None, padding: Sequence[int] = (0,), ceil: bool = False
) -> Tensor | None:
    pairs = [2 * list(given) if len(given) == 1 else given for given in (kernel, stride or kernel, padding)]
    by_side = zip(x.shape[-2:], *pairs, strict=True)
    return x.new_empty(*x.shape[:-2], *(_windows(*side, ceil=ceil) for side in by_side))


def _windows(side: int, kernel: int, stride: int, padding: int, *, ceil: bool) -> int:
    count = (side + 2 * padding - kernel + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= side + padding else count  # none begins in the padding


def _max_pool(
    x: Tensor, kernel: list[int], stride: list[int] | None = None, padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,), ceil: bool = False,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    out = _pool(x, kernel, stride, padding, ceil) if set(dilation) == {1} else None
    return None if out is None else (out, out.new_empty(out.shape, dtype=torch.long))


_SHAPES: dict[object, Callable[..., Tensor | tuple[Tensor, Tensor] | None]] = {
    torch.ops.aten.relu.default: _alike,
    torch.ops.aten.tanh.default: _alike,
    torch.ops.aten.sigmoid.default: _alike,
    torch.ops.aten.zeros_like.default: _alike,
    torch.ops.aten.relu_.default: lambda x: x,
    torch.ops.aten.add.Tensor: _add,
    torch.ops.aten.sub.Tensor: _add,
    torch.ops.aten.mul.Tensor: _add,
    torch.ops.aten.add_.Tensor: lambda x, _: x,
    torch.ops.aten.cat.default: _cat,
    torch.ops.aten.stack.default: lambda tensors, dim=0: (
        None if dim else tensors[0].new_empty(len(tensors), *tensors[0].shape)
    ),
    torch.ops.aten.embedding.default: lambda weight, indices, *_: weight.new_empty(*indices.shape, weight.shape[1]),
    torch.ops.aten.mean.dim: _mean,
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.max_pool2d_with_indices.default: _max_pool,
    torch.ops.aten.avg_pool2d.default: lambda *given: None if len(given) > 6 else _pool(*given[:5]),
    torch.ops.aten.mm.default: lambda a, b: a.new_empty(len(a), b.shape[1]),
    torch.ops.aten.addmm.default: lambda _, a, b: a.new_empty(len(a), b.shape[1]),
}
"""What comes out, as a tensor without values; None: let torch say."""
