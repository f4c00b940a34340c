"""Shared weights of DARTS' cells, of which a step computes one genotype's alone.

Li, Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, arXiv 1902.07638: the
operations of DARTS' relaxed supernet, one set per edge from a state to a node, trained by random paths. Both edges that
a node keeps are of the same set. Batch norms only normalise, and weights start as torch's layers do.

Differs from their code, which computes all operations and weighs one with 1: weights off the path have no gradient
instead of a zero one, so that momentum and weight decay leave them alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from nao_ray.networks.cell_supernet import CellSupernet, SharedPaths
from nao_ray.networks.cells import Cell, Place
from nao_ray.networks.darts import SEARCH_OPS, DartsStack, calibrators
from nao_ray.networks.ops import Operation, OpOptions, build_op
from nao_ray.networks.relaxed import INPUTS, NODES
from nao_ray.networks.stacks import ImageStack, StackConfig
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph


class SharedDartsCell(SharedPaths):
    """All operations of all edges: ``nodes[node][source][op]``.

    Args:
        place: where it stands.
        names: operations that an edge may have.
    """

    def __init__(self, place: Place, names: tuple[str, ...]) -> None:
        super().__init__(place)

        def edge(source: int) -> nn.ModuleDict:
            stride = place.stride(source)
            return nn.ModuleDict({name: build_op(name, place.channels, stride, SEARCH_OPS) for name in names})

        self.nodes = nn.ModuleList(nn.ModuleList(map(edge, range(INPUTS + node))) for node in range(NODES))
        self.reducers = nn.ModuleDict()
        self.out_channels = NODES * place.channels

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        return calibrators(place, affine=SEARCH_OPS.affine)

    def operation(self, node: int, edge: int, source: int, name: str) -> Operation:
        del edge
        op: Operation = self.nodes[node][source][name]  # type: ignore[index]
        return op

    def join(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        del which
        return torch.cat(loose, dim=1)


class DartsSearchCell(Cell):
    """The cell of one genotype, as the shared weights have it."""

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        return calibrators(place, affine=SEARCH_OPS.affine)


class DartsSearchStack(DartsStack):
    """A network of one genotype in the layout of the shared weights."""

    cell_type: ClassVar[type[Cell]] = DartsSearchCell
    ops: ClassVar[OpOptions | None] = SEARCH_OPS


class DartsSupernet(CellSupernet):
    """Shared weights of all genotypes that are searched; see `skeletons.base.Skeleton.supernet`."""

    derived_type: ClassVar[type[ImageStack]] = DartsSearchStack

    def __init__(self, names: tuple[str, ...], config: StackConfig) -> None:
        super().__init__(names, replace(config, rectify_reduction=True))

    def make_cell(self, place: Place, names: tuple[str, ...]) -> SharedPaths:
        return SharedDartsCell(place, names)

    def draw_weights(self) -> None:
        """They have been drawn by the layers."""

    def derive(self, graph: ArchGraph) -> ImageStack:
        like = self.classifier.weight
        derived = self.derived_type(graph, self.config).to(like.device, like.dtype)
        shared, state = self.state_dict(), derived.state_dict()
        for name in state:
            source, words = name, name.split(".")
            if words[2:3] == ["nodes"]:  # cells.CELL.nodes.NODE.EDGE.
                cell = self.shared_cells()[int(words[1])]
                edge = _edge(graph.cell(cell.place.role), int(words[3]), int(words[4]))
                source = ".".join([*words[:4], edge, *words[5:]])
            state[name] = shared[source]
        derived.load_state_dict(state)
        return derived.train(self.training)


def _edge(graph: CellGraph, node: int, index: int) -> str:
    """Of an edge, its module in a shared node."""
    edge = graph.nodes[node][index]
    return f"{edge.source}.{edge.op}"
