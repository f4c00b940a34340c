"""The network of NAS-Bench-201: a stem, three stages of one cell, residual blocks of stride 2 between them, a head.

Dong, Yang, "NAS-Bench-201", ICLR 2020, arXiv 2001.00326, section 2.1, and the network `infer.tiny` of its code: conv
3x3 to C = 16 channels and BN; N = 5 cells; a basic residual block that halves the map and doubles the channels; and so
on; BN, ReLU, global average pool, linear. A convolution on an edge or in a block is ReLU, conv, BN. Every operation is
built and computed, also where nothing reads it, so that parameters agree with the table's. Its shared weights:
`networks/supernets_201.py`.

Differs from the paper: maps with an odd side are halved upwards, as the convolutions do it; drop path, which the
benchmark has not, is there on request; an auxiliary head, which it has not either, is not.

Legend: `B` batch, `C` channels of a stage, `c` channels of the stage before, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import Wiring
from nao_ray.networks.eager import Eager, Masks, State, dropping
from nao_ray.networks.fast_norm import batch_norm
from nao_ray.networks.ops import Conv, Operation, Zero, build_op, conv_norm
from nao_ray.networks.stacks import Stack, StackConfig, channels_last
from nao_ray.networks.whole_batch import dropout
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph

STAGES = 3


class _EdgeByEdge(Eager):
    """Draws no mask for an edge that is not dropped."""

    def masks(self, ops: Sequence[Sequence[Operation]], like: State) -> Masks:
        def mask(op: Operation) -> Tensor | None:
            drops = dropping(self.keep) and not isinstance(op, Zero) and self.drops(op)
            return like.draw(1, self.keep)[0] if drops else None

        return [[mask(op) for op in node] for node in ops]


def compute_cell(wiring: Wiring, x: Tensor, keep: float | Tensor, *, drop_identity: bool) -> Tensor:
    """The last node, ``[B, C, H, W]``; `keep`: probability of keeping an edge."""
    states = wiring.compute(_EdgeByEdge(keep, drop_identity=drop_identity), [State(x)])
    return states[wiring.graph.output[0]].value


class SummingCell(nn.Module):
    """One cell of one input; each node is the sum of its edges, the last one is the output."""

    def __init__(self, graph: CellGraph, config: StackConfig, channels: int) -> None:
        super().__init__()
        assert graph.inputs == len(graph.output) == 1, graph
        nodes = [[build_op(edge.op, channels, 1, config.ops) for edge in edges] for edges in graph.nodes]
        self.nodes = nn.ModuleList(map(nn.ModuleList, nodes))
        self.wiring = Wiring(graph, nodes)


class ResidualBlock(Operation):
    """``[B, c, H, W]`` -> ``[B, C, ceil(H/2), ceil(W/2)]``: two convolutions, and a pool with a convolution beside."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = Conv(channels, 1, 3)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv2(conv_norm(self.conv1, self.norm1, F.relu(x), relu=True))
        beside: Tensor = self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))
        out: Tensor = beside + main
        return out


class BaseCellStack(Stack):
    """Stem, stages, head; `make` builds a cell of so many channels. Weights start as torch's layers do."""

    def __init__(self, config: StackConfig, make: Callable[[int], nn.Module]) -> None:
        super().__init__(config, num_cells=STAGES * config.cells_per_stage)
        channels = config.channels
        self.stem = nn.Conv2d(config.in_channels, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.stages, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stage in range(STAGES):
            if stage:
                self.blocks.append(ResidualBlock(channels, 2 * channels))
                channels *= 2
            self.stages.append(nn.ModuleList(make(channels) for _ in range(config.cells_per_stage)))
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, config.num_classes)

    def parts(self) -> Iterator[nn.Module]:
        """Cells, and blocks between the stages, from the images to the head."""
        for stage, cells in enumerate(self.stages):
            if stage:
                yield self.blocks[stage - 1]
            yield from cells.children()

    def enter(self, images: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` -> ``[B, C, H, W]``."""
        return conv_norm(self.stem, self.stem_norm, channels_last(images))

    def head(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> logits ``[B, K]``."""
        x = F.relu(batch_norm(self.norm, x))
        x = dropout(x.mean(dim=(2, 3)), self.config.dropout, training=self.training)
        logits: Tensor = self.classifier(x)
        return logits

    def _run(self, images: Tensor, compute: Callable[[nn.Module, Tensor, float | Tensor], Tensor]) -> Tensor:
        """Logits; `compute` makes the output of a cell of its input, and of the probability of keeping an edge."""
        x, index = self.enter(images), 0
        for part in self.parts():
            if isinstance(part, ResidualBlock):
                x = part(x)
            else:
                x = compute(part, x, self.keep_probability(index) if self.training else 1.0)
                index += 1
        return self.head(x)


class CellStack(BaseCellStack):
    """A stand-alone network of one genotype."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(config, lambda channels: SummingCell(graph.cell("normal"), config, channels))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``."""

        def compute(cell: nn.Module, x: Tensor, keep: float | Tensor) -> Tensor:
            assert isinstance(cell, SummingCell)
            return compute_cell(cell.wiring, x, keep, drop_identity=self.config.drop_path_identity)

        return self._run(images, compute)
