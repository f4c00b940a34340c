"""The final network of ENAS's macro space: layers with skip connections in three stages.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268;
the fixed network of its code: conv 3x3, BN; n layers; after layers n//3 - 1 and 2(n//3) - 1 every entry (the stem and
the layers so far) is halved by a factorised reduction of its own to twice the channels; global pool, linear without
bias. A layer is [ReLU] conv 1x1, BN, ReLU, operation; from the second layer on, the entries it skips from and that
result are concatenated, and [ReLU] conv 1x1, BN brings them back to C channels.

Differs from the code: separable convolutions are separable (the code builds ordinary ones, see `plain_separable`); the
pools, which crash there, come without batch norm, as in the search network; reductions whose result no layer reads are
built, so that parameters agree, and not computed; drop path, which the code ignores, drops on request the operations of
layers that skip. There is no auxiliary head.

Legend: `B` batch, `C` channels of a stage, `H` `W` pixels, `K` classes, `n` layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import State
from nao_ray.networks.fast import depthwise
from nao_ray.networks.ops import Conv, ConvNorm, FactorizedReduce, Operation, build_op, conv_norm
from nao_ray.networks.stacks import Stack, StackConfig, channels_last
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


def _operation(name: str, channels: int, *, plain_separable: bool) -> Operation:
    """The operation of a layer, read after a ReLU whatever it is."""
    kind, size = name.rsplit("_", 1)
    kernel = int(size[0])
    if kind == "sep_conv" and not plain_separable:
        return Separable(channels, kernel)
    if kind in ("conv", "sep_conv"):
        return Conv(channels, 1, kernel)
    return build_op(name, channels, 1)


class Layer(nn.Module):
    """One layer: its operation on the entry before it, joined with the entries that it skips from."""

    def __init__(self, edges: Sequence[Edge], channels: int, *, joins: bool, plain_separable: bool) -> None:
        super().__init__()
        operation, *skips = edges
        self.source = operation.source
        self.skips = [edge.source for edge in skips]
        self.entry = ConvNorm(channels, channels)
        self.operation = _operation(operation.op, channels, plain_separable=plain_separable)
        self.join = ConvNorm(channels * len(edges), channels) if joins else None

    def forward(self, entries: dict[int, State], keep: float = 1.0) -> State:
        """Entries ``[B, C, H, W]`` by number -> ``[B, C, H, W]``; `keep`: probability of keeping the operation."""
        source = entries[self.source]
        x: Tensor = self.operation(conv_norm(self.entry.conv, self.entry.norm, source.rectified, relu=True))
        if self.join is None:
            return State(x)
        if self.skips and keep < 1.0:
            x = x * source.draw(1, keep)[0]
        parts = [*(entries[skip].rectified for skip in self.skips), F.relu(x, inplace=True)]
        return State(self.join(torch.cat(parts, dim=1)))


class MacroStack(Stack):
    """A stand-alone network of one genotype; see `networks.derived.build`."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        nodes = graph.cell("network").nodes
        super().__init__(config, num_cells=len(nodes))
        channels = config.channels
        self.stem = nn.Conv2d(config.in_channels, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        layers: list[Layer] = []
        self.reductions = nn.ModuleDict()
        self._read_later: dict[int, list[int]] = {}
        for index, edges in enumerate(nodes):
            layers.append(Layer(edges, channels, joins=index > 0, plain_separable=config.plain_separable))
            if index + 1 in (config.cells_per_stage, 2 * config.cells_per_stage):
                entries = range(index + 2)
                halves = (FactorizedReduce(channels, 2 * channels) for _ in entries)
                self.reductions[str(index)] = nn.ModuleList(halves)
                later = {edge.source for node in nodes[index + 1 :] for edge in node}
                self._read_later[index] = sorted(later.intersection(entries))
                channels *= 2
        self.layers = nn.ModuleList(layers)
        self.classifier = nn.Linear(channels, config.num_classes, bias=False)
        self.draw_weights()

    def forward(self, images: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``."""
        entries = {0: State(conv_norm(self.stem, self.stem_norm, channels_last(images)))}
        for index, layer in enumerate(self.layers):
            keep = self.keep_probability(index) if self.training else 1.0
            entries[index + 1] = layer(entries, keep)
            if index in self._read_later:
                halves = list(self.reductions[str(index)].children())
                entries = {at: State(halves[at](entries[at].value)) for at in self._read_later[index]}
        last = entries[self.num_cells]
        x = last.rectified if self.config.relu_before_head else last.value
        x = F.dropout(x.mean(dim=(2, 3)), self.config.dropout, self.training)
        logits: Tensor = self.classifier(x)
        return logits
