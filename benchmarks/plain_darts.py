"""The relaxed supernet of DARTS in plain eager PyTorch: contiguous, one module per operation, one call per module.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055. What `bench darts` and
the tests compare with; written for being read.

Legend: `B` batch, `C` channels of a cell, `c` channels of an input, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES, EDGES, OPS = 4, 14, 8


class ReluConvNorm(nn.Sequential):
    """ReLU, conv 1x1, BN."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(before, channels, 1, bias=False), norm(channels))


class Depthwise(nn.Sequential):
    """ReLU, depthwise conv, pointwise conv, BN."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int = 1) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            norm(channels),
        )


class Zero(nn.Module):
    """Zeros of the output's shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H/s, W/s]``."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """ReLU, conv 1x1 of the even pixels and of the odd ones, half of the channels each, BN."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(before, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(before, channels // 2, 1, 2, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, c, H, W]`` -> ``[B, C, H/2, W/2]``."""
        x = F.relu(x)
        moved = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))
        return out


def norm(channels: int) -> nn.BatchNorm2d:
    """BN that neither scales nor shifts."""
    return nn.BatchNorm2d(channels, affine=False)


def operations(channels: int, stride: int) -> list[nn.Module]:
    """In the order of the columns of alpha."""
    return [
        Zero(stride),
        nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(channels)),
        nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(channels)),
        nn.Identity() if stride == 1 else FactorizedReduce(channels, channels),
        nn.Sequential(Depthwise(channels, 3, stride), Depthwise(channels, 3, 1)),
        nn.Sequential(Depthwise(channels, 5, stride), Depthwise(channels, 5, 1)),
        Depthwise(channels, 3, stride, 2),
        Depthwise(channels, 5, stride, 2),
    ]


class MixedOperation(nn.Module):
    """The sum of all operations, each times its weight."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(operations(channels, stride))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[8]`` -> ``[B, C, H/s, W/s]``."""
        out: Tensor = sum(weight * op(x) for weight, op in zip(weights, self.ops, strict=True))
        return out


class PlainCell(nn.Module):
    """Four nodes, each the sum of mixed operations on all states before it."""

    def __init__(self, inputs: tuple[int, int], channels: int, *, shrink: bool, reduction: bool) -> None:
        super().__init__()
        self.reduction = reduction
        self.first = (FactorizedReduce if shrink else ReluConvNorm)(inputs[0], channels)
        self.last = ReluConvNorm(inputs[1], channels)
        strides = [2 if reduction and state < 2 else 1 for node in range(NODES) for state in range(2 + node)]
        self.edges = nn.ModuleList(MixedOperation(channels, stride) for stride in strides)

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """``[B, c, H, W]`` twice and ``[14, 8]`` -> ``[B, 4C, H', W']``."""
        states, edges = [self.first(before), self.last(last)], iter(zip(self.edges, weights, strict=True))
        for _ in range(NODES):
            terms = [edge(state, row) for state, (edge, row) in zip(states, edges, strict=False)]
            states.append(sum(terms))
        return torch.cat(states[2:], dim=1)


class PlainDarts(nn.Module):
    """Stem, cells of which those at a third and at two thirds reduce, head."""

    def __init__(self, channels: int = 16, layers: int = 8, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels)
        )
        inputs, shrink = (3 * channels, 3 * channels), False
        cells = []
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            cells.append(PlainCell(inputs, channels, shrink=shrink, reduction=reduction))
            inputs, shrink = (inputs[1], 4 * channels), reduction
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(inputs[1], classes)

    def forward(self, images: Tensor, alphas: Sequence[Tensor]) -> Tensor:
        """``[B, 3, H, W]`` and ``[14, 8]`` of the normal and of the reduction cell -> logits ``[B, K]``."""
        normal, reduce = (alpha.softmax(dim=-1) for alpha in alphas)
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last, reduce if cell.reduction else normal)
        logits: Tensor = self.classifier(last.mean(dim=(2, 3)))
        return logits
