"""The relaxed supernet of DARTS: every edge computes all operations and mixes them by the softmax of its alphas.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, in the layout of the
authors' code: L cells of which those at L/3 and 2L/3 reduce, four nodes that read all states before them, so 14 edges.
With 16 channels and 8 cells: 1,930,618 parameters and 300,255,744 multiply-adds for CIFAR-10.

The results of the plain form (`benchmarks/plain_darts.py`) in less time. A state is rectified once, and pooled once
with the pool's batch norm, which would be the same on every edge that reads it. The weight of an operation that ends in
a batch norm is that one's scale, so that no tensor is multiplied by it. `none` is not computed.

Partial channels: Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, "PC-DARTS", ICLR 2020, arXiv 1907.05737. The first P-th of a
state's channels is mixed, the others go on as they are, and both are shuffled; what an edge brings to a node is weighed
by the softmax of one more alpha over the node's edges. All of that is linear in these, so it is done once a node.

Legend: `B` batch, `C` channels of a cell, `c` channels of an input, `H` `W` pixels, `K` classes, `E` = 14 edges,
`O` = 8 operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import Place
from nao_ray.networks.darts import calibrators
from nao_ray.networks.eager import State
from nao_ray.networks.fast import weighted_sum
from nao_ray.networks.ops import Operation, OpOptions, Zero, build_op
from nao_ray.networks.stacks import CifarStem, channels_last

Alphas = Sequence[Tensor]
"""``[E, O]`` of each role's cell, in the order of the supernet's `roles`; before the softmax. ``[E, O + 1]``: the last
column is that of the edges."""

INPUTS, NODES = 2, 4


class RelaxedNodes(nn.Module):
    """Nodes that read all states before them, by all operations, mixed.

    Args:
        names: of the operations, O of them.
        inputs: states before the first node.
        nodes: how many.
        partial: P, of whose parts one is mixed.
    """

    def __init__(self, names: Sequence[str], *, inputs: int, nodes: int, partial: int = 1) -> None:
        super().__init__()
        self.names, self._inputs, self._nodes, self._partial = tuple(names), inputs, nodes, partial

    def weights(self, alpha: Tensor) -> Tensor:
        """``[E, O]`` or ``[E, O + 1]`` -> ``[E, O]``: of each edge of sum 1, or of all edges of a node together."""
        count = len(self.names)
        weights = alpha[:, :count].softmax(dim=-1)
        if alpha.shape[1] == count:
            return weights
        by_node = torch.split(alpha[:, count], [self._inputs + node for node in range(self._nodes)])
        return weights * torch.cat([edges.softmax(dim=0) for edges in by_node]).unsqueeze(1)

    def make_edges(self, channels: int, stride: Callable[[int], int], ops: OpOptions) -> None:
        """Their operations.

        Args:
            channels: C.
            stride: of an edge from a state.
            ops: what their names leave open.
        """
        channels //= self._partial
        self._strides = [stride(source) for source in range(self._inputs + self._nodes)]
        sources = [source for node in range(self._nodes) for source in range(self._inputs + node)]
        made = [[build_op(name, channels, stride(source), ops) for name in self.names] for source in sources]
        self.edges = nn.ModuleList(
            nn.ModuleDict({name: op for name, op in zip(self.names, edge, strict=True) if _is_own(op)}) for edge in made
        )
        alike = dict(zip(sources, made, strict=True))  # one without weights does for all
        self.shared = nn.ModuleList(
            nn.ModuleDict({name: op for name, op in zip(self.names, alike[source], strict=True) if _is_shared(op)})
            for source in sorted(alike)
        )

    def mix(self, inputs: Sequence[State], weights: Tensor) -> list[State]:
        """All states, inputs first; `weights`: ``[E, O]``, see `weights`."""
        states = list(inputs)
        rows = [dict(zip(self.names, row.unbind(), strict=True)) for row in weights.unbind()]
        parts: list[State] = []
        rests: list[Tensor] = []
        results: list[dict[str, Tensor]] = []
        edge = 0
        for _ in range(self._nodes):
            for index in range(len(parts), len(states)):
                self._split(index, states[index], parts, rests)
                results.append(self._shared(index, parts[index]))
            first = edge
            total: list[Tensor] = []
            mixed: list[tuple[Tensor, Tensor]] = []
            for state, known in zip(parts, results, strict=True):
                mixed += [(rows[edge][name], value) for name, value in known.items()]
                for name, module in _operations(self.edges[edge]):
                    total.append(module(state.rectified if module.rectified_input else state.value, rows[edge][name]))
                edge += 1
            if mixed:
                total.append(weighted_sum(*zip(*mixed, strict=True)))
            node = _added(total)
            if rests:
                rest = weighted_sum(weights[first:edge].sum(dim=1).unbind(), rests)
                node = _shuffled(torch.cat([node, rest], dim=1), self._partial)
            states.append(State(node))
        return states

    def _split(self, source: int, state: State, parts: list[State], rests: list[Tensor]) -> None:
        """Add what of a state is mixed, and what goes on as it is: where the others halve the map, its maxima."""
        if self._partial == 1:
            parts.append(state)
            return
        count = state.value.shape[1] // self._partial
        part, rest = (each.contiguous(memory_format=torch.channels_last) for each in _cut(state.value, count))
        parts.append(State(part))
        rests.append(F.max_pool2d(rest, 2, 2, ceil_mode=True) if self._strides[source] == 2 else rest)

    def _shared(self, source: int, state: State) -> dict[str, Tensor]:
        """What the operations without weights make of a state."""
        return {name: state.read(op) for name, op in _operations(self.shared[source])}


class RelaxedCell(RelaxedNodes):
    """DARTS' cell.

    Args:
        place: where it stands.
        names: of the operations, O of them.
        ops: what their names leave open.
        partial: as of `RelaxedNodes`.
    """

    def __init__(self, place: Place, names: Sequence[str], ops: OpOptions, partial: int = 1) -> None:
        super().__init__(names, inputs=INPUTS, nodes=NODES, partial=partial)
        self.place = place
        self.calibrators = nn.ModuleList(calibrators(place, affine=ops.affine))
        self.make_edges(place.channels, place.stride, ops)
        self.out_channels = NODES * place.channels

    def forward(self, before: State, last: State, weights: Tensor) -> State:
        """``[B, c, H, W]`` twice and ``[E, O]``, see `weights` -> ``[B, 4C, H', W']``."""
        pairs = zip((before, last), self.calibrators, strict=True)
        states = self.mix([State(state.read(_operation(op))) for state, op in pairs], weights)
        return State(torch.cat([state.value for state in states[INPUTS:]], dim=1))


def _cut(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return x[:, :count], x[:, count:]


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """``[B, C, H, W]``: the first channel of each group, then the second ones."""
    pixels = x.permute(0, 2, 3, 1)
    shape = pixels.shape
    return pixels.reshape(*shape[:3], groups, -1).transpose(3, 4).reshape(shape).permute(0, 3, 1, 2)


def _operation(module: nn.Module) -> Operation:
    assert isinstance(module, Operation)
    return module


def _operations(modules: nn.Module) -> list[tuple[str, Operation]]:
    return [(name, _operation(module)) for name, module in modules.named_children()]


def _is_own(op: Operation) -> bool:
    return any(True for _ in op.parameters())


def _is_shared(op: Operation) -> bool:
    return not _is_own(op) and not isinstance(op, Zero)


def _added(terms: Sequence[Tensor]) -> Tensor:
    """Their sum, in the first one: each is new, and neither batch norm nor a weighted sum keeps its output."""
    total, *rest = terms
    for term in rest:
        total = total.add_(term)
    return total


class RelaxedSupernet(nn.Module):
    """Called with images and alphas, which are not among its parameters.

    Args:
        names: operations of an edge, in the order of the columns of alpha.
        ops: what their names leave open.
        layers: L >= 1 cells.
        channels: C of the first cells, even.
        num_classes: K.
        in_channels: of the images.
        partial: P, of which one P-th of the channels is mixed; divides half of them.
    """

    roles = ("normal", "reduction")

    def __init__(
        self,
        names: Sequence[str],
        ops: OpOptions,
        *,
        layers: int = 8,
        channels: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        partial: int = 1,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.stem = CifarStem(in_channels, channels)
        inputs, shrink = self.stem.out_channels, False
        cells = []
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            role = "reduction" if reduction else "normal"
            cells.append(RelaxedCell(Place(role, inputs, channels, shrink), names, ops, partial))
            inputs, shrink = (inputs[1], cells[-1].out_channels), reduction
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(inputs[1], num_classes)

    def forward(self, images: Tensor, alphas: Alphas) -> Tensor:
        """``[B, in_channels, H, W]`` and ``[E, O]`` per role -> logits ``[B, K]``."""
        weights: dict[str, Tensor] = {}
        of_role = dict(zip(self.roles, alphas, strict=True))
        before, last = self.stem(channels_last(images))
        for cell in self.cells:
            assert isinstance(cell, RelaxedCell)
            role = cell.place.role
            if role not in weights:
                weights[role] = cell.weights(of_role[role])
            before, last = last, cell(before, last, weights[cell.place.role])
        logits: Tensor = self.classifier(last.value.mean(dim=(2, 3)))
        return logits
