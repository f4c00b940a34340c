"""Shared weights of NAS-Bench-201's cells: one genotype at a time, or all operations mixed by alphas.

Dong, Yang, "NAS-Bench-201", ICLR 2020, arXiv 2001.00326, section 4 and its code: the network of the table, C = 16 and
N = 5, in which every edge has all five operations, for random search with shared weights (`SummingSupernet`) and for
DARTS (`RelaxedStack`). Batch norms of the edges only normalise; those of stem, blocks and head scale and shift too. The
code's networks take the statistics of the batch in evaluation as well; so do scores here (`supernet.batch_statistics`).

Legend: `B` batch, `C` channels, `H` `W` pixels, `K` classes, `E` = 6 edges, `O` operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from nao_ray.networks.cells import Computation, Paths, T, Wiring
from nao_ray.networks.cells_201 import BaseCellStack, CellStack, ResidualBlock, compute_cell
from nao_ray.networks.eager import State
from nao_ray.networks.ops import Operation, OpOptions, build_op
from nao_ray.networks.relaxed import Alphas, RelaxedNodes
from nao_ray.networks.stacks import StackConfig, tensors_of
from nao_ray.networks.supernet import Supernet
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph

NODES = 3


def _only_normalising(config: StackConfig) -> OpOptions:
    return replace(config.ops, affine=False)


class SharedSummingCell(nn.Module):
    """All operations of all edges: ``nodes[node][edge][op]``; the edges of a node are in the order of their sources.

    Args:
        names: operations that an edge may have.
        config: of the stack.
        channels: C.
    """

    def __init__(self, names: Sequence[str], config: StackConfig, channels: int) -> None:
        super().__init__()

        def edge() -> nn.ModuleDict:
            return nn.ModuleDict({name: build_op(name, channels, 1, _only_normalising(config)) for name in names})

        self.nodes = nn.ModuleList(nn.ModuleList(edge() for _ in range(1 + node)) for node in range(NODES))

    def operation(self, node: int, edge: int, name: str) -> Operation:
        """One of an edge's."""
        op: Operation = self.nodes[node][edge][name]  # type: ignore[index]
        return op

    def wire(self, graph: CellGraph) -> Wiring:
        """A genotype's cell with the shared operations."""
        nodes = [
            [self.operation(node, index, edge.op) for index, edge in enumerate(edges)]
            for node, edges in enumerate(graph.nodes)
        ]
        return Wiring(graph, nodes)


class SummingSupernet(BaseCellStack, Supernet):
    """Shared weights of all genotypes; see `skeletons.base.Skeleton.supernet`."""

    def __init__(self, names: Sequence[str], config: StackConfig) -> None:
        super().__init__(config, lambda channels: SharedSummingCell(names, config, channels))
        self._paths = Paths(self._wire)

    def _wire(self, graph: ArchGraph) -> list[Wiring]:
        cells = [part for part in self.parts() if isinstance(part, SharedSummingCell)]
        return [cell.wire(graph.cell("normal")) for cell in cells]

    def forward(self, images: Tensor, choice: ArchGraph) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``.

        Only the operations of the `choice` are computed, and only their parameters get a gradient.
        """
        wirings = iter(self._paths[choice])

        def compute(_cell: nn.Module, x: Tensor, keep: float | Tensor) -> Tensor:
            return compute_cell(next(wirings), x, keep, drop_identity=self.config.drop_path_identity)

        return self._run(images, compute)

    def first(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `values` begins with."""
        return (self.enter(images),)

    def values(self, how: Computation[T], first: Sequence[T], graph: ArchGraph) -> list[T]:
        """What a genotype's network computes one after the other: outputs of cells and blocks, and the logits."""
        outputs, wirings = [*first], iter(self._paths[graph])
        for part in self.parts():
            if isinstance(part, SharedSummingCell):
                wiring = next(wirings)
                outputs.append(wiring.compute(how, [outputs[-1]])[wiring.graph.output[0]])
            else:
                assert isinstance(part, ResidualBlock)
                outputs.append(how.apply(part, outputs[-1]))
        return [*outputs, how.join(self._logits, [outputs[-1]], ())]

    def _logits(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        del which
        return self.head(loose[0])

    def derive(self, graph: ArchGraph) -> CellStack:
        """A stand-alone network with copies of a genotype's weights and statistics; its batch norms scale by 1."""
        like = self.classifier.weight
        derived = CellStack(graph, self.config).to(like.device, like.dtype)
        edges, state = graph.cell("normal").nodes, derived.state_dict()
        sources = []
        for name in state:
            stage, *words = name.split(".")
            if stage == "stages":  # stages.STAGE.CELL.nodes.NODE.EDGE.
                op = edges[int(words[3])][int(words[4])].op
                name = ".".join([stage, *words[:5], op, *words[5:]])
            sources.append(name)
        shared = zip(state, tensors_of(self, sources), strict=True)
        derived.load_state_dict(state | {name: value for name, value in shared if value is not None})
        return derived.train(self.training)


class RelaxedSummingCell(RelaxedNodes):
    """All operations of all edges, mixed."""

    def __init__(self, names: Sequence[str], config: StackConfig, channels: int) -> None:
        super().__init__(names, inputs=1, nodes=NODES)
        self.make_edges(channels, lambda _source: 1, _only_normalising(config))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """``[B, C, H, W]`` and ``[E, O]``, of sum 1 each -> ``[B, C, H, W]``."""
        return self.mix([State(x)], weights)[-1].value


class RelaxedStack(BaseCellStack):
    """Called with images and the alphas of its one cell, which are not among its parameters.

    Args:
        names: operations of an edge, in the order of the columns of alpha.
        config: of the stack.
    """

    def __init__(self, names: Sequence[str], config: StackConfig) -> None:
        super().__init__(config, lambda channels: RelaxedSummingCell(names, config, channels))

    def forward(self, images: Tensor, alphas: Alphas) -> Tensor:
        """``[B, in_channels, H, W]`` and one ``[E, O]``, before the softmax -> logits ``[B, K]``."""
        (alpha,) = alphas
        weights = alpha.softmax(dim=-1)

        def compute(cell: nn.Module, x: Tensor, keep: float | Tensor) -> Tensor:
            del keep  # nothing is dropped
            mixed: Tensor = cell(x, weights)
            return mixed

        return self._run(images, compute)
