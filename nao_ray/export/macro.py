"""The code of ENAS's macro networks: layer by layer, with what each skips from."""

from __future__ import annotations

from nao_ray.export.cells import Code, make
from nao_ray.export.stacks import drops_of, head_forward, head_init, told_of_drops, told_sizes, written
from nao_ray.export.writing import Written, call, constructor, docstring, indented
from nao_ray.networks.enas_macro import Layer, MacroStack

_REDUCES = "two reductions halve the maps and double the channels"
_JOINS = (
    "What that gives and the maps that the layer skips from, side by side, are brought back to `channels`; not in the",
    "first layer, whose `skips` are None.",
)


def write_macro(network: MacroStack, image: tuple[int, int]) -> Written:
    """A network of layers with skips.

    Raises:
        ConfigError: an operation has no code.
    """
    code = Code({"ReLUConvBN"})
    classes = [_layer(drops=bool(drops_of(network.config))), _network(code, network)]
    if network.config.drop_path:
        code.pieces.add("drop_path")
    names = (
        (r"^layers\.(\d+)\b", lambda at: f"layer{int(at[1]) + 1}"),
        (r"^reductions\.(\d+)\b", lambda at: f"reduce{int(at[1]) + 1}"),
    )
    return written(classes, code, network, image, *names)


def _layer(*, drops: bool) -> str:
    dropped = ["if skips:", "    x = drop_path(x, share)"] if drops else []
    share = ", share: float = 0.0" if drops else ""
    return "\n".join(
        [
            "class Layer(nn.Module):",
            *indented(docstring("ReLU, convolution 1x1, batch norm, ReLU, `operation`.", _JOINS), 1),
            "",
            "    def __init__(self, channels: int, operation: nn.Module, skips: int | None = 0) -> None:",
            "        super().__init__()",
            "        self.entry = ReLUConvBN(channels, channels)",
            "        self.operation = operation",
            "        self.join = None if skips is None else ReLUConvBN((skips + 1) * channels, channels)",
            "",
            f"    def forward(self, x: Tensor, *skips: Tensor{share}) -> Tensor:",
            "        x = self.operation(F.relu(self.entry(x)))",
            *indented(dropped),
            "        return x if self.join is None else self.join(torch.cat([*skips, x], dim=1))",
        ]
    )


def _network(code: Code, network: MacroStack) -> str:
    config, nodes = network.config, network.graph.cell("network").nodes
    reduced = network.reduced(network.graph)
    shares = bool(drops_of(config))
    per_layer = "" if config.drop_path_schedule == "epoch" else f" / {len(nodes)}"
    init, forward = [], ["s0 = self.stem_norm(self.stem(images))"]
    if shares:
        forward.append(f"share = self.drop_path{per_layer} if self.training else 0.0")
    for index, (layer, edges) in enumerate(zip(network.layers, nodes, strict=True)):
        assert isinstance(layer, Layer)
        skips = ", None" if layer.join is None else f", {len(edges) - 1}" if len(edges) > 1 else ""
        operation = make(code, layer.operation)
        init.append(f"self.layer{index + 1} = Layer(channels, {operation or 'nn.Identity()'}{skips})")
        given = [f"s{edge.source}" for edge in edges]
        if shares and len(edges) > 1:
            given.append(f"share={'' if config.drop_path_schedule == 'epoch' else f'{index + 1} * '}share")
        forward += call(f"s{index + 1} = self.layer{index + 1}(", given, ")")
        if index in reduced:
            code.pieces.add("FactorizedReduce")
            name = f"self.reduce{index + 1}"
            init += [
                f"{name} = nn.ModuleList(FactorizedReduce(channels, 2 * channels) for _ in range({index + 2}))",
                "channels = 2 * channels",
            ]
            forward += [f"s{at} = {name}[{at}](s{at})" for at in reduced[index]]
    return "\n".join(
        [
            "class Network(nn.Module):",
            *indented(
                docstring(f"{len(nodes)} layers between a stem and a head; {_REDUCES}.", told_of_drops(config)), 1
            ),
            "",
            *indented(constructor(channels=config.channels, **told_sizes(config)), 1),
            "        super().__init__()",
            "        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)",
            "        self.stem_norm = nn.BatchNorm2d(channels)",
            *indented(init),
            *indented(head_init(network, "channels", bias=False)),
            "",
            "    def forward(self, images: Tensor) -> Tensor:",
            *indented(forward),
            *indented(head_forward(network, f"s{len(nodes)}")),
            "        return logits",
        ]
    )
