"""The final network of ENAS's macro space: layers with skip connections in three stages.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268;
the fixed network of its code: conv 3x3, BN; n layers; after layers n//3 - 1 and 2(n//3) - 1 every entry (the stem and
the layers so far) is halved by a factorised reduction of its own to twice the channels; global pool, linear without
bias. A layer is [ReLU] conv 1x1, BN, ReLU, operation; from the second layer on, the entries it skips from and that
result are concatenated, and [ReLU] conv 1x1, BN brings them back to C channels. `BaseMacroStack` is what the search
network (`networks/macro_supernet.py`) has in common with it.

Differs from the code: separable convolutions are separable (the code builds ordinary ones, see `plain_separable`); the
pools, which crash there, come without batch norm, as in the search network; reductions whose result no layer reads are
built, so that parameters agree, and not computed; drop path, which the code ignores, drops on request the operations of
layers that skip. There is no auxiliary head.

Legend: `B` batch, `C` channels of a stage, `H` `W` pixels, `K` classes, `n` layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.eager import State, dropping
from nao_ray.networks.fast_depthwise import depthwise
from nao_ray.networks.ops import Conv, ConvNorm, FactorizedReduce, Operation, build_op, conv_norm
from nao_ray.networks.stacks import Stack, StackConfig, channels_last
from nao_ray.networks.whole_batch import dropout
from nao_ray.spaces.base import ArchGraph, Edge

STAGES = 3


class Separable(Operation):
    """[ReLU] depthwise kxk, pointwise, BN, once; k^2 C + C^2 + 2C parameters."""

    rectified_input = True

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(self.pointwise, self.norm, depthwise(self.depthwise, x))


def operation(name: str, channels: int, *, plain_separable: bool) -> Operation:
    """The operation of a layer, read after a ReLU whatever it is."""
    square = re.fullmatch(r"((?:sep_)?conv)_(\d)x\2", name)
    if square is None:
        return build_op(name, channels, 1)
    kind, kernel = square[1], int(square[2])
    return Conv(channels, 1, kernel) if kind == "conv" or plain_separable else Separable(channels, kernel)


class Layer(nn.Module):
    """One layer: its operation on the entry before it, joined with the entries that it skips from."""

    def __init__(self, edges: Sequence[Edge], channels: int, *, joins: bool, plain_separable: bool) -> None:
        super().__init__()
        self.entry = ConvNorm(channels, channels)
        self.operation = operation(edges[0].op, channels, plain_separable=plain_separable)
        self.join = ConvNorm(channels * len(edges), channels) if joins else None

    def forward(self, entries: dict[int, State], edges: Sequence[Edge], keep: float | Tensor) -> State:
        """Entries ``[B, C, H, W]`` by number -> ``[B, C, H, W]``; `keep`: probability of keeping the operation."""
        source, *skips = [entries[edge.source] for edge in edges]
        x: Tensor = self.operation(conv_norm(self.entry.conv, self.entry.norm, source.rectified, relu=True))
        if self.join is None:
            return State(x)
        if skips and dropping(keep):
            x = x * source.draw(1, keep)[0]
        parts = [*(skip.rectified for skip in skips), F.relu(x, inplace=True)]
        return State(self.join(torch.cat(parts, dim=1)))


class BaseMacroStack(Stack):
    """Stem, layers, reductions, head; `make` builds the layer of a number for its channels C.

    Args:
        config: F; N is a third of n.
        num_layers: n.
        growth: of the channels at a reduction.
        make: called with 0..n-1 and C.
    """

    def __init__(
        self, config: StackConfig, num_layers: int, growth: int, make: Callable[[int, int], nn.Module]
    ) -> None:
        config = replace(config, cells_per_stage=num_layers // STAGES)
        super().__init__(config, num_cells=num_layers)
        channels = config.channels
        self.stem = nn.Conv2d(config.in_channels, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.reductions = nn.ModuleDict()
        layers: list[nn.Module] = []
        for index in range(num_layers):
            layers.append(make(index, channels))
            if index + 1 in (config.cells_per_stage, 2 * config.cells_per_stage):
                halves = (FactorizedReduce(channels, growth * channels) for _ in range(index + 2))
                self.reductions[str(index)] = nn.ModuleList(halves)
                channels *= growth
        self.layers = nn.ModuleList(layers)
        self.classifier = nn.Linear(channels, config.num_classes, bias=False)
        self.draw_weights()

    def reduced(self, graph: ArchGraph) -> dict[int, list[int]]:
        """By the layer that a reduction follows, the entries so far that a later layer of `graph` reads."""
        nodes = graph.cell("network").nodes
        return {
            index: sorted({edge.source for node in nodes[index + 1 :] for edge in node}.intersection(range(index + 2)))
            for index in map(int, self.reductions)
        }

    def _run(self, images: Tensor, graph: ArchGraph) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``."""
        reduced = self.reduced(graph)
        entries = {0: State(conv_norm(self.stem, self.stem_norm, channels_last(images)))}
        for index, (layer, edges) in enumerate(zip(self.layers, graph.cell("network").nodes, strict=True)):
            keep = self.keep_probability(index) if self.training else 1.0
            entries[index + 1] = layer(entries, edges, keep)
            if index in reduced:
                halves = list(self.reductions[str(index)].children())
                entries = {at: State(halves[at](entries[at].value)) for at in reduced[index]}
        last = entries[self.num_cells]
        x = last.rectified if self.config.relu_before_head else last.value
        x = dropout(x.mean(dim=(2, 3)), self.config.dropout, training=self.training)
        logits: Tensor = self.classifier(x)
        return logits


class MacroStack(BaseMacroStack):
    """A stand-alone network of one genotype."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        nodes = graph.cell("network").nodes

        def layer(index: int, channels: int) -> Layer:
            return Layer(nodes[index], channels, joins=index > 0, plain_separable=config.plain_separable)

        super().__init__(config, len(nodes), growth=2, make=layer)
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``."""
        return self._run(images, self.graph)
