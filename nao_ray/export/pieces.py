"""What generated source is put together from: layers in plain PyTorch, each of which is copied as it stands here.

So they know nothing of this package, nor of each other but what `NEEDS` says, and what they say is said to whoever has
the generated file alone. Their attributes are named as those of `networks/` are, so that weights keep their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReLUConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))


class ConvBN(nn.Module):
    """Convolution 1x1, batch norm."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def adapted(in_channels: int, channels: int) -> nn.Module:
    """What brings an input to `channels`; nothing where it has as many."""
    return nn.Identity() if in_channels == channels else ReLUConvBN(in_channels, channels)


class ConvPair(nn.Module):
    """ReLU, convolution 1xk, batch norm, then the same with kx1."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        half = kernel // 2
        self.conv_row = nn.Conv2d(channels, channels, (1, kernel), (1, stride), padding=(0, half), bias=False)
        self.norm_row = nn.BatchNorm2d(channels)
        self.conv_column = nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), padding=(half, 0), bias=False)
        self.norm_column = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_row(self.conv_row(F.relu(x)))
        return self.norm_column(self.conv_column(F.relu(x)))


class ConvPairOneNorm(nn.Module):
    """ReLU, convolution 1xk, convolution kx1, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        half = kernel // 2
        self.conv_row = nn.Conv2d(channels, channels, (1, kernel), (1, stride), padding=(0, half), bias=False)
        self.conv_column = nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), padding=(half, 0), bias=False)
        self.norm_column = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_column(self.conv_column(self.conv_row(F.relu(x))))


class ConvPairFrom(nn.Module):
    """ReLU, convolution 1xk of all the stride, batch norm, ReLU, convolution kx1, batch norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        half = kernel // 2
        self.conv_row = nn.Conv2d(in_channels, channels, (1, kernel), stride, padding=(0, half), bias=False)
        self.norm_row = nn.BatchNorm2d(channels)
        self.conv_column = nn.Conv2d(channels, channels, (kernel, 1), padding=(half, 0), bias=False)
        self.norm_column = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_row(self.conv_row(F.relu(x)))
        return self.norm_column(self.conv_column(F.relu(x)))


class SepConv(nn.Module):
    """Twice ReLU, depthwise convolution, pointwise convolution, batch norm; the first time with the stride."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        half = kernel // 2
        self.depthwise1 = nn.Conv2d(channels, channels, kernel, stride, padding=half, groups=channels, bias=False)
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise2 = nn.Conv2d(channels, channels, kernel, padding=half, groups=channels, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pointwise1(self.depthwise1(F.relu(x))))
        return self.norm2(self.pointwise2(self.depthwise2(F.relu(x))))


class SepConvOnce(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


class DilConv(nn.Module):
    """ReLU, depthwise convolution dilated by 2, pointwise convolution, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride, padding=kernel - 1, dilation=2, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


class FactorizedReduce(nn.Module):
    """Half of the channels from the even pixels, half from the odd ones, batch norm: halves the map."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv_even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.conv_odd = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.conv_even(x), self.conv_odd(moved)], dim=1))


class ReLUFactorizedReduce(FactorizedReduce):
    """ReLU, then the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


class Pool2x2(nn.Module):
    """Max or average pool 2x2 with a row and a column appended below and to the right, so that stride 1 keeps the size.

    `mode` says of what: "constant" of zeros, "replicate" of the border's pixels.
    """

    def __init__(self, kind: str, stride: int = 1, mode: str = "constant") -> None:
        super().__init__()
        self.stride, self.mode = stride, mode
        self.pool = F.max_pool2d if kind == "max" else F.avg_pool2d

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.pad(x, (0, 1, 0, 1), mode=self.mode), 2, self.stride)


class NarrowedPool(nn.Module):
    """A pool, and what brings its output to `channels`."""

    def __init__(self, pool: nn.Module, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pool, self.narrow = pool, ReLUConvBN(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.pool(x))


class InputBase(nn.Module):
    """ReLU, convolution 1x1, batch norm; before it the same once more where the number of channels differs."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.calibrator = nn.Identity() if in_channels == channels else ReLUConvBN(in_channels, channels)
        self.base = ReLUConvBN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(self.calibrator(x))


class ResidualBlock(nn.Module):
    """Two convolutions, the first of stride 2, and beside them an average pool with a convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = ReLUConvBN(channels, channels, 3)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.norm1(self.conv1(F.relu(x))))
        return out + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))


class CifarStem(nn.Module):
    """Convolution 3x3, batch norm: both inputs of the first cell."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.conv(images))
        return x, x


class ImagenetStem(nn.Module):
    """Three convolutions of stride 2; the first cell reads the second and the third."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(channels // 2)
        self.conv1 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.norm0(self.conv0(images)))
        first = self.norm1(self.conv1(x))
        return first, self.norm2(self.conv2(F.relu(first)))


class AuxiliaryHead(nn.Module):
    """ReLU, pool to 2x2, convolution 1x1 to 128, batch norm, ReLU, 2x2 to 768, batch norm, ReLU, linear."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 128, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm2 = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(pool_to_2x2(F.relu(x)))))
        return self.classifier(F.relu(self.norm2(self.conv2(x))).flatten(1))


class ImagenetAuxiliaryHead(nn.Module):
    """ReLU, pool to 2x2, convolution 1x1 to 128, batch norm, ReLU, 2x2 to 768, ReLU, linear."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 128, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(pool_to_2x2(F.relu(x)))))
        return self.classifier(F.relu(self.conv2(x)).flatten(1))


class MicroAuxiliaryHead(nn.Module):
    """ReLU, pool to 2x2, convolution 1x1 to 128, batch norm, ReLU, 2x2 to 768 of as many pixels, ..., mean, linear."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 128, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm2 = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(pool_to_2x2(F.relu(x)))))
        x = F.relu(self.norm2(self.conv2(F.pad(x, (0, 1, 0, 1)))))
        return self.classifier(x.mean(dim=(2, 3)))


def pool_to_2x2(x: Tensor) -> Tensor:
    """Average pool 5x5 of stride 3 on a map of 8x8, of stride 2 on one of 7x7; adaptive on any other."""
    stride = {(8, 8): 3, (7, 7): 2}.get((x.shape[2], x.shape[3]))
    return F.adaptive_avg_pool2d(x, 2) if stride is None else F.avg_pool2d(x, 5, stride)


def drop_path(x: Tensor, share: float) -> Tensor:
    """Zeros in place of a share of the examples in [0, 1), the others made larger by as much."""
    if not share:
        return x
    return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - share).div_(1 - share)


def identity(x: Tensor) -> Tensor:
    """`x` itself, as an activation."""
    return x


def mask(like: Tensor, shape: Sequence[int], share: float) -> Tensor:
    """Zeros in place of a share of ones in [0, 1), the others made larger by as much."""
    return like.new_empty(tuple(shape)).bernoulli_(1 - share).div_(1 - share)


def highway(product: Tensor, source: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Between `source` [B, H] and what was made of it, by a gate: `product` [B, 2H] is gate, then candidate."""
    gate, candidate = product.chunk(2, dim=1)
    return source + torch.sigmoid(gate) * (activation(candidate) - source)


NEEDS: dict[str, tuple[str, ...]] = {
    "adapted": ("ReLUConvBN",),
    "ReLUFactorizedReduce": ("FactorizedReduce",),
    "InputBase": ("ReLUConvBN",),
    "NarrowedPool": ("ReLUConvBN",),
    "ResidualBlock": ("ReLUConvBN",),
    "AuxiliaryHead": ("pool_to_2x2",),
    "ImagenetAuxiliaryHead": ("pool_to_2x2",),
    "MicroAuxiliaryHead": ("pool_to_2x2",),
}
"""By a piece, those it is made of."""
