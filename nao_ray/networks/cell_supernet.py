"""Shared supernets of pairs of cells: one weight set per possible edge, of which a step computes one genotype's alone.

`CellSupernet`, NAO with weight sharing: Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233, and Luo, Qin, Chen,
arXiv 1909.10815, in the layout of their PyTorch code (NAO_pytorch V1 and V2): N = 3, F = 20, so 11 cells. In every cell

* each (node, edge, source) has its own operations, batch norm included; an identity of stride 2 is a
  factorized reduction, and an input that a reduction cell does not read has one of its own;
* the output is relu of the loose ends side by side, a 1x1 convolution, BN, always C channels; the convolution is put
  together of one block ``[C, C]`` per state.

Parameters at N = 3, F = 20 for CIFAR-10: 7,387,350 for `nao_cnn_small`, 18,152,950 for `nao_cnn_middle`, the auxiliary
head 412,938 more. The same numbers as the official code, in which 82,400 are dead: there both edges of a node share the
first edge's reductions, and the second edge's 20 (10 per reduction cell) are never read. Here each edge reads its own,
so no parameter is dead.

Differs from the official code: running statistics belong to each operation instead of being shared by all sources of
an edge (one-shot scores do not use them, see `batch_statistics`), and weights outside the sampled path have no gradient
instead of a zero one, so that momentum and weight decay leave them alone.

`MicroSupernet`, ENAS's micro space: Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268, with N = 2, F = 20, so 8
layers. The same cells, except that pools and identity have no weights anywhere: before a reduction cell a factorized
reduction x_red halves the last layer, that cell reads the layer before the last (halved by its calibration) and x_red,
the next one x_red and its output. Parameters for CIFAR-10: 5,373,140, the auxiliary head 412,928 more; the same in the
published code, whose reduction cells read the last layer twice, the second time as x_red (`reduce_last`). Differs from
that code: the head's dropout is off in evaluation, the auxiliary head is trained.

Legend: `B` batch, `C` channels of a cell, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from nao_ray.networks.cells import BaseCell, Computation, Paths, Place, T, Wiring, rectified_concat
from nao_ray.networks.enas_micro import MicroAuxiliaryHead, MicroSearchStack
from nao_ray.networks.fast_norm import batch_norm
from nao_ray.networks.ops import Operation, OpOptions, build_op
from nao_ray.networks.stacks import AuxiliaryHead, BaseImageStack, ImageStack, SearchStack, StackConfig, tensors_of
from nao_ray.networks.supernet import Supernet
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph
from nao_ray.spaces.parts.cnn_cell import CELL_INPUTS, EDGES, NODES


class SharedPaths(BaseCell):
    """A cell with the operations of all genotypes."""

    @abstractmethod
    def operation(self, node: int, edge: int, source: int, name: str) -> Operation:
        """The one of an edge that reads state `source`."""

    def wire(self, graph: CellGraph) -> Wiring:
        """A genotype's cell with the shared operations."""
        nodes = [
            [self.operation(node, index, edge.source, edge.op) for index, edge in enumerate(edges)]
            for node, edges in enumerate(graph.nodes)
        ]
        return Wiring(graph, nodes)


class SharedCell(SharedPaths):
    """All operations of all edges: ``nodes[node][edge][source][op]``.

    Args:
        place: where it stands.
        names: operations that an edge may have.
        ops: deviations from the official operations.
    """

    def __init__(self, place: Place, names: tuple[str, ...], ops: OpOptions) -> None:
        super().__init__(place)
        channels = self.out_channels = place.channels

        def edge(node: int) -> nn.ModuleList:
            strides = [place.stride(source) for source in range(CELL_INPUTS + node)]
            return nn.ModuleList(
                nn.ModuleDict({name: build_op(name, channels, stride, ops) for name in names}) for stride in strides
            )

        self.nodes = nn.ModuleList(nn.ModuleList(edge(node) for _ in range(EDGES)) for node in range(NODES))
        shrunk = range(CELL_INPUTS) if place.reduction else ()
        self.reducers = nn.ModuleDict({str(state): build_op("identity", channels, 2, ops) for state in shrunk})
        self.blocks = nn.ParameterList(torch.empty(channels, channels, 1, 1) for _ in range(CELL_INPUTS + NODES))
        self.norm = nn.BatchNorm2d(channels)

    def operation(self, node: int, edge: int, source: int, name: str) -> Operation:
        op: Operation = self.nodes[node][edge][source][name]  # type: ignore[index]
        return op

    def projection(self, which: tuple[int, ...]) -> Tensor:
        """``[C, n C, 1, 1]``: the blocks of n states."""
        return torch.cat([self.blocks[state] for state in which], dim=1)

    def join(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        out = nn.functional.conv2d(rectified_concat(loose), self.projection(which))
        return batch_norm(self.norm, out)


class CellSupernet(BaseImageStack, Supernet):
    """Shared weights of all genotypes of a space; see `skeletons.base.Skeleton.supernet`."""

    derived_type: ClassVar[type[ImageStack]] = SearchStack

    def __init__(self, names: tuple[str, ...], config: StackConfig) -> None:
        super().__init__(config, lambda place: self.make_cell(place, names))
        self._paths = Paths(self._wire)

    def make_cell(self, place: Place, names: tuple[str, ...]) -> SharedPaths:
        """A cell of all operations."""
        return SharedCell(place, names, self.config.ops)

    def shared_cells(self) -> list[SharedPaths]:
        """From the images to the head."""
        return [cell for cell in self.cells if isinstance(cell, SharedPaths)]

    def _wire(self, graph: ArchGraph) -> list[Wiring]:
        return [cell.wire(graph.cell(cell.place.role)) for cell in self.shared_cells()]

    def forward(self, images: Tensor, choice: ArchGraph) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``; in training with an auxiliary head, a pair of logits.

        Only the operations of the `choice` are computed, and only their parameters get a gradient.
        """
        return self._run(images, self._paths[choice])

    def first(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `values` begins with: both inputs of the first cell."""
        before, last = self.stem(images)
        return before.value, last.value

    def values(self, how: Computation[T], first: Sequence[T], graph: ArchGraph) -> list[T]:
        """What a genotype's network computes one after the other: outputs of cells, and the logits."""
        before, last = first
        outputs = [last]
        for index, (cell, wiring) in enumerate(zip(self.shared_cells(), self._paths[graph], strict=True)):
            inputs, before = self.feed(index, (before, outputs[-1]), partial(self._halved, how))
            outputs.append(cell.compute(how, inputs, wiring))
        return [*outputs, how.join(self._logits, [outputs[-1]], ())]

    def _halved(self, how: Computation[T], index: int, state: T) -> T:
        halving = self.halvings[str(index)]
        assert isinstance(halving, Operation)
        return how.apply(halving, state)

    def _logits(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        del which
        return self.head(loose[0])

    def derive(self, graph: ArchGraph) -> ImageStack:
        """A stand-alone network of the supernet's layout with copies of a genotype's weights and statistics."""
        like = self.classifier.weight
        derived = self.derived_type(graph, self.config).to(like.device, like.dtype)
        state: dict[str, Tensor] = {}
        names = {name: name for name in derived.state_dict()}
        for index, cell in enumerate(self.shared_cells()):
            where, graph_cell = f"cells.{index}", graph.cell(cell.place.role)
            for name, source in zip(_edge_places(graph_cell), _edge_names(graph_cell), strict=True):
                prefix = f"{where}.{name}."
                names |= {n: f"{where}.{source}.{n.removeprefix(prefix)}" for n in names if n.startswith(prefix)}
            assert isinstance(cell, SharedCell)
            prefix = f"{where}.projection.norm."
            names |= {n: f"{where}.norm.{n.removeprefix(prefix)}" for n in names if n.startswith(prefix)}
            state[f"{where}.projection.conv.weight"] = cell.projection(graph_cell.output).detach()
        others = {n: source for n, source in names.items() if n not in state}
        derived.load_state_dict(state | dict(zip(others, tensors_of(self, others.values()), strict=True)))
        return derived.train(self.training)


class MicroSupernet(CellSupernet):
    """Shared weights of ENAS's micro space."""

    derived_type: ClassVar[type[ImageStack]] = MicroSearchStack
    auxiliary_type: ClassVar[type[AuxiliaryHead]] = MicroAuxiliaryHead
    auxiliary_delay: ClassVar[int] = 1
    head_bias: ClassVar[bool] = False
    strided: ClassVar[bool] = False

    def __init__(self, names: tuple[str, ...], config: StackConfig) -> None:
        super().__init__(names, replace(config, relu_before_head=True))


def _edge_places(graph: CellGraph) -> list[str]:
    """Of each edge, its module in a derived cell."""
    return [f"nodes.{node}.{index}" for node, edges in enumerate(graph.nodes) for index in range(len(edges))]


def _edge_names(graph: CellGraph) -> list[str]:
    """Of each edge, its module in a shared cell."""
    edges = [edge for node in graph.nodes for edge in node]
    return [f"{place}.{edge.source}.{edge.op}" for place, edge in zip(_edge_places(graph), edges, strict=True)]
