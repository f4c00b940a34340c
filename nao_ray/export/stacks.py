"""The code of networks of normal and reduction cells, and of those of NAS-Bench-201: stem, cells, head."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from nao_ray.export.cells import Code, make, no_source, write_nodes
from nao_ray.export.writing import Written, call, constructor, docstring, edge_name, indented
from nao_ray.networks import darts, enas_micro, stacks
from nao_ray.networks.cells import Cell
from nao_ray.networks.cells_201 import CellStack, SummingCell
from nao_ray.networks.darts import DartsCell
from nao_ray.networks.enas_micro import MicroCell
from nao_ray.networks.nao_tf import TfCell, TfStack
from nao_ray.networks.stacks import ImageStack, Stack, StackConfig

_HEADS: dict[type[nn.Module], str] = {
    stacks.AuxiliaryHead: "AuxiliaryHead",
    darts.ImagenetAuxiliaryHead: "ImagenetAuxiliaryHead",
    enas_micro.MicroAuxiliaryHead: "MicroAuxiliaryHead",
}
_STEMS: dict[type[nn.Module], tuple[str, str]] = {
    stacks.CifarStem: ("CifarStem", "3 * channels"),
    stacks.ImagenetStem: ("ImagenetStem", "channels"),
}
"""The piece, and how many channels come out of it."""
_PREPROCESS = {
    Cell: ("adapted(before, channels)", "adapted(last, channels)"),
    DartsCell: ("ReLUConvBN(before, channels)", "ReLUConvBN(last, channels)"),
    MicroCell: ("adapted(before, channels)", "InputBase(last, channels)"),
    TfCell: ("adapted(before, channels)", "ReLUConvBN(last, channels)"),
}
"""By the kind of a cell, what its inputs go through where no reduction cell stands between them."""

Renaming = tuple[str, str | Callable[[re.Match[str]], str]]

_CALL = "(self, s0: Tensor, s1: Tensor, share: float) -> Tensor", "(self, s0: Tensor, s1: Tensor) -> Tensor"


def drops_of(config: StackConfig) -> str:
    """Which edges drop path drops, as `write_nodes` wants it."""
    if not config.drop_path:
        return ""
    return "all" if config.drop_path_identity else "compute"


def written(classes: Sequence[str], code: Code, network: Stack, image: tuple[int, int], *names: Renaming) -> Written:
    """A network for images of so many rows and columns; `names`: patterns of our tensors' names, and what is put there.

    The operations of edges, ``nodes.I.J``, are named by `edge_name`.
    """
    config = network.config
    shape = f"{config.in_channels}, {image[0]}, {image[1]}"
    inputs = 1 if isinstance(network, CellStack) else 2

    def rename(name: str) -> str:
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        return re.sub(r"\bnodes\.(\d+)\.(\d+)\b", lambda at: edge_name(int(at[1]) + inputs, int(at[2])), name)

    return Written(
        list(classes),
        code.pieces,
        f"logits = network(images)  # [B, {shape}] -> [B, {config.num_classes}]",
        f"torch.randn(2, {shape})",
        rename,
    )


# -- normal and reduction cells -------------------------------------------------------------------------------


def write_stack(network: ImageStack, image: tuple[int, int]) -> Written:
    """A network of normal and reduction cells.

    Raises:
        ConfigError: it has a part that no code is known for.
    """
    cells = [cell for cell in network.cells if isinstance(cell, Cell)]
    kind = type(cells[0])
    if kind not in _PREPROCESS or network.project or len(network.halvings):
        raise no_source(f"a network of {kind.__qualname__}s in a {type(network).__qualname__}")
    by_name = {_name(cell): cell for cell in reversed(cells)}
    code = Code()
    classes = [_base_cell(code, kind)]
    classes += [_cell(code, name, by_name[name], drops_of(network.config)) for name in sorted(by_name)]
    classes.append(_network(code, network, sorted(by_name)))
    names = ((r"\bcalibrators\.(\d)\b", r"preprocess\1"), (r"\breducers\.(\d)\b", r"reduce\1"))
    return written(classes, code, network, image, *names)


def _name(cell: Cell) -> str:
    """Of its class: the first of TensorFlow's cells reads the stem's output as wide as it is."""
    return "FirstCell" if isinstance(cell, TfCell) and cell.place.first else f"{cell.place.role.title()}Cell"


def _base_cell(code: Code, kind: type[Cell]) -> str:
    before, last = _PREPROCESS[kind]
    code.pieces |= {"ReLUFactorizedReduce", before.partition("(")[0], last.partition("(")[0]}
    return f'''class Cell(nn.Module):
    """What both kinds of cell begin with: two inputs, brought to `channels` channels and to one size.

    The inputs have `before` and `last` channels; `halve`: the first is twice as large, a reduction stands between.
    """

    def __init__(self, before: int, last: int, channels: int, halve: bool) -> None:
        super().__init__()
        self.preprocess0 = ReLUFactorizedReduce(before, channels) if halve else {before}
        self.preprocess1 = {last}'''


def _cell(code: Code, name: str, cell: Cell, drops: str) -> str:
    of_cell = Code(code.pieces)
    graph, wide = cell.wiring.graph, {}
    if name == "FirstCell":
        wide = {0: "before"}
        of_cell.init.append("self.preprocess0 = nn.Identity()  # the first input stays as wide as it is")
    write_nodes(of_cell, graph, [list(node.children()) for node in cell.nodes.children()], drops, wide)
    loose = []
    for state in graph.output:
        term = f"s{state}"
        if term[1:] in cell.reducers:
            of_cell.init.append(
                f"self.reduce{state} = {make(of_cell, cell.reducers[term[1:]], in_channels=wide.get(state))}"
            )
            term = f"self.reduce{state}({term})"
        loose.append(term)
    of_cell.init.append(f"self.out_channels = {len(loose)} * channels")
    told = "halves the map" if cell.place.reduction else "keeps the size of the map"
    shown = ", ".join(f"s{state}" for state in graph.output)
    lines = [
        f"class {name}(Cell):",
        f'    """A cell that {told}; its output is {shown}, side by side."""',
        "",
        "    def __init__(self, before: int, last: int, channels: int, halve: bool) -> None:",
        "        super().__init__(before, last, channels, halve)",
        *indented(of_cell.init),
        "",
        f"    def forward{_CALL[not drops]}:",
        "        s0, s1 = self.preprocess0(s0), self.preprocess1(s1)",
        *indented(of_cell.forward),
        *indented(call("return torch.cat([", loose, "], dim=1)")),
    ]
    return "\n".join(lines)


_MADE = {
    1: ["cell = {}(before, last, channels, halve)"],
    2: ["cell = (ReductionCell if reduction else NormalCell)(before, last, channels, halve)"],
    3: [
        "kind = FirstCell if index == 0 else ReductionCell if reduction else NormalCell",
        "cell = kind(before, last, channels, halve)",
    ],
}
"""By the number of kinds of cells, how one is made."""


def _network(code: Code, network: ImageStack, names: Sequence[str]) -> str:
    config, auxiliary = network.config, network.auxiliary is not None
    stem, width = _STEMS[type(network.stem)]
    code.pieces.add(stem)
    share = _share(config, "self.cells")
    delay = f" + {network.auxiliary_delay}" if network.auxiliary_delay else ""
    init = [
        f"self.stem = {stem}(in_channels, {width})",
        "self.cells = nn.ModuleList()",
        f"before = last = {width}",
        f"halve = {network.stem.shrinks}",
        "for index in range(layers):",
        "    reduction = index in (layers // 3, 2 * layers // 3)",
        "    channels = 2 * channels if reduction else channels",
        *indented((line.format(names[0]) for line in _MADE[len(names)]), 1),
        "    self.cells.append(cell)",
        "    before, last, halve = last, cell.out_channels, reduction",
    ]
    if network.auxiliary is not None:
        name = _HEADS[type(network.auxiliary)]
        code.pieces.add(name)
        init += [
            f"self.auxiliary_at = 2 * layers // 3{delay}",
            f"self.auxiliary = {name}(self.cells[self.auxiliary_at].out_channels, num_classes)",
        ]
    init += head_init(network, "last", bias=network.head_bias)
    cell = f"cell(s0, s1{', share' if share else ''})"
    forward = [
        "s0, s1 = self.stem(images)",
        "for index, cell in enumerate(self.cells):" if share or auxiliary else "for cell in self.cells:",
        *indented(share, 1),
        f"    s0, s1 = s1, {cell}",
    ]
    if auxiliary:
        forward += ["    if self.training and index == self.auxiliary_at:", "        auxiliary = self.auxiliary(s1)"]
    forward += head_forward(network, "s1")
    if auxiliary:
        forward += ["if self.training:", "    return logits, auxiliary"]
    forward.append("return logits")
    told = "`layers` cells between a stem and a head; two of them halve the map and double the channels."
    sizes = {"channels": config.channels, "layers": config.num_cells, **told_sizes(config)}
    more = ["In training it returns the auxiliary head's logits too, whose loss is added at a weight."] * auxiliary
    return "\n".join(
        [
            "class Network(nn.Module):",
            *indented(docstring(told, [*more, *told_of_drops(config)]), 1),
            "",
            *indented(constructor(**sizes), 1),
            "        super().__init__()",
            *indented(init),
            "",
            f"    def forward(self, images: Tensor) -> Tensor{' | tuple[Tensor, Tensor]' * auxiliary}:",
            *indented(forward),
        ]
    )


def told_sizes(config: StackConfig) -> dict[str, int]:
    """What every network for images is told."""
    return {"num_classes": config.num_classes, "in_channels": config.in_channels}


def told_of_drops(config: StackConfig) -> list[str]:
    """What `drop_path` is, for a docstring; nothing where nothing is dropped."""
    if not config.drop_path:
        return []
    if config.drop_path_schedule == "epoch":
        how = f"{config.drop_path:g} * e / epochs before epoch e = 0, 1, ..."
        return [f"`drop_path` is the share of edges dropped in training: set it to {how}"]
    how = f"{config.drop_path:g} * (t + 1) / steps before step t = 0, 1, ..."
    return [
        "`drop_path` is the share of edges dropped in training, in the last cell; in those before it is less.",
        f"Set it to {how}",
    ]


def _share(config: StackConfig, cells: str) -> list[str]:
    """Lines that say how many edges of a cell are dropped."""
    if not config.drop_path:
        return []
    depth = "" if config.drop_path_schedule == "epoch" else f" * (index + 1) / len({cells})"
    return [f"share = self.drop_path{depth} if self.training else 0.0"]


def head_init(network: Stack, width: str, *, bias: bool = True) -> list[str]:
    """The end of a network's constructor: what is dropped, the linear layer, how weights begin."""
    config = network.config
    lines = [f"self.classifier = nn.Linear({width}, num_classes{'' if bias else ', bias=False'})"]
    if config.dropout:
        lines.insert(0, f"self.dropout = nn.Dropout({config.dropout:g})")
    if config.drop_path:
        lines.append(f"self.drop_path = {config.drop_path:g}")
    drawn = "(parameter)"
    if isinstance(network, TfStack):
        drawn = '(parameter, mode="fan_out" if parameter.dim() == 4 else "fan_in")'
    if not isinstance(network, CellStack) and type(network).draw_weights in (Stack.draw_weights, TfStack.draw_weights):
        lines += [
            "for parameter in self.parameters():",
            "    if parameter.dim() >= 2:",
            f"        nn.init.kaiming_normal_{drawn}",
        ]
    return lines


def head_forward(network: Stack, state: str) -> list[str]:
    """The end of a network's call: `state` to logits."""
    rectified = f"F.relu({state})" if network.config.relu_before_head else state
    pooled = f"{rectified}.mean(dim=(2, 3))"
    return [f"logits = self.classifier({f'self.dropout({pooled})' if network.config.dropout else pooled})"]


# -- NAS-Bench-201 --------------------------------------------------------------------------------------------


_TOLD_201 = "Three stages of cells, between them residual blocks that halve the map and double the channels, a head."


def write_201(network: CellStack, image: tuple[int, int]) -> Written:
    """A network of NAS-Bench-201."""
    config = network.config
    drops, code = drops_of(config), Code({"ResidualBlock"})
    cell = next(cell for cell in network.modules() if isinstance(cell, SummingCell))
    graph = cell.wiring.graph
    write_nodes(code, graph, [list(node.children()) for node in cell.nodes.children()], drops)
    of_cell = [
        "class Cell(nn.Module):",
        f'    """One input s0; each node is the sum of its edges, and s{graph.output[0]} is the output."""',
        "",
        "    def __init__(self, channels: int) -> None:",
        "        super().__init__()",
        *indented(code.init),
        "",
        f"    def forward(self, s0: Tensor{', share: float' if drops else ''}) -> Tensor:",
        *indented(code.forward),
        f"        return s{graph.output[0]}",
    ]
    count = " * (index + 1) / (3 * len(self.stages[0]))" if config.drop_path_schedule != "epoch" else ""
    step = ["x = cell(x)"]
    before: list[str] = []
    if drops:
        before = ["index = 0"]
        step = [f"share = self.drop_path{count} if self.training else 0.0", "x = cell(x, share)", "index += 1"]
        if not count:
            before, step = [], step[:2]
    sizes = {"channels": config.channels, "cells_per_stage": config.cells_per_stage, **told_sizes(config)}
    of_network = [
        "class Network(nn.Module):",
        *indented(docstring(_TOLD_201, told_of_drops(config)), 1),
        "",
        *indented(constructor(**sizes), 1),
        "        super().__init__()",
        "        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)",
        "        self.stem_norm = nn.BatchNorm2d(channels)",
        "        self.blocks = nn.ModuleList(ResidualBlock(s * channels, 2 * s * channels) for s in (1, 2))",
        "        self.stages = nn.ModuleList(",
        "            nn.ModuleList(Cell(s * channels) for _ in range(cells_per_stage)) for s in (1, 2, 4)",
        "        )",
        "        self.norm = nn.BatchNorm2d(4 * channels)",
        *indented(head_init(network, "4 * channels")),
        "",
        "    def forward(self, images: Tensor) -> Tensor:",
        "        x = self.stem_norm(self.stem(images))",
        *indented(before),
        "        for number, stage in enumerate(self.stages):",
        "            if number > 0:",
        "                x = self.blocks[number - 1](x)",
        "            for cell in stage:",
        *indented(step, 4),
        "        x = F.relu(self.norm(x))",
        *indented(head_forward(network, "x")),
        "        return logits",
    ]
    return written(["\n".join(of_cell), "\n".join(of_network)], code, network, image)
