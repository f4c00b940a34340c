"""Cells of the image stack: two inputs calibrated to C channels, nodes that sum their edges, loose ends put together.

Reference: the PyTorch backbone of Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018,
arXiv 1808.07233.

Legend: `B` batch, `C` channels of a cell, `c` channels of an input, `H` `W` pixels, `E` edges of a cell.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.eager import Eager, Masks, State
from nao_ray.networks.ops import ConvNorm, Identity, Operation, OpOptions, RectifiedReduce, Zero, build_op
from nao_ray.spaces.base import ArchGraph, Edge
from nao_ray.spaces.base import Cell as CellGraph


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
    first: bool = False
    """It reads the stem's outputs alone."""

    @property
    def reduction(self) -> bool:
        """Whether edges from the cell's inputs have stride 2."""
        return self.role == "reduction" and self.strided

    def stride(self, source: int) -> int:
        """Of an edge from state `source`."""
        return 2 if self.reduction and source < 2 else 1


T = TypeVar("T")
Join = Callable[[list[Tensor], tuple[int, ...]], Tensor]
"""Tensors of loose ends and the ids of their states -> a cell's output."""


class Computation(Protocol[T]):
    """How values are held and operations computed: at once (`eager.Eager`), or later and not twice (`one_shot`)."""

    def apply(self, op: Operation, state: T, *, repeated: bool = False) -> T:
        """What `op` makes of a state; `repeated`: another edge asks for the same."""
        ...

    def add(self, terms: Sequence[tuple[T, Tensor | None]], *, rectified: bool) -> T:
        """The sum of results, each times its mask; `rectified`: it is read through its ReLU only."""
        ...

    def join(self, function: Join, loose: list[T], which: tuple[int, ...]) -> T:
        """What `function` makes of the tensors of the states `which`."""
        ...

    def masks(self, ops: Sequence[Sequence[Operation]], like: T) -> Masks:
        """Those of the edges, whose operations are given, for a batch as large as a state."""
        ...


class Wiring:
    """A cell's graph and the operations of its edges: the one interpreter of such graphs."""

    def __init__(self, graph: CellGraph, ops: Sequence[Sequence[Operation]]) -> None:
        self.graph = graph
        self._ops = ops

    @cached_property
    def rectifies(self) -> list[bool]:
        """Per state, whether it is read through its ReLU only."""
        raw = {*self.graph.output, *(source for source, op in self._reads if not op.rectified_input)}
        return [state not in raw for state in range(self.graph.inputs + len(self._ops))]

    @cached_property
    def _repeated(self) -> set[tuple[int, str | None]]:
        """State and signature of what several edges compute alike."""
        counts = Counter((source, op.signature) for source, op in self._reads)
        return {key for key, times in counts.items() if key[1] is not None and times > 1}

    @cached_property
    def _reads(self) -> list[tuple[int, Operation]]:
        pairs = zip(self.graph.nodes, self._ops, strict=True)
        return [(edge.source, op) for edges, ops in pairs for edge, op in zip(edges, ops, strict=True)]

    def compute(self, how: Computation[T], inputs: Sequence[T]) -> list[T]:
        """All states, inputs first."""
        states = list(inputs)
        for edges, ops, masks in zip(self.graph.nodes, self._ops, how.masks(self._ops, states[-1]), strict=True):
            terms = [
                (how.apply(op, states[edge.source], repeated=(edge.source, op.signature) in self._repeated), mask)
                for edge, op, mask in zip(edges, ops, masks, strict=True)
                if not isinstance(op, Zero)
            ]
            if not terms:
                terms = [(how.apply(ops[0], states[edges[0].source]), None)]
            states.append(how.add(terms, rectified=self.rectifies[len(states)]))
        return states


KEPT_PATHS = 2000
"""Genotypes whose wiring is remembered."""


class Paths:
    """The wiring of each cell of shared weights by genotype, remembered: a training draws the same ones again."""

    def __init__(self, wire: Callable[[ArchGraph], list[Wiring]]) -> None:
        self._wire = wire
        self._kept: dict[ArchGraph, list[Wiring]] = {}

    def __getitem__(self, graph: ArchGraph) -> list[Wiring]:
        if graph not in self._kept:
            if len(self._kept) == KEPT_PATHS:
                self._kept.clear()
            self._kept[graph] = self._wire(graph)
        return self._kept[graph]


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
        keep: float | Tensor = 1.0,
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
        how = Eager(keep, drop_identity=drop_identity)
        return State(self.compute(how, inputs, wiring).value, overwrite=overwrite)

    def compute(self, how: Computation[T], inputs: tuple[T, T], wiring: Wiring) -> T:
        """Both inputs -> output, however that is computed."""
        states = [
            self._calibrate(how, which, state, rectified=wiring.rectifies[which]) for which, state in enumerate(inputs)
        ]
        states = wiring.compute(how, states)
        reducers = {int(state): op for state, op in self.reducers.items() if isinstance(op, Operation)}
        loose = [how.apply(reducers[i], states[i]) if i in reducers else states[i] for i in wiring.graph.output]
        return how.join(self.join, loose, wiring.graph.output)

    def _calibrate(self, how: Computation[T], which: int, state: T, *, rectified: bool) -> T:
        """Input `which`, ``[B, c, H', W']`` -> ``[B, C, H, W]``."""
        calibrator = self.calibrators[which]
        assert isinstance(calibrator, Operation)
        if isinstance(calibrator, Identity):
            return state
        return how.add([(how.apply(calibrator, state), None)], rectified=rectified)

    def rectifies(self, which: int, wiring: Wiring) -> bool:
        """Whether input `which` is read through its ReLU only."""
        return not isinstance(self.calibrators[which], Identity) or wiring.rectifies[which]

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
        nodes = [[self.make_op(edge, place, ops) for edge in edges] for edges in graph.nodes]
        self.nodes = nn.ModuleList(map(nn.ModuleList, nodes))
        unused = [state for state in graph.output if state < graph.inputs] if place.reduction else []
        self.reducers = nn.ModuleDict({str(state): build_op("identity", channels, 2, ops) for state in unused})
        width = channels * len(graph.output)
        self.projection = ConvNorm(width, channels) if project else None
        self.out_channels = channels if project else width
        self.wiring = Wiring(graph, nodes)

    @staticmethod
    def make_op(edge: Edge, place: Place, ops: OpOptions) -> Operation:
        """The operation of an edge."""
        return build_op(edge.op, place.channels, place.stride(edge.source), ops)

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
