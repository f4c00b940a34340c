"""The networks that DARTS trains its cells in: NAO's stack, with inputs and operations as DARTS has them.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, and its code: L cells, of
which L // 3 and 2L // 3 reduce. What differs from `networks/stacks.py`: both inputs of a cell always pass [ReLU] conv
1x1, BN, also where they have C channels already; an identity of stride 2 begins with a ReLU, and drop path does not
spare it; the auxiliary head of ImageNet has no BN after its last convolution, as in the published runs. A genotype has
any number of nodes, and its concat says which of them are the cell's output. Weights start as torch's layers do.

Differs from the code: maps with an odd side are halved upwards, where it fails; the auxiliary head takes maps of any
size, where it takes 8x8, or 7x7 on ImageNet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from nao_ray.networks.cells import Cell, Place
from nao_ray.networks.ops import ConvNorm, Operation, OpOptions, RectifiedReduce, conv_norm
from nao_ray.networks.stacks import AuxiliaryHead, ImageStack, StackConfig
from nao_ray.spaces.base import ArchGraph

SEARCH_OPS = OpOptions(rectify_reduction=True, affine=False, norm_pools=True)
"""Of the supernet."""


def calibrators(place: Place, *, affine: bool = True) -> list[Operation]:
    """What brings both inputs of a cell to C channels and one size."""
    before, last = place.inputs
    first = RectifiedReduce if place.shrink else ConvNorm
    return [first(before, place.channels, affine=affine), ConvNorm(last, place.channels, affine=affine)]


class DartsCell(Cell):
    """The cell of one genotype."""

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        return calibrators(place)


class ImagenetAuxiliaryHead(AuxiliaryHead):
    """Without a BN after the last convolution."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        del self.norm2

    def forward(self, x: Tensor) -> Tensor:
        x = conv_norm(self.conv1, self.norm1, self.pool(x), relu=True)
        out: Tensor = self.classifier(F.relu(self.conv2(x)).flatten(1))
        return out


class DartsStack(ImageStack):
    """A stand-alone network of one genotype."""

    cell_type: ClassVar[type[Cell]] = DartsCell

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(graph, replace(config, rectify_reduction=True))

    def draw_weights(self) -> None:
        """They have been drawn by the layers."""


class DartsImagenetStack(DartsStack):
    """The one for ImageNet."""

    auxiliary_type: ClassVar[type[AuxiliaryHead]] = ImagenetAuxiliaryHead
