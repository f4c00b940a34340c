"""The final network of ENAS's micro space: NAO's stack with ENAS's own inputs, head and auxiliary head.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268;
the fixed network of its code, 3N + 2 layers. What differs from `networks/stacks.py`: in every layer input 1 goes
through one more [ReLU] conv 1x1, BN; the map is rectified before the global pool; the auxiliary head stands one layer
after the second reduction; no linear layer has a bias.

Differs from the code: an operation of stride 2 is padded all round, where TensorFlow pads below and to the right alone;
the auxiliary head is trained, where the code leaves its variables out of the optimiser's list.

Legend: `B` batch, `C` channels of a cell, `c` channels of an input, `K` classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import Cell, Place
from nao_ray.networks.ops import ConvNorm, Operation, conv_norm
from nao_ray.networks.stacks import AuxiliaryHead, ImageStack, SearchStack, StackConfig
from nao_ray.spaces.base import ArchGraph


class LayerBase(Operation):
    """[ReLU] conv 1x1, BN, ReLU, conv 1x1, BN, the first pair only where c differs from C: ``[B, C, H, W]``."""

    rectified_input = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.calibrator = None if in_channels == channels else ConvNorm(in_channels, channels)
        self.base = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.calibrator is not None:
            x = conv_norm(self.calibrator.conv, self.calibrator.norm, x, relu=True)
        out: Tensor = self.base(x)
        return out


class MicroCell(Cell):
    """One layer of the micro network."""

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        first, _ = Cell.make_calibrators(place)
        return [first, LayerBase(place.inputs[1], place.channels)]


class MicroAuxiliaryHead(AuxiliaryHead):
    """The conv 2x2 pads below and to the right, its four pixels are averaged, the linear layer has no bias."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.classifier = nn.Linear(self.classifier.in_features, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_norm(self.conv1, self.norm1, self.pool(x), relu=True)
        x = conv_norm(self.conv2, self.norm2, F.pad(x, (0, 1, 0, 1)), relu=True)
        out: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return out


class MicroStack(ImageStack):
    """A stand-alone network of one genotype."""

    cell_type: ClassVar[type[Cell]] = MicroCell
    auxiliary_type: ClassVar[type[AuxiliaryHead]] = MicroAuxiliaryHead
    auxiliary_delay: ClassVar[int] = 1
    head_bias: ClassVar[bool] = False

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(graph, replace(config, relu_before_head=True))


class MicroSearchStack(SearchStack):
    """A network of one genotype in the layout of the shared supernet."""

    auxiliary_type: ClassVar[type[AuxiliaryHead]] = MicroAuxiliaryHead
    auxiliary_delay: ClassVar[int] = 1
    head_bias: ClassVar[bool] = False
    strided: ClassVar[bool] = False

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(graph, replace(config, relu_before_head=True))
