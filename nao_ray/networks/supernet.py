"""The shared supernet: one weight set per possible edge, of which a step computes one genotype's alone.

Reference: NAO with weight sharing, Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233, and Luo, Qin, Chen, arXiv
1909.10815, in the layout of their PyTorch code (NAO_pytorch V1 and V2): N = 3, F = 20, so 11 cells. In every cell

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

Legend: `B` batch, `C` channels of a cell, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nao_ray.errors import ConfigError
from nao_ray.networks.cells import BaseCell, Place, Wiring, rectified_concat
from nao_ray.networks.derived import check, network_defaults
from nao_ray.networks.fast import batch_norm
from nao_ray.networks.ops import Operation, OpOptions, build_op
from nao_ray.networks.stacks import ImageSkeleton, ImageStack, StackConfig
from nao_ray.spaces._cnn_cell import CELL_INPUTS, EDGES, NODES, CnnCellSpace
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.spaces.base import Cell as CellGraph


class SharedCell(BaseCell):
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
        """The one of an edge that reads state `source`."""
        op = self.get_submodule(f"nodes.{node}.{edge}.{source}.{name}")
        assert isinstance(op, Operation)
        return op

    def wire(self, graph: CellGraph) -> Wiring:
        """A genotype's cell with the shared operations."""
        nodes = [
            [self.operation(node, index, edge.source, edge.op) for index, edge in enumerate(edges)]
            for node, edges in enumerate(graph.nodes)
        ]
        return Wiring(graph, nodes)

    def projection(self, which: tuple[int, ...]) -> Tensor:
        """``[C, n C, 1, 1]``: the blocks of n states."""
        return torch.cat([self.blocks[state] for state in which], dim=1)

    def join(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        out = nn.functional.conv2d(rectified_concat(loose), self.projection(which))
        return batch_norm(self.norm, out)


class Supernet(ImageSkeleton):
    """Shared weights of all genotypes of a space; see `build`."""

    def __init__(self, names: tuple[str, ...], config: StackConfig) -> None:
        super().__init__(config, lambda place: SharedCell(place, names, config.ops))

    def shared_cells(self) -> list[SharedCell]:
        """From the images to the head."""
        return [cell for cell in self.cells if isinstance(cell, SharedCell)]

    def path(self, graph: ArchGraph) -> list[Wiring]:
        """The wiring of each cell."""
        return [cell.wire(graph.cell(cell.place.role)) for cell in self.shared_cells()]

    def forward(self, images: Tensor, graph: ArchGraph) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``; in training with an auxiliary head, a pair of logits.

        Only the operations of `graph` are computed, and only their parameters get a gradient.
        """
        return self._run(images, self.path(graph))

    def used_parameters(self, graph: ArchGraph) -> dict[str, nn.Parameter]:
        """By name, those that get a gradient in a training step of `graph`: none that only a `zero` edge reads."""
        prefixes = ["classifier", *(["auxiliary"] if self.auxiliary is not None else [])]
        wanted = {self.num_cells - 1, *([self.auxiliary_at] if self.auxiliary is not None else [])}
        blocks: dict[str, nn.Parameter] = {}
        for index in reversed(range(self.num_cells)):
            if index not in wanted:
                continue
            cell, where = self.shared_cells()[index], f"cells.{index}"
            graph_cell = graph.cell(cell.place.role)
            live = _live_states(graph_cell)
            wanted |= {index - 2 + state for state in live if state < CELL_INPUTS}
            prefixes += [f"{where}.norm", *(f"{where}.calibrators.{state}" for state in live if state < CELL_INPUTS)]
            prefixes += [f"{where}.reducers.{state}" for state in graph_cell.output if str(state) in cell.reducers]
            prefixes += [f"{where}.{name}" for name in _edge_names(graph_cell) if _node_of(name) in live]
            blocks |= {f"{where}.blocks.{state}": cell.blocks[state] for state in graph_cell.output}
        prefixes += ["stem"] if min(wanted) < 0 else []
        modules = {prefix: self.get_submodule(prefix) for prefix in sorted(prefixes)}
        named = {f"{at}.{name}": value for at, module in modules.items() for name, value in module.named_parameters()}
        return named | blocks

    def derive(self, graph: ArchGraph) -> ImageStack:
        """A stand-alone network of the supernet's layout with copies of a genotype's weights and statistics."""
        like = self.classifier.weight
        derived = ImageStack(graph, replace(self.config, layout="supernet")).to(like.device, like.dtype)
        shared = self.state_dict()
        state: dict[str, Tensor] = {}
        names = {name: name for name in derived.state_dict()}
        for index, cell in enumerate(self.shared_cells()):
            where, graph_cell = f"cells.{index}", graph.cell(cell.place.role)
            for name, source in zip(_edge_places(graph_cell), _edge_names(graph_cell), strict=True):
                prefix = f"{where}.{name}."
                names |= {n: f"{where}.{source}.{n.removeprefix(prefix)}" for n in names if n.startswith(prefix)}
            prefix = f"{where}.projection.norm."
            names |= {n: f"{where}.norm.{n.removeprefix(prefix)}" for n in names if n.startswith(prefix)}
            state[f"{where}.projection.conv.weight"] = cell.projection(graph_cell.output).detach()
        derived.load_state_dict({n: state[n] if n in state else shared[source] for n, source in names.items()})
        return derived.train(self.training)


def _edge_places(graph: CellGraph) -> list[str]:
    """Of each edge, its module in a derived cell."""
    return [f"nodes.{node}.{index}" for node, edges in enumerate(graph.nodes) for index in range(len(edges))]


def _edge_names(graph: CellGraph) -> list[str]:
    """Of each edge, its module in a shared cell."""
    edges = [edge for node in graph.nodes for edge in node]
    return [f"{place}.{edge.source}.{edge.op}" for place, edge in zip(_edge_places(graph), edges, strict=True)]


def _node_of(name: str) -> int:
    """The state that an edge's module adds to."""
    return CELL_INPUTS + int(name.split(".")[1])


def _live_states(graph: CellGraph) -> set[int]:
    """States that reach the cell's output."""
    live = set(graph.output)
    for node in reversed(range(len(graph.nodes))):
        if graph.inputs + node in live:
            live |= {edge.source for edge in graph.nodes[node] if edge.op != "zero"}
    return live


def build(
    space: SearchSpace[Any],
    *,
    network: str = "cifar10",
    cells_per_stage: int = 3,
    channels: int = 20,
    num_classes: int | None = None,
    auxiliary: bool = False,
    in_channels: int | None = None,
    image_size: int | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    drop_path_identity: bool = True,
) -> Supernet:
    """A supernet with fresh weights, drawn from torch's global generator (`rng.torch_seeded`).

    Args:
        space: `nao_cnn_small`, `nao_cnn_middle`, or another space of NAO's pairs of cells.
        network: `cifar10`, `cifar100`, `imagenet` or `small`; gives the stem, the classes and the input channels.
        cells_per_stage: N >= 1.
        channels: F >= 2, even.
        num_classes: >= 1.
        auxiliary: with the auxiliary head after the second reduction, active in training mode.
        in_channels: of the images.
        image_size: smallest side of the images, in pixels; checked only, the network takes any.
        dropout: probability of dropping a pooled feature, in [0, 1).
        drop_path: probability of dropping an edge of the last cell at the last step, in [0, 1).
        drop_path_identity: drop identity edges too, as the official supernet does.

    Raises:
        ConfigError: the space has no supernet, an unknown network, or a value out of range.
    """
    if not isinstance(space, CnnCellSpace) or space.skeleton != "nao":
        raise ConfigError(f"space {space.name} has no shared supernet; only spaces of NAO's pairs of cells do")
    defaults = network_defaults(network)
    config = StackConfig(
        stem=defaults.stem,
        cells_per_stage=cells_per_stage,
        channels=channels,
        num_classes=defaults.num_classes if num_classes is None else num_classes,
        in_channels=defaults.in_channels if in_channels is None else in_channels,
        auxiliary=auxiliary,
        dropout=dropout,
        drop_path=drop_path,
        drop_path_identity=drop_path_identity,
        layout="supernet",
    )
    check(config, network, defaults.image_size if image_size is None else image_size)
    if channels % 2:
        raise ConfigError(f"supernet: channels must be even, since reductions halve them; got {channels}")
    return Supernet(space.ops, config)


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, but batch norm by the statistics of the batch; the running ones are neither read nor written.

    How one-shot scores are taken: running statistics of shared weights mix the paths they were sampled in.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    training = network.training
    network.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        network.train(training)
