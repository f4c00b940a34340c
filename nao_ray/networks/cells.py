"""Cells of the image stack: two inputs calibrated to C channels, nodes that sum their edges, loose ends put together.

Reference: the PyTorch backbone of Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018,
arXiv 1808.07233.

Legend: `B` batch, `C` channels of a cell, `c` channels of an input, `H` `W` pixels, `E` edges of a cell.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.ops import ConvNorm, Identity, Operation, OpOptions, RectifiedReduce, Zero, build_op
from nao_ray.spaces.base import Cell as CellGraph


class State:
    """A tensor that several operations read, some of them rectified: rectified once, when first asked for."""

    __slots__ = ("_overwrite", "_rectified", "_value")

    def __init__(self, value: Tensor, *, overwrite: bool = False) -> None:
        """`overwrite`: nobody will read `value` itself, so it is rectified in place."""
        self._value = value
        self._overwrite = overwrite
        self._rectified: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The tensor itself."""
        assert not (self._overwrite and self._rectified is not None), "a state was read after it was rectified in place"
        return self._value

    @property
    def rectified(self) -> Tensor:
        """relu(value)."""
        if self._rectified is None:
            self._rectified = F.relu(self._value, inplace=self._overwrite)
        return self._rectified

    def draw(self, count: int, keep: float) -> tuple[Tensor, ...]:
        """`count` masks ``[B, 1, 1, 1]``, 1/keep with probability `keep` or 0, on the tensor's device, in its dtype."""
        shape = (count, self._value.shape[0], 1, 1, 1)
        return self._value.new_empty(shape).bernoulli_(keep).div_(keep).unbind()

    def read(self, op: Operation) -> Tensor:
        """What `op` makes of this state."""
        out: Tensor = op(self.rectified if op.rectified_input else self.value)
        return out


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the stack a cell stands."""

    role: str
    """`normal` or `reduction`."""
    inputs: tuple[int, int]
    """Channels c of the two inputs."""
    channels: int
    """C."""
    shrink: bool
    """Input 0 is twice as large as input 1."""
    strided: bool = True
    """A reduction cell's own edges reduce; False: its inputs have been reduced before."""

    @property
    def reduction(self) -> bool:
        """Whether edges from the cell's inputs have stride 2."""
        return self.role == "reduction" and self.strided

    def stride(self, source: int) -> int:
        """Of an edge from state `source`."""
        return 2 if self.reduction and source < 2 else 1


class Wiring:
    """A cell's graph and the operations of its edges: computes the nodes from the two calibrated inputs."""

    def __init__(self, graph: CellGraph, ops: Sequence[Sequence[Operation]]) -> None:
        self.graph = graph
        self._ops = ops
        reads = [pair for edges, mine in zip(graph.nodes, ops, strict=True) for pair in zip(edges, mine, strict=True)]
        raw = {*graph.output, *(edge.source for edge, op in reads if not op.rectified_input)}  # read as they are
        self.rectifies = [state not in raw for state in range(graph.inputs + len(ops))]
        """Per state, whether it is read through its ReLU only."""
        counts = Counter((edge.source, op.signature) for edge, op in reads)
        self._repeated = {key for key, times in counts.items() if key[1] is not None and times > 1}

    def compute(self, inputs: Sequence[State], keep: float, *, drop_identity: bool) -> list[State]:
        """All states, inputs first; `keep`: probability of keeping an edge."""
        states = list(inputs)
        results: dict[tuple[int, str | None], Tensor] = {}
        masks = self._masks(inputs[1], keep, drop_identity=drop_identity)
        for edges, ops, kept in zip(self.graph.nodes, self._ops, masks, strict=True):
            terms = [
                (*self._edge(states, edge.source, op, results), mask)
                for edge, op, mask in zip(edges, ops, kept, strict=True)
                if not isinstance(op, Zero)
            ]
            if not terms:
                terms = [(states[edges[0].source].read(ops[0]), True, None)]
            total, fresh = _sum(terms)
            states.append(State(total, overwrite=fresh and self.rectifies[len(states)]))
        return states

    def _edge(
        self, states: list[State], source: int, op: Operation, results: dict[tuple[int, str | None], Tensor]
    ) -> tuple[Tensor, bool]:
        """The output of an edge, and whether it is the caller's to write to.

        It is unless somebody else has it: no operation keeps its own output for the backward pass.
        """
        key = (source, op.signature)
        if key not in self._repeated:
            return states[source].read(op), not isinstance(op, Identity)
        if key not in results:
            results[key] = states[source].read(op)
        return results[key], False

    def _masks(self, like: State, keep: float, *, drop_identity: bool) -> list[list[Tensor | None]]:
        """Per node and edge, None or ``[B, 1, 1, 1]``: 1/keep for the samples that keep the edge, 0 for others."""
        if keep >= 1.0:
            return [[None] * len(edges) for edges in self.graph.nodes]
        masks = iter(like.draw(sum(map(len, self.graph.nodes)), keep))
        drawn = [[(edge.op, next(masks)) for edge in edges] for edges in self.graph.nodes]
        return [[None if op == "identity" and not drop_identity else mask for op, mask in node] for node in drawn]


def _sum(terms: list[tuple[Tensor, bool, Tensor | None]]) -> tuple[Tensor, bool]:
    """The sum of a node's (edge, may be written to, mask), and whether it may be written to."""
    (total, fresh, mask), *rest = sorted(terms, key=lambda term: not term[1])
    if mask is not None:
        total, fresh = total * mask, True
    for out, _, mask in rest:
        if mask is None:
            total = total.add_(out) if fresh else total + out
        else:
            total = total.addcmul_(out, mask) if fresh else total.addcmul(out, mask)
        fresh = True
    return total, fresh


class BaseCell(nn.Module):
    """What every cell of the image stack does around its nodes; a subclass says how the loose ends are joined."""

    out_channels: int
    reducers: nn.ModuleDict
    """By state id, of inputs that may be loose ends of a reduction cell."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.calibrators = nn.ModuleList(self.make_calibrators(place))

    @staticmethod
    def make_calibrators(place: Place) -> list[Operation]:
        """What brings both inputs to C channels and one size."""
        before, last = place.inputs
        first = RectifiedReduce(before, place.channels) if place.shrink else _calibrator(before, place.channels)
        return [first, _calibrator(last, place.channels)]

    def forward(
        self,
        inputs: tuple[State, State],
        wiring: Wiring,
        keep: float = 1.0,
        *,
        drop_identity: bool = False,
        overwrite: bool = False,
    ) -> State:
        """``[B, c, H, W]`` twice -> ``[B, out_channels, H', W']``.

        Args:
            inputs: the output of the cell before the previous one, and of the previous one.
            wiring: with operations of this cell.
            keep: probability of keeping an edge.
            drop_identity: identity edges may be dropped too.
            overwrite: the output is read through its ReLU only.
        """
        states = [self.calibrate(which, state, wiring) for which, state in enumerate(inputs)]
        return State(self.combine(states, wiring, keep, drop_identity=drop_identity), overwrite=overwrite)

    def rectifies(self, which: int, wiring: Wiring) -> bool:
        """Whether input `which` is read through its ReLU only."""
        return not isinstance(self.calibrators[which], Identity) or wiring.rectifies[which]

    def calibrate(self, which: int, state: State, wiring: Wiring) -> State:
        """Input `which`, ``[B, c, H', W']`` -> ``[B, C, H, W]``."""
        calibrator = self.calibrators[which]
        if isinstance(calibrator, Identity) or not isinstance(calibrator, Operation):
            return state
        return State(state.read(calibrator), overwrite=wiring.rectifies[which])

    def combine(
        self, inputs: Sequence[State], wiring: Wiring, keep: float = 1.0, *, drop_identity: bool = False
    ) -> Tensor:
        """Calibrated inputs ``[B, C, H, W]`` twice -> ``[B, out_channels, H', W']``."""
        states = wiring.compute(inputs, keep, drop_identity=drop_identity)
        reducers = {int(state): op for state, op in self.reducers.items() if isinstance(op, Operation)}
        loose = [states[i].read(reducers[i]) if i in reducers else states[i].value for i in wiring.graph.output]
        return self.join(loose, wiring.graph.output)

    @abstractmethod
    def join(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        """The cell's output; `which`: ids of the states `loose`, ``[B, C, H, W]`` each."""


class Cell(BaseCell):
    """The cell of one genotype.

    Args:
        graph: the cell's edges.
        place: where it stands.
        ops: deviations from the official operations.
        project: the loose ends pass ReLU, conv 1x1 to C channels, BN, as in the shared supernet; else they are
            the output as they are.
    """

    def __init__(self, graph: CellGraph, place: Place, ops: OpOptions, *, project: bool = False) -> None:
        super().__init__(place)
        channels = place.channels
        nodes = [[build_op(e.op, channels, place.stride(e.source), ops) for e in edges] for edges in graph.nodes]
        self.nodes = nn.ModuleList(map(nn.ModuleList, nodes))
        unused = [state for state in graph.output if state < graph.inputs] if place.reduction else []
        self.reducers = nn.ModuleDict({str(state): build_op("identity", channels, 2, ops) for state in unused})
        width = channels * len(graph.output)
        self.projection = ConvNorm(width, channels) if project else None
        self.out_channels = channels if project else width
        self.wiring = Wiring(graph, nodes)

    def join(self, loose: list[Tensor], which: tuple[int, ...]) -> Tensor:
        if self.projection is None:
            return torch.cat(loose, dim=1)
        out: Tensor = self.projection(rectified_concat(loose))
        return out


def rectified_concat(loose: list[Tensor]) -> Tensor:
    """``[B, C, H, W]`` each, side by side and rectified: ``[B, n C, H, W]``."""
    return F.relu(loose[0]) if len(loose) == 1 else F.relu(torch.cat(loose, dim=1), inplace=True)


def _calibrator(in_channels: int, channels: int) -> Operation:
    return Identity() if in_channels == channels else ConvNorm(in_channels, channels)
