"""The operations that sit on a cell's edges, by name.

Reference: the PyTorch backbone of Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018,
arXiv 1808.07233, and of Luo, Qin, Chen, arXiv 1909.10815 (the 'middle' operations); the code of Liu, Simonyan, Yang,
"DARTS", ICLR 2019, arXiv 1806.09055, whose operations are the same but for what `OpOptions` says.

Legend: `B` batch, `C` channels, `H` `W` pixels, `s` stride (1 or 2). Every operation maps ``[B, C, H, W]`` to
``[B, C, ceil(H/s), ceil(W/s)]``. Convolutions have no bias; batch norm has eps 1e-5, momentum 0.1. Parameters are
counted with batch norms that have a scale and a shift per channel, 2C of them.

Many operations begin with a ReLU, written [ReLU] here. Several edges read one state, so the cell rectifies the state
once: an operation with `rectified_input` is called with the rectified state, any other with the state itself.

Names say what is done in which order, ``conv_1x7_7x1`` or ``sep_conv_3x3``; ``_padded`` pools count the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray import own_modules
from nao_ray.errors import ConfigError
from nao_ray.networks.fast import average_pool, every_second, max_pool
from nao_ray.networks.fast_depthwise import depthwise
from nao_ray.networks.fast_norm import batch_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class OpOptions:
    """What the names of a network's operations leave open; the defaults are those of NAO's networks."""

    count_padding: bool = True
    """The ``*_padded`` average pools and the 2x2 pools see the zeros around the map; False: real pixels only."""
    rectify_reduction: bool = False
    """An identity of stride 2 begins with a ReLU (DARTS), and may be dropped as any operation that computes."""
    affine: bool = True
    """Batch norms scale and shift; False: they only normalise (DARTS' search)."""
    norm_pools: bool = False
    """A pool is followed by a batch norm without scale and shift (DARTS' search)."""


class Operation(nn.Module):
    """An operation on an edge; one of the user's is a class of it that is made with C and the stride.

    Those of ours that end in a batch norm take a second argument, a 0-dim tensor that their output is multiplied by.
    """

    rectified_input: ClassVar[bool] = False
    """Called with relu(state) instead of the state."""
    passes: ClassVar[bool] = False
    """Hands its input on, at most halved; drop path spares it, unless told otherwise."""
    signature: str | None = None
    """Says what an operation without parameters or statistics does: two of one signature on one state give one result.
    """


def conv_norm(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, *, relu: bool = False, scale: Tensor | None = None
) -> Tensor:
    """``norm(conv(x))``, times `scale`, rectified on request."""
    return batch_norm(norm, conv(x), relu=relu, scale=scale)


def _conv(channels: int, out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, (kernel[0] // 2, kernel[1] // 2), bias=False)


class ConvNorm(Operation):
    """[ReLU] conv kxk, BN: ``[B, c, H, W]`` -> ``[B, C, ceil(H/s), ceil(W/s)]``; k^2 cC + 2C parameters."""

    rectified_input = True

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, kernel: int = 1, *, affine: bool = True
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, channels, (kernel, kernel), (stride, stride))
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return conv_norm(self.conv, self.norm, x, scale=scale)


class Conv(ConvNorm):
    """`ConvNorm` of an edge; k^2 C^2 + 2C parameters."""

    def __init__(self, channels: int, stride: int, kernel: int, *, affine: bool = True) -> None:
        super().__init__(channels, channels, stride, kernel, affine=affine)


class ConvPair(Operation):
    """[ReLU] conv 1xk stride (1, s), BN, ReLU, conv kx1 stride (s, 1), BN; 2(k C^2 + 2C) parameters.

    Without `norm_between`, DARTS' for AmoebaNet, there is no BN and no ReLU between: 2k C^2 + 2C.
    """

    rectified_input = True

    def __init__(
        self, channels: int, stride: int, kernel: int, *, affine: bool = True, norm_between: bool = True
    ) -> None:
        super().__init__()
        self.conv_row = _conv(channels, channels, (1, kernel), (1, stride))
        self.norm_row = nn.BatchNorm2d(channels, affine=affine) if norm_between else None
        self.conv_column = _conv(channels, channels, (kernel, 1), (stride, 1))
        self.norm_column = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = self.conv_row(x) if self.norm_row is None else conv_norm(self.conv_row, self.norm_row, x, relu=True)
        return conv_norm(self.conv_column, self.norm_column, x, scale=scale)


class SepConv(Operation):
    """Twice [ReLU] depthwise kxk, pointwise, BN, the second with stride 1; 2(k^2 C + C^2 + 2C) parameters."""

    rectified_input = True

    def __init__(self, channels: int, stride: int, kernel: int, *, affine: bool = True) -> None:
        super().__init__()
        make = partial(nn.Conv2d, channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.depthwise1 = make(stride=stride)
        self.pointwise1 = _conv(channels, channels, (1, 1))
        self.norm1 = nn.BatchNorm2d(channels, affine=affine)
        self.depthwise2 = make(stride=1)
        self.pointwise2 = _conv(channels, channels, (1, 1))
        self.norm2 = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = conv_norm(self.pointwise1, self.norm1, depthwise(self.depthwise1, x), relu=True)
        return conv_norm(self.pointwise2, self.norm2, depthwise(self.depthwise2, x), scale=scale)


class DilatedSepConv(Operation):
    """[ReLU] depthwise kxk with dilation 2, pointwise, BN, once; k^2 C + C^2 + 2C parameters."""

    rectified_input = True

    def __init__(self, channels: int, stride: int, kernel: int, *, affine: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride, padding=kernel - 1, dilation=2, groups=channels, bias=False
        )
        self.pointwise = _conv(channels, channels, (1, 1))
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return conv_norm(self.pointwise, self.norm, depthwise(self.depthwise, x), scale=scale)


class FactorizedReduce(Operation):
    """Half of the channels from the even pixels, half from the odd ones, BN; cC + 2C parameters.

    ``[B, c, H, W]`` -> ``[B, C, ceil(H/2), ceil(W/2)]``. The second half sees the map moved by one pixel, a zero row
    and column appended right and below; those are read only where H or W is odd.
    """

    passes = True

    def __init__(self, in_channels: int, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        if channels % 2:
            raise ConfigError(f"a reduction to {channels} channels cannot be halved; choose an even number of channels")
        self.conv_even = _conv(in_channels, channels // 2, (1, 1))
        self.conv_odd = _conv(in_channels, channels // 2, (1, 1))
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        moved = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
        even, odd = every_second(moved, 2)
        return batch_norm(self.norm, torch.cat([self.conv_even(even), self.conv_odd(odd)], dim=1), scale=scale)


class RectifiedReduce(FactorizedReduce):
    """[ReLU] FactorizedReduce: how a cell takes an input from before a reduction."""

    rectified_input = True
    passes = False


class Identity(Operation):
    """The state itself; see `FactorizedReduce` and `RectifiedReduce` for stride 2."""

    passes = True
    signature = "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x


class Zero(Operation):
    """Zeros of the output's shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.signature = f"zero/{stride}"

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Pool(Operation):
    """Max or average pool kxk, same-size at stride 1.

    Odd k pads k//2 all round. k = 2 pads one row and column, right and below, before pooling: with zeros, which
    both kinds of pool see, or by repeating the border, which is the same as leaving the padding out.
    """

    def __init__(self, kind: str, kernel: int, stride: int, *, count_padding: bool) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.count_padding = kind, kernel, stride, count_padding
        self.signature = f"{kind}/{kernel}/{stride}/{count_padding}"

    def forward(self, x: Tensor) -> Tensor:
        padding = self.kernel // 2
        if self.kernel % 2 == 0:
            padding = 0
            needless = self.stride == 2 and x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0  # no window reaches it
            if not needless:
                x = F.pad(x, (0, 1, 0, 1), mode="constant" if self.count_padding else "replicate")
        if self.kind == "max":
            return max_pool(x, self.kernel, self.stride, padding)
        if self.kernel % 2:
            return average_pool(x, self.kernel, self.stride, count_padding=self.count_padding)
        return F.avg_pool2d(x, self.kernel, self.stride)


class NormedPool(Operation):
    """A pool, then BN that only normalises; no parameters, but statistics of its own."""

    def __init__(self, pool: Pool, channels: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return batch_norm(self.norm, self.pool(x), scale=scale)


# -- names ----------------------------------------------------------------------------------------------------

Builder = Callable[[int, int, OpOptions], Operation]
"""(channels, stride, options) -> operation."""


def _module(cls: Callable[..., Operation], kernel: int) -> Builder:
    return lambda channels, stride, options: cls(channels, stride, kernel, affine=options.affine)


def _pool(kind: str, kernel: int, *, padded: bool) -> Builder:
    def build(channels: int, stride: int, options: OpOptions) -> Operation:
        pool = Pool(kind, kernel, stride, count_padding=padded and options.count_padding)
        return NormedPool(pool, channels) if options.norm_pools else pool

    return build


def _identity(channels: int, stride: int, options: OpOptions) -> Operation:
    if stride == 1:
        return Identity()
    reduction = RectifiedReduce if options.rectify_reduction else FactorizedReduce
    return reduction(channels, channels, affine=options.affine)


_BUILDERS: dict[str, Builder] = {
    "zero": lambda _channels, stride, _options: Zero(stride),
    "identity": _identity,
    **{f"conv_{k}x{k}": _module(Conv, k) for k in (1, 3)},
    **{f"conv_1x{k}_{k}x1": _module(ConvPair, k) for k in (3, 7)},
    "conv_7x1_1x7": _module(partial(ConvPair, norm_between=False), 7),
    **{f"sep_conv_{k}x{k}": _module(SepConv, k) for k in (3, 5, 7)},
    **{f"dil_sep_conv_{k}x{k}": _module(DilatedSepConv, k) for k in (3, 5, 7)},
    # V1's 2x2 max pool sees its zero padding too, hence `padded`
    **{f"max_pool_{k}x{k}": _pool("max", k, padded=k == 2) for k in (2, 3, 5)},
    **{f"avg_pool_{k}x{k}": _pool("avg", k, padded=False) for k in (2, 3, 5)},
    **{f"avg_pool_{k}x{k}_padded": _pool("avg", k, padded=True) for k in (2, 3, 5)},
}

NAMES = tuple(_BUILDERS)
"""Every operation that can be built."""


def build_op(name: str, channels: int, stride: int, options: OpOptions | None = None) -> Operation:
    """The operation of a name.

    Args:
        name: one of `NAMES`, or ``package.module:Class``: an `Operation` of the user's, made with C and the stride.
        channels: C, in and out.
        stride: 1 or 2.
        options: what the name leaves open.

    Raises:
        ConfigError: the name is unknown, or C does not suit the operation.
    """
    if own_modules.is_own(name):
        return own_operation(name)(channels, stride)
    if name not in _BUILDERS:
        raise ConfigError(f"no operation is named {name!r}; known: {', '.join(NAMES)}")
    return _BUILDERS[name](channels, stride, options or OpOptions())


@cache
def own_operation(name: str) -> Callable[[int, int], Operation]:
    """An operation of the user's, ``package.module:Class``.

    Raises:
        ConfigError: it cannot be found, or is none.
    """
    try:
        found = own_modules.find(name)
    except ConfigError as error:
        raise ConfigError(f"operation {error}") from error.__cause__
    if not isinstance(found, type) or not issubclass(found, Operation):
        raise ConfigError(f"operation {name}: it is not derived from {Operation.__module__}.Operation")
    return found


@cache
def op_params(name: str, channels: int = 16) -> int:
    """Parameters of the operation of a name at stride 1; 0 for one that has none, or is none."""
    if name not in _BUILDERS and not own_modules.is_own(name):
        return 0
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_op(name, channels, 1).parameters())
