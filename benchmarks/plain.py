"""The same networks in plain eager PyTorch: what the child step is measured against.

One module per operation, written as the paper's code lists it (arXiv 1808.07233, NAO_pytorch V1): ``nn.Sequential`` of
ReLU, convolution and batch norm for every edge, contiguous tensors, nothing shared and nothing in place. Parameters are
created in the order of `networks.stacks`, so `copy_parameters` pairs them by position.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.ops import Zero
from nao_ray.networks.stacks import StackConfig
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph


def conv(in_channels: int, out: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1) -> nn.Conv2d:
    """Same-size convolution without bias."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(in_channels, out, size, stride, (size[0] // 2, size[1] // 2), bias=False)


def calibrator(in_channels: int, channels: int) -> nn.Module:
    """ReLU, conv 1x1, BN; nothing where the channels agree."""
    if in_channels == channels:
        return nn.Identity()
    return nn.Sequential(nn.ReLU(), conv(in_channels, channels, 1), nn.BatchNorm2d(channels))


class Reduce(nn.Module):
    """FactorizedReduce."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))
        return out


def separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise, pointwise, BN."""
    padding = dilation * (kernel - 1) // 2
    depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
    return [nn.ReLU(), depthwise, conv(channels, channels, 1), nn.BatchNorm2d(channels)]


def operation(name: str, c: int, s: int) -> nn.Module:
    """The module of an operation's name."""
    k = int(name.removesuffix("_padded")[-1]) if name[-1].isdigit() or name.endswith("_padded") else 0
    if name.startswith("conv_1x") and k == 1 and name != "conv_1x1":
        k = int(name[7])
        row = [nn.ReLU(), conv(c, c, (1, k), (1, s)), nn.BatchNorm2d(c)]
        return nn.Sequential(*row, nn.ReLU(), conv(c, c, (k, 1), (s, 1)), nn.BatchNorm2d(c))
    if name.startswith("conv"):
        return nn.Sequential(nn.ReLU(), conv(c, c, k, s), nn.BatchNorm2d(c))
    if name.startswith("sep_conv"):
        return nn.Sequential(*separable(c, k, s), *separable(c, k, 1))
    if name.startswith("dil_sep_conv"):
        return nn.Sequential(*separable(c, k, s, dilation=2))
    if "pool" in name:
        pad = [nn.ZeroPad2d((0, 1, 0, 1))] if k == 2 else []
        around = 0 if k == 2 else k // 2
        if name.startswith("max"):
            return nn.Sequential(*pad, nn.MaxPool2d(k, s, around))
        return nn.Sequential(*pad, nn.AvgPool2d(k, s, around, count_include_pad=name.endswith("_padded")))
    if name == "zero":
        return Zero(s)
    return nn.Identity() if s == 1 else Reduce(c, c)


class PlainCell(nn.Module):
    """A cell that computes edge by edge."""

    def __init__(self, graph: CellGraph, inputs: tuple[int, int], channels: int, reduction: bool, shrink: bool) -> None:
        super().__init__()
        self.graph, self.reduction = graph, reduction
        first = nn.Sequential(nn.ReLU(), Reduce(inputs[0], channels)) if shrink else calibrator(inputs[0], channels)
        self.calibrators = nn.ModuleList([first, calibrator(inputs[1], channels)])
        self.nodes = nn.ModuleList(
            nn.ModuleList(operation(e.op, channels, 2 if reduction and e.source < 2 else 1) for e in edges)
            for edges in graph.nodes
        )
        loose = [state for state in graph.output if state < 2 and reduction]
        self.reducers = nn.ModuleDict({str(state): Reduce(channels, channels) for state in loose})

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states: list[Tensor] = [self.calibrators[0](before), self.calibrators[1](last)]
        for edges, ops in zip(self.graph.nodes, self.nodes.children(), strict=True):
            outs = [op(states[e.source]) for e, op in zip(edges, ops.children(), strict=True)]
            states.append(sum(outs[1:], start=outs[0]))
        outputs = [
            self.reducers[str(i)](states[i]) if str(i) in self.reducers else states[i] for i in self.graph.output
        ]
        return torch.cat(outputs, dim=1)


class PlainNetwork(nn.Module):
    """The CIFAR stack without drop path."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__()
        n, f = config.cells_per_stage, config.channels
        self.last_reduction, self.dropout = 2 * n + 1, config.dropout
        self.stem = nn.Sequential(conv(config.in_channels, 3 * f, 3), nn.BatchNorm2d(3 * f))
        cells, inputs, shrink, middle = [], (3 * f, 3 * f), False, 0
        for index in range(3 * n + 2):
            reduction = index in (n, self.last_reduction)
            f *= 2 if reduction else 1
            role = graph.cell("reduction" if reduction else "normal")
            cells.append(PlainCell(role, inputs, f, reduction, shrink))
            inputs, shrink = (inputs[1], f * len(role.output)), reduction
            middle = inputs[1] if index == self.last_reduction else middle
        self.cells = nn.ModuleList(cells)
        self.auxiliary = auxiliary_head(middle, config.num_classes) if config.auxiliary else None
        self.classifier = nn.Linear(inputs[1], config.num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, C, 32, 32]`` -> logits; in training with an auxiliary head, a pair of logits."""
        before = last = self.stem(images)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if index == self.last_reduction and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(last)
        pooled = F.adaptive_avg_pool2d(last, 1).flatten(1)
        logits: Tensor = self.classifier(F.dropout(pooled, self.dropout, self.training))
        return logits if auxiliary is None else (logits, auxiliary)


def auxiliary_head(channels: int, num_classes: int) -> nn.Sequential:
    """ReLU, pool, conv 1x1 to 128, BN, ReLU, conv 2x2 to 768, BN, ReLU, linear."""
    first = [nn.ReLU(), nn.AvgPool2d(5, 3), conv(channels, 128, 1), nn.BatchNorm2d(128)]
    second = [nn.ReLU(), nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768)]
    return nn.Sequential(*first, *second, nn.ReLU(), nn.Flatten(), nn.Linear(768, num_classes))


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the parameters of `source`, paired by position."""
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
            assert mine.shape == theirs.shape, f"{tuple(theirs.shape)} does not fit {tuple(mine.shape)}"
            mine.copy_(theirs)
