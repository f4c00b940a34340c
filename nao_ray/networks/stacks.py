"""The image stack: a stem, normal cells with two reduction cells between, a head and an auxiliary head.

Reference: the PyTorch backbone of Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018,
arXiv 1808.07233. Cell 0.. are counted over all L = 3N + 2 cells; cells N and 2N + 1 reduce, which are L // 3 and
2L // 3: so it is for any other L, of networks without stages of equal length.

Legend: `B` batch, `C` channels of a cell (F, 2F, 4F by stage), `c` channels of an input, `H` `W` pixels, `K` classes,
`L` cells.

Activations are channels-last whatever the input's layout: convolution and batch norm of CPUs and GPUs are fastest so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.errors import ConfigError
from nao_ray.networks.cells import BaseCell, Cell, Place, Wiring
from nao_ray.networks.eager import State
from nao_ray.networks.ops import FactorizedReduce, OpOptions, conv_norm
from nao_ray.networks.whole_batch import dropout
from nao_ray.spaces.base import ArchGraph

REDUCTIONS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """Size and habits of a stack; the defaults of the last five are those of the published networks."""

    stem: str
    """`cifar` or `imagenet`."""
    cells_per_stage: int = 0
    """N >= 1 normal cells before, between and after the reductions; 0: there are no such stages."""
    layers: int = 0
    """L >= 1; 0: as many as N says."""
    channels: int
    """F >= 1, channels of the first stage; even, since reductions halve them."""
    num_classes: int
    in_channels: int = 3
    auxiliary: bool = False
    dropout: float = 0.0
    """Probability of dropping a pooled feature, in [0, 1)."""
    drop_path: float = 0.0
    """Probability of dropping an edge where most are dropped, in [0, 1)."""
    drop_path_schedule: str = "cell_and_step"
    """See `Regularisation.drop_path_schedule`."""
    drop_path_identity: bool = False
    """Identity edges are dropped too (official code since 2020-03-16)."""
    relu_before_head: bool = False
    """Rectify before the global pool."""
    plain_separable: bool = False
    """Of ENAS's macro network: separable convolutions are ordinary ones."""
    reduce_last: bool = False
    """Of ENAS's micro supernet: a reduction cell reads the layer before it twice."""
    count_padding: bool = True
    """See `OpOptions`."""
    rectify_reduction: bool = False
    """See `OpOptions`."""

    @property
    def num_cells(self) -> int:
        """L."""
        return self.layers or 3 * self.cells_per_stage + REDUCTIONS

    @property
    def reductions(self) -> tuple[int, int]:
        """Indices of the cells that reduce; of fewer than two cells it is one."""
        return self.num_cells // 3, 2 * self.num_cells // 3

    @property
    def ops(self) -> OpOptions:
        """Of the cells' operations."""
        return OpOptions(count_padding=self.count_padding, rectify_reduction=self.rectify_reduction)


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
    """A network that repeats cells; see `skeletons.base.Skeleton.build`."""

    def __init__(self, config: StackConfig, num_cells: int) -> None:
        super().__init__()
        self.config = config
        self.num_cells = num_cells
        self._progress: float | Tensor = 1.0

    def set_step(self, step: int, total: int, per_epoch: int = 1) -> None:
        """Tell drop path that this is optimiser step `step` of 0..total-1; until told, it drops as at the end."""
        if not 0 <= step < total:
            raise ValueError(f"step {step} is not in 0..{total - 1}")
        by_epoch = self.config.drop_path_schedule == "epoch"
        progress = step // per_epoch * per_epoch / total if by_epoch else (step + 1) / total
        if isinstance(self._progress, Tensor):
            self._progress.fill_(progress)
        else:
            self._progress = progress

    def capturable(self) -> None:
        """From now on the progress is a tensor on the device of the weights, which `set_step` writes to in place.

        So a step that was recorded once drops as many paths as the step that it is replayed for.
        """
        self._progress = torch.full((), float(self._progress), device=next(self.parameters()).device)

    def keep_probability(self, cell: int) -> float | Tensor:
        """Probability that an edge of a cell is kept, in (0, 1].

        At step t of T it is 1 - (t+1)/T (l+1)/L drop_path for cell l; by the schedule `epoch` it is 1 - e/E drop_path
        for all cells, in epoch e of E. A tensor once the network is `capturable`, unless nothing is dropped at all.
        """
        if not self.config.drop_path:
            return 1.0
        depth = 1.0 if self.config.drop_path_schedule == "epoch" else (cell + 1) / self.num_cells
        return 1.0 - self._progress * depth * self.config.drop_path

    def draw_weights(self) -> None:
        """Convolutions and linear layers: He normal by fan in, gain sqrt 2; batch norms start at 1 and 0 already."""
        for parameter in self.parameters():
            if parameter.dim() >= 2 and not parameter.is_meta:  # of which there are no values, and drawing takes long
                nn.init.kaiming_normal_(parameter)


class BaseImageStack(Stack):
    """Stem, cells, heads; `make` builds a cell for its place; the class's variables are a stack's habits."""

    auxiliary_type: ClassVar[type[AuxiliaryHead]] = AuxiliaryHead
    auxiliary_delay: ClassVar[int] = 0
    """Cells between the second reduction and the one that the auxiliary head reads."""
    head_bias: ClassVar[bool] = True
    strided: ClassVar[bool] = True
    """Reduction cells reduce by their own edges; False: a factorized reduction before the cell, see `feed`."""

    def __init__(self, config: StackConfig, make: Callable[[Place], BaseCell]) -> None:
        super().__init__(config, config.num_cells)
        stem = ImagenetStem if config.stem == "imagenet" else CifarStem
        self.stem = stem(config.in_channels, config.channels)
        cells = self._make_cells(make)
        self.cells = nn.ModuleList(cells)
        middle = cells[self.auxiliary_at].out_channels
        self.auxiliary = self.auxiliary_type(middle, config.num_classes) if config.auxiliary else None
        self.classifier = nn.Linear(cells[-1].out_channels, config.num_classes, bias=self.head_bias)
        self.draw_weights()

    @property
    def auxiliary_at(self) -> int:
        """Index of the cell whose output the auxiliary head reads."""
        return self.config.reductions[1] + self.auxiliary_delay

    def role(self, index: int) -> str:
        """`normal` or `reduction`, of cell `index`."""
        return "reduction" if index in self.config.reductions else "normal"

    def _make_cells(self, make: Callable[[Place], BaseCell]) -> list[BaseCell]:
        channels, (before, last), shrink = self.config.channels, self.stem.out_channels, self.stem.shrinks
        self.halvings = nn.ModuleDict()
        cells: list[BaseCell] = []
        for index in range(self.num_cells):
            role = self.role(index)
            reduction = role == "reduction"
            channels *= 2 if reduction else 1
            if reduction and not self.strided:
                self.halvings[str(index)] = FactorizedReduce(last, channels)
                first = last if self.config.reduce_last else before
                cells.append(make(Place(role, (first, channels), channels, shrink=True, strided=False)))
                (before, last), shrink = (channels, cells[-1].out_channels), False
            else:
                cells.append(make(Place(role, (before, last), channels, shrink, first=index == 0)))
                (before, last), shrink = (last, cells[-1].out_channels), reduction
        return cells

    def feed(self, index: int, latest: tuple[T, T], halve: Callable[[int, T], T]) -> tuple[tuple[T, T], T]:
        """The two inputs of cell `index`, and input 0 of the cell after it.

        Args:
            index: of the cell.
            latest: what the cell would read in NAO's stack.
            halve: what halving `index` makes of input 1; both this cell and the next one read that instead.
        """
        before, last = latest
        if str(index) not in self.halvings:
            return latest, last
        halved = halve(index, last)
        return (last if self.config.reduce_last else before, halved), halved

    def overwrites(self, path: Sequence[Wiring]) -> list[bool]:
        """Per cell, whether its output is read through its ReLU only; the head and a halving read it as it is."""
        flags = []
        for index in range(self.num_cells):
            readers = zip(self._cells()[index + 1 : index + 3], path[index + 1 : index + 3], (1, 0), strict=False)
            raw = index + 1 == self.num_cells or str(index + 1) in self.halvings
            flags.append(not raw and all(c.rectifies(which, wiring) for c, wiring, which in readers))
        return flags

    def _cells(self) -> list[BaseCell]:
        return [cell for cell in self.cells if isinstance(cell, BaseCell)]

    def head(self, x: Tensor) -> Tensor:
        """``[B, c, H, W]`` -> logits ``[B, K]``."""
        x = F.relu(x) if self.config.relu_before_head else x
        logits: Tensor = self.classifier(dropout(x.mean(dim=(2, 3)), self.config.dropout, training=self.training))
        return logits

    def _run(self, images: Tensor, path: Sequence[Wiring]) -> Tensor | tuple[Tensor, Tensor]:
        """One wiring per cell -> logits; in training with an auxiliary head, a pair of logits."""
        states: tuple[State, State] = self.stem(channels_last(images))
        auxiliary: Tensor | None = None
        for index, (cell, wiring, overwrite) in enumerate(zip(self._cells(), path, self.overwrites(path), strict=True)):
            keep = self.keep_probability(index) if self.training else 1.0
            dropped = self.config.drop_path_identity
            inputs, before = self.feed(index, states, self._halve)
            states = (before, cell(inputs, wiring, keep, drop_identity=dropped, overwrite=overwrite))
            if self.training and self.auxiliary is not None and index == self.auxiliary_at:
                auxiliary = self.auxiliary(states[1].rectified)
        logits = self.head(states[1].value)
        return logits if auxiliary is None else (logits, auxiliary)

    def _halve(self, index: int, state: State) -> State:
        return State(self.halvings[str(index)](state.value))


class ImageStack(BaseImageStack):
    """The published stack of normal and reduction cells, for one genotype."""

    cell_type: ClassVar[type[Cell]] = Cell
    project: ClassVar[bool] = False
    """A cell's loose ends are projected to C channels, as in the shared supernet; else they are its output."""
    ops: ClassVar[OpOptions | None] = None
    """Of the cells' operations; None: as the config says."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        cells = dict(graph.cells)
        if set(cells) != {"normal", "reduction"} or any(cell.inputs != 2 for cell in cells.values()):
            raise ConfigError(
                f"a network repeats a normal and a reduction cell of two inputs, got cells {', '.join(cells)}"
            )
        super().__init__(
            config,
            lambda place: self.cell_type(cells[place.role], place, self.ops or config.ops, project=self.project),
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``; in training with an auxiliary head, a pair of logits."""
        return self._run(images, [cell.wiring for cell in self.cells if isinstance(cell, Cell)])


class SearchStack(ImageStack):
    """A network of one genotype in the layout of the shared supernet, see `networks/cell_supernet.py`."""

    project: ClassVar[bool] = True


def tensors_of(network: nn.Module, names: Iterable[str]) -> list[Tensor | None]:
    """Parameters and buffers by their names; of shared weights, `state_dict` would go through thousands of others."""
    places = [name.rpartition(".") for name in names]
    return [getattr(network.get_submodule(module), leaf) for module, _, leaf in places]


def channels_last(x: Tensor) -> Tensor:
    """The images in the layout that convolution and batch norm are fastest in."""
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] == 1:  # both layouts at once: say which
        x = x.contiguous().as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1))
    return x
