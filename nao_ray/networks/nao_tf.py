"""The network of NAO's TensorFlow code, for CIFAR: `networks/stacks.py` with inputs, head and operations of its own.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233. What differs from the
PyTorch backbone: input 1 of a cell always passes [ReLU] conv 1x1, BN; input 0 of the first cell is the stem's output as
it is, 3F channels wide: its convolutions map them to F, what an identity or a pool makes of it passes [ReLU] conv 1x1,
BN, and as a loose end it passes conv 1x1, BN; an identity of stride 2 is [ReLU] conv 1x1 of stride 2, BN; of the convs
1xk and kx1 the first has both strides; pools leave the padding out; the map is rectified before the global pool; the
auxiliary head stands one cell after the second reduction. Convolutions start by fan out.

Differs from the code: an operation of stride 2 is padded all round, where TensorFlow pads below and to the right alone;
drop path counts the step under way (t + 1 of T, there t). The scale that weights start at is He's, which what this is
written from leaves open.

Legend: `B` batch, `C` channels of a cell, `F` channels of the first, `c` channels of an input.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import Cell, Place
from nao_ray.networks.ops import ConvNorm, ConvPair, Identity, Operation, OpOptions, build_op
from nao_ray.networks.stacks import ImageStack, StackConfig
from nao_ray.spaces.base import ArchGraph, Edge
from nao_ray.spaces.base import Cell as CellGraph

_CONVS = {"conv_1x1": 1, "conv_3x3": 3}
_PAIRS = {"conv_1x3_3x1": 3, "conv_1x7_7x1": 7}


class IdentityConv(ConvNorm):
    """An identity that changes its input's shape: [ReLU] conv 1x1, BN; drop path spares it."""

    passes = True


class TfConvPair(ConvPair):
    """[ReLU] conv 1xk stride (s, s), BN, ReLU, conv kx1, BN: ``[B, c, H, W]`` -> ``[B, C, H/s, W/s]``."""

    def __init__(self, in_channels: int, channels: int, stride: int, kernel: int) -> None:
        super().__init__(channels, 1, kernel)
        shape, padding = (1, kernel), (0, kernel // 2)
        self.conv_row = nn.Conv2d(in_channels, channels, shape, stride, padding, bias=False)


class NarrowedPool(Operation):
    """A pool of a wide input, ReLU, conv 1x1, BN: ``[B, c, H, W]`` -> ``[B, C, H', W']``."""

    def __init__(self, pool: Operation, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pool, self.narrow = pool, ConvNorm(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(F.relu(self.pool(x)))
        return out


class Projection(ConvNorm):
    """Conv 1x1, BN, without a ReLU."""

    rectified_input = False


class TfCell(Cell):
    """The cell of one genotype; input 0 of the first one is wide, c > C."""

    def __init__(self, graph: CellGraph, place: Place, ops: OpOptions, *, project: bool = False) -> None:
        super().__init__(graph, place, ops, project=project)
        if place.first and 0 in graph.output:
            self.reducers["0"] = Projection(place.inputs[0], place.channels)

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        first, _ = Cell.make_calibrators(place)
        return [Identity() if place.first else first, ConvNorm(place.inputs[1], place.channels)]

    @staticmethod
    def make_op(edge: Edge, place: Place, ops: OpOptions) -> Operation:
        channels, stride = place.channels, place.stride(edge.source)
        wide = place.first and edge.source == 0
        width = place.inputs[0] if wide else channels
        if edge.op in _CONVS:
            return ConvNorm(width, channels, stride, _CONVS[edge.op])
        if edge.op in _PAIRS:
            return TfConvPair(width, channels, stride, _PAIRS[edge.op])
        if edge.op == "identity" and (wide or stride == 2):
            return IdentityConv(width, channels, stride)
        op = build_op(edge.op, channels, stride, ops)
        return NarrowedPool(op, width, channels) if wide else op


class TfStack(ImageStack):
    """A stand-alone network of one genotype."""

    cell_type: ClassVar[type[Cell]] = TfCell
    auxiliary_delay: ClassVar[int] = 1

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(graph, replace(config, relu_before_head=True, count_padding=False))

    def draw_weights(self) -> None:
        super().draw_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
