"""The shared supernet in plain eager PyTorch: what its step and its pool evaluation are measured against.

Written as the paper's code lists it (arXiv 1808.07233, NAO_pytorch V1): contiguous tensors, a module per operation and
edge, one convolution per call with the weights of the edge's source, an affine of batch norm per source over statistics
of all sources, the output's convolution gathered by concatenation. Nothing shared and nothing in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import Reduce, auxiliary_head, calibrator, conv
from nao_ray.networks.cell_supernet import CellSupernet, SharedCell
from nao_ray.networks.stacks import StackConfig
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph
from nao_ray.spaces.parts.cnn_cell import CELL_INPUTS, EDGES, NODES


class SharedSepConv(nn.Module):
    """Twice ReLU, depthwise, pointwise, BN with the weights of a source."""

    def __init__(self, channels: int, kernel: int, strides: list[int]) -> None:
        super().__init__()
        self.channels, self.kernel, self.strides = channels, kernel, strides
        shapes = [(channels, 1, kernel, kernel), (channels, channels, 1, 1), (channels,), (channels,)]
        self.weights = nn.ModuleList(
            nn.ModuleList(nn.ParameterList(torch.empty(shape) for shape in shapes) for _ in range(2)) for _ in strides
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for _ in range(2))

    def forward(self, x: Tensor, source: int) -> Tensor:
        for which, norm in enumerate(self.norms):
            assert isinstance(norm, nn.BatchNorm2d)
            depthwise, pointwise, scale, shift = self.get_submodule(f"weights.{source}.{which}").parameters()
            stride = self.strides[source] if which == 0 else 1
            x = F.conv2d(F.relu(x), depthwise, None, stride, self.kernel // 2, 1, self.channels)
            x = F.conv2d(x, pointwise)
            x = F.batch_norm(x, norm.running_mean, norm.running_var, scale, shift, True, 0.1, norm.eps)
        return x


class SharedIdentity(nn.Module):
    """The state itself; at stride 2 a factorized reduction per source."""

    def __init__(self, channels: int, strides: list[int]) -> None:
        super().__init__()
        self.reducers = nn.ModuleList(Reduce(channels, channels) for stride in strides if stride == 2)

    def forward(self, x: Tensor, source: int) -> Tensor:
        out: Tensor = self.reducers[source](x) if source < len(self.reducers) else x
        return out


class SharedPool(nn.Module):
    """Average pool without the padding, or max pool, 3x3."""

    def __init__(self, kind: str, strides: list[int]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(
            nn.MaxPool2d(3, s, 1) if kind == "max" else nn.AvgPool2d(3, s, 1, count_include_pad=False) for s in strides
        )

    def forward(self, x: Tensor, source: int) -> Tensor:
        out: Tensor = self.pools[source](x)
        return out


def operation(name: str, channels: int, strides: list[int]) -> nn.Module:
    """The module of an operation's name in the small space."""
    if name.startswith("sep_conv"):
        return SharedSepConv(channels, int(name[-1]), strides)
    return SharedIdentity(channels, strides) if name == "identity" else SharedPool(name[:3], strides)


class PlainSharedCell(nn.Module):
    """A shared cell that computes edge by edge."""

    def __init__(
        self, names: tuple[str, ...], inputs: tuple[int, int], channels: int, reduction: bool, shrink: bool
    ) -> None:
        super().__init__()
        first = nn.Sequential(nn.ReLU(), Reduce(inputs[0], channels)) if shrink else calibrator(inputs[0], channels)
        self.calibrators = nn.ModuleList([first, calibrator(inputs[1], channels)])

        def edge(node: int) -> nn.ModuleDict:
            strides = [2 if reduction and source < CELL_INPUTS else 1 for source in range(CELL_INPUTS + node)]
            return nn.ModuleDict({name: operation(name, channels, strides) for name in names})

        self.nodes = nn.ModuleList(nn.ModuleList(edge(node) for _ in range(EDGES)) for node in range(NODES))
        self.reducers = nn.ModuleList(Reduce(channels, channels) for _ in range(CELL_INPUTS if reduction else 0))
        self.blocks = nn.ParameterList(torch.empty(channels, channels, 1, 1) for _ in range(CELL_INPUTS + NODES))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, before: Tensor, last: Tensor, graph: CellGraph) -> Tensor:
        states: list[Tensor] = [self.calibrators[0](before), self.calibrators[1](last)]
        for node, edges in enumerate(graph.nodes):
            ops = [self.get_submodule(f"nodes.{node}.{slot}.{edge.op}") for slot, edge in enumerate(edges)]
            outs = [op(states[edge.source], edge.source) for edge, op in zip(edges, ops, strict=True)]
            states.append(sum(outs[1:], start=outs[0]))
        outputs = [self.reducers[i](states[i]) if i < len(self.reducers) else states[i] for i in graph.output]
        weight = torch.cat([self.blocks[i] for i in graph.output], dim=1)
        out: Tensor = self.norm(F.conv2d(F.relu(torch.cat(outputs, dim=1)), weight))
        return out


class PlainSupernet(nn.Module):
    """The CIFAR stack of the small space without drop path."""

    def __init__(self, names: tuple[str, ...], config: StackConfig) -> None:
        super().__init__()
        n, f = config.cells_per_stage, config.channels
        self.reductions = (n, 2 * n + 1)
        self.stem = nn.Sequential(conv(config.in_channels, 3 * f, 3), nn.BatchNorm2d(3 * f))
        self.cells, inputs, shrink = nn.ModuleList(), (3 * f, 3 * f), False
        for index in range(3 * n + 2):
            reduction = index in self.reductions
            f *= 2 if reduction else 1
            self.cells.append(PlainSharedCell(names, inputs, f, reduction, shrink))
            inputs, shrink = (inputs[1], f), reduction
        self.auxiliary = auxiliary_head(f, config.num_classes) if config.auxiliary else None
        self.classifier = nn.Linear(f, config.num_classes)

    def forward(self, images: Tensor, graph: ArchGraph) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, C, 32, 32]`` -> logits; in training with an auxiliary head, a pair of logits."""
        before = last = self.stem(images)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            role = "reduction" if index in self.reductions else "normal"
            before, last = last, cell(before, last, graph.cell(role))
            if index == self.reductions[1] and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(last)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits if auxiliary is None else (logits, auxiliary)


def copy_shared_parameters(source: CellSupernet, target: PlainSupernet) -> None:
    """Give `target` the weights of `source`."""
    pairs: list[tuple[nn.Module, nn.Module]] = [(target.stem, source.stem), (target.classifier, source.classifier)]
    if target.auxiliary is not None and source.auxiliary is not None:
        pairs.append((target.auxiliary, source.auxiliary))
    for mine, theirs in zip(target.cells, source.shared_cells(), strict=True):
        assert isinstance(mine, PlainSharedCell)
        assert isinstance(theirs, SharedCell)
        pairs += [(mine.calibrators, theirs.calibrators), (mine.reducers, theirs.reducers), (mine.norm, theirs.norm)]
        pairs.append((mine.blocks, theirs.blocks))
        for place, op in mine.nodes.named_modules():
            if isinstance(op, SharedSepConv | SharedIdentity):
                node, slot, name = place.split(".")
                sources = (op.weights if isinstance(op, SharedSepConv) else op.reducers).children()
                pairs += [(each, theirs.operation(int(node), int(slot), at, name)) for at, each in enumerate(sources)]
    with torch.no_grad():
        for held, given in pairs:
            for value, new in zip(held.parameters(), given.parameters(), strict=True):
                assert value.shape == new.shape, f"{tuple(new.shape)} does not fit {tuple(value.shape)}"
                value.copy_(new)
