"""The image stack: a stem, 3N normal cells with two reduction cells between, a head and an auxiliary head.

Reference: the PyTorch backbone of Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018,
arXiv 1808.07233. Cell 0.. are counted over all 3N + 2 cells; cells N and 2N + 1 reduce.

Legend: `B` batch, `C` channels of a cell (F, 2F, 4F by stage), `c` channels of an input, `H` `W` pixels, `K` classes,
`E` edges of a cell, `L` = 3N + 2 cells.

Activations are channels-last whatever the input's layout: convolution and batch norm of CPUs and GPUs are fastest so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.errors import ConfigError
from nao_ray.networks.ops import ConvNorm, Identity, Operation, OpOptions, RectifiedReduce, Zero, build_op, conv_norm
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.base import Cell as CellGraph

REDUCTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """Size and habits of a stack; the defaults of the last four are the official network's."""

    stem: str
    """`cifar` or `imagenet`."""
    cells_per_stage: int
    """N >= 1 normal cells before, between and after the reductions."""
    channels: int
    """F >= 1, channels of the first stage; even, since reductions halve them."""
    num_classes: int
    in_channels: int = 3
    auxiliary: bool = False
    dropout: float = 0.0
    """Probability of dropping a pooled feature, in [0, 1)."""
    drop_path: float = 0.0
    """Probability of dropping an edge of the last cell at the last step, in [0, 1)."""
    drop_path_identity: bool = False
    """Identity edges are dropped too (official code since 2020-03-16)."""
    relu_before_head: bool = False
    """Rectify before the global pool (the TensorFlow code does, the PyTorch code does not)."""
    plain_separable: bool = False
    """ENAS's macro network builds separable convolutions as ordinary ones (its code does)."""
    ops: OpOptions = field(default_factory=OpOptions)


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


class Cell(nn.Module):
    """One cell: calibrates its two inputs to C channels, computes the nodes, concatenates the outputs.

    Args:
        graph: the cell's edges.
        inputs: channels c of the two inputs.
        channels: C.
        reduction: edges from the cell's inputs have stride 2.
        shrink: input 0 is twice as large as input 1.
        ops: deviations from the official operations.
    """

    def __init__(
        self,
        graph: CellGraph,
        inputs: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        shrink: bool,
        ops: OpOptions,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.out_channels = channels * len(graph.output)
        self.overwrite_output = False  # set by the stack, which knows who reads the output
        self.calibrators = nn.ModuleList(self.make_calibrators(inputs, channels, shrink=shrink))
        stride = 2 if reduction else 1
        nodes = [
            [build_op(e.op, channels, stride if e.source < graph.inputs else 1, ops) for e in edges]
            for edges in graph.nodes
        ]
        self.nodes = nn.ModuleList(map(nn.ModuleList, nodes))
        unused = [state for state in graph.output if state < graph.inputs] if reduction else []
        self.reducers = nn.ModuleDict({str(state): build_op("identity", channels, 2, ops) for state in unused})
        reads = [pair for edges, ops in zip(graph.nodes, nodes, strict=True) for pair in zip(edges, ops, strict=True)]
        raw = {*graph.output, *(edge.source for edge, op in reads if not op.rectified_input)}  # read as they are
        self._overwrite = [state not in raw for state in range(graph.inputs + len(nodes))]
        counts = Counter((edge.source, op.signature) for edge, op in reads)
        self._repeated = {key for key, times in counts.items() if key[1] is not None and times > 1}

    @staticmethod
    def make_calibrators(inputs: tuple[int, int], channels: int, *, shrink: bool) -> list[Operation]:
        """What brings both inputs to C channels and one size."""
        first = RectifiedReduce(inputs[0], channels) if shrink else _calibrator(inputs[0], channels)
        return [first, _calibrator(inputs[1], channels)]

    def rectifies(self, which: int) -> bool:
        """Whether input `which` is read through its ReLU only."""
        calibrator = self.calibrators[which]
        return not isinstance(calibrator, Identity) or self._overwrite[which]

    def forward(self, inputs: tuple[State, State], keep: float = 1.0, *, drop_identity: bool = False) -> State:
        """``[B, c, H, W]`` twice -> ``[B, out_channels, H', W']``; `keep`: probability of keeping an edge."""
        states = [self._calibrate(which, state) for which, state in enumerate(inputs)]
        masks = self._masks(inputs[1], keep, drop_identity=drop_identity)
        results: dict[tuple[int, str | None], Tensor] = {}
        for edges, ops, kept in zip(self.graph.nodes, self._node_ops(), masks, strict=True):
            terms = [
                (*self._edge(states, edge.source, op, results), mask)
                for edge, op, mask in zip(edges, ops, kept, strict=True)
                if not isinstance(op, Zero)
            ]
            if not terms:
                terms = [(states[edges[0].source].read(ops[0]), True, None)]
            total, fresh = _sum(terms)
            states.append(State(total, overwrite=fresh and self._overwrite[len(states)]))
        reducers = {int(state): op for state, op in self.reducers.items() if isinstance(op, Operation)}
        outputs = [states[i].read(reducers[i]) if i in reducers else states[i].value for i in self.graph.output]
        return State(torch.cat(outputs, dim=1), overwrite=self.overwrite_output)

    def _node_ops(self) -> list[list[Operation]]:
        return [[op for op in ops.children() if isinstance(op, Operation)] for ops in self.nodes]

    def _calibrate(self, which: int, state: State) -> State:
        calibrator = self.calibrators[which]
        if isinstance(calibrator, Identity) or not isinstance(calibrator, Operation):
            return state
        return State(state.read(calibrator), overwrite=self._overwrite[which])

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


def _calibrator(in_channels: int, channels: int) -> Operation:
    return Identity() if in_channels == channels else ConvNorm(in_channels, channels)


class CifarStem(nn.Module):
    """Conv 3x3 to 3F channels, BN; both inputs of cell 0 are its output."""

    shrinks = False

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3 * channels)
        self.out_channels = (3 * channels, 3 * channels)

    def forward(self, x: Tensor) -> tuple[State, State]:
        state = State(conv_norm(self.conv, self.norm, x))
        return state, state


class ImagenetStem(nn.Module):
    """Three convs 3x3 of stride 2; cell 0 reads the second ``[B, F, H/4, W/4]`` and the third ``[B, F, H/8, W/8]``."""

    shrinks = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise ConfigError(f"the imagenet stem halves its {channels} channels; choose an even number of channels")
        self.conv0 = nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(channels // 2)
        self.conv1 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.out_channels = (channels, channels)

    def forward(self, x: Tensor) -> tuple[State, State]:
        x = conv_norm(self.conv0, self.norm0, x, relu=True)
        first = State(conv_norm(self.conv1, self.norm1, x))
        return first, State(conv_norm(self.conv2, self.norm2, first.rectified))


class AuxiliaryHead(nn.Module):
    """[ReLU] pool to 2x2, conv 1x1 to 128, BN, ReLU, conv 2x2 to 768, BN, ReLU, linear: ``[B, c, H, W]`` -> ``[B, K]``.

    The pool is 5x5 with stride 3 on an 8x8 map (CIFAR), stride 2 on a 7x7 map (ImageNet), adaptive on any other.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 128, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm2 = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_norm(self.conv1, self.norm1, self.pool(x), relu=True)
        x = conv_norm(self.conv2, self.norm2, x, relu=True)
        out: Tensor = self.classifier(x.flatten(1))
        return out

    @staticmethod
    def pool(x: Tensor) -> Tensor:
        """``[B, c, H, W]`` -> ``[B, c, 2, 2]``."""
        height, width = x.shape[-2:]
        stride = {(8, 8): 3, (7, 7): 2}.get((height, width))
        return F.adaptive_avg_pool2d(x, 2) if stride is None else F.avg_pool2d(x, 5, stride)


class Stack(nn.Module):
    """A stand-alone network of one genotype; see `networks.derived.build`."""

    def __init__(self, config: StackConfig, num_cells: int) -> None:
        super().__init__()
        self.config = config
        self.num_cells = num_cells
        self._progress = 1.0

    def set_step(self, step: int, total: int) -> None:
        """Tell drop path that this is optimiser step `step` of 0..total-1; until told, it drops as at the end."""
        if not 0 <= step < total:
            raise ValueError(f"step {step} is not in 0..{total - 1}")
        self._progress = (step + 1) / total

    def keep_probability(self, cell: int) -> float:
        """Probability that an edge of a cell is kept: 1 - (t+1)/T (l+1)/L drop_path, in (0, 1]."""
        return 1.0 - self._progress * (cell + 1) / self.num_cells * self.config.drop_path

    def draw_weights(self) -> None:
        """Convolutions and linear layers: He normal by fan in, gain sqrt 2; batch norms start at 1 and 0 already."""
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.kaiming_normal_(parameter)


class ImageStack(Stack):
    """The published stack of normal and reduction cells; a stack of other habits says so in the class's variables."""

    cell_type: ClassVar[type[Cell]] = Cell
    auxiliary_type: ClassVar[type[AuxiliaryHead]] = AuxiliaryHead
    auxiliary_delay: ClassVar[int] = 0
    """Cells between the second reduction and the one that the auxiliary head reads."""
    head_bias: ClassVar[bool] = True

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        super().__init__(config, num_cells=3 * config.cells_per_stage + REDUCTIONS)
        stem = ImagenetStem if config.stem == "imagenet" else CifarStem
        self.stem = stem(config.in_channels, config.channels)
        cells = self._make_cells(graph)
        self.cells = nn.ModuleList(cells)
        self._auxiliary_at = self._last_reduction + self.auxiliary_delay
        middle = cells[self._auxiliary_at].out_channels
        self.auxiliary = self.auxiliary_type(middle, config.num_classes) if config.auxiliary else None
        self.classifier = nn.Linear(cells[-1].out_channels, config.num_classes, bias=self.head_bias)
        self.draw_weights()

    @property
    def _last_reduction(self) -> int:
        return 2 * self.config.cells_per_stage + 1

    def _make_cells(self, graph: ArchGraph) -> list[Cell]:
        n, channels = self.config.cells_per_stage, self.config.channels
        inputs, shrink = self.stem.out_channels, self.stem.shrinks
        cells: list[Cell] = []
        for index in range(self.num_cells):
            reduction = index in (n, self._last_reduction)
            channels *= 2 if reduction else 1
            role = graph.cell("reduction" if reduction else "normal")
            cell = self.cell_type(role, inputs, channels, reduction=reduction, shrink=shrink, ops=self.config.ops)
            cells.append(cell)
            inputs, shrink = (inputs[1], cell.out_channels), reduction
        for index, cell in enumerate(cells):  # the last cell's output is read by the head, as it is
            readers = [c.rectifies(which) for c, which in zip(cells[index + 1 : index + 3], (1, 0), strict=False)]
            cell.overwrite_output = index + 1 < len(cells) and all(readers)
        return cells

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``; in training with an auxiliary head, a pair of logits."""
        states: tuple[State, State] = self.stem(channels_last(images))
        auxiliary: Tensor | None = None
        for index, cell in enumerate(self.cells):
            keep = self.keep_probability(index) if self.training else 1.0
            states = (states[1], cell(states, keep, drop_identity=self.config.drop_path_identity))
            if self.training and self.auxiliary is not None and index == self._auxiliary_at:
                auxiliary = self.auxiliary(states[1].rectified)
        x = states[1].rectified if self.config.relu_before_head else states[1].value
        x = F.dropout(x.mean(dim=(2, 3)), self.config.dropout, self.training)
        logits: Tensor = self.classifier(x)
        return logits if auxiliary is None else (logits, auxiliary)


def channels_last(x: Tensor) -> Tensor:
    """The images in the layout that convolution and batch norm are fastest in."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] == 1:  # both layouts at once: say which
        x = x.contiguous().as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1))
    return x
