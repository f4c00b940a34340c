"""The code of a cell: what makes its operations, and its nodes as sums of them.

It follows the graph as `networks/cells.Wiring` does. A state is written ``s3``; the operations of its edges, in their
order, ``op3a``, ``op3b``; an identity has none, the state itself is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from nao_ray.errors import ConfigError
from nao_ray.export.writing import added, edge_name
from nao_ray.networks import enas_macro, enas_micro, nao_tf, ops
from nao_ray.spaces.base import Cell as CellGraph


@dataclass
class Code:
    """Lines of a class, and the pieces that they use."""

    pieces: set[str] = field(default_factory=set)
    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)


def make(code: Code, op: nn.Module, channels: str = "channels", in_channels: str | None = None) -> str | None:
    """The expression that makes an operation; None: it hands its input on.

    Args:
        code: is told of the piece.
        op: the operation.
        channels: what C is called there.
        in_channels: what c is called there; None: it is C.

    Raises:
        ConfigError: it is one that no piece is like, as one of the user's own.
    """
    maker = _MAKERS.get(type(op))
    if maker is None:
        raise no_source(f"operation {type(op).__module__}:{type(op).__qualname__}")
    made = maker(op, channels, in_channels or channels)
    code.pieces.update(_PIECE.findall(made or ""))
    return made


def no_source(what: str) -> ConfigError:
    """Of what no code is known for."""
    return ConfigError(f"{what} has no plain source: it can be exported with --format torch or onnx")


_PIECE = re.compile(r"(?<![\w.])([A-Z]\w*)\(")


def _of(conv_name: str, piece: str) -> Callable[[nn.Module, str, str], str]:
    """An operation of C channels, whose convolution `conv_name` says kernel and stride."""

    def maker(op: nn.Module, channels: str, _: str) -> str:
        conv = op.get_submodule(conv_name)
        assert isinstance(conv, nn.Conv2d)
        return f"{piece}({channels}, {conv.kernel_size[0]}{_stride(conv.stride[0])})"

    return maker


def _stride(stride: int) -> str:
    return "" if stride == 1 else f", stride={stride}"


def _conv_norm(op: nn.Module, channels: str, in_channels: str) -> str:
    assert isinstance(op, ops.ConvNorm)
    kernel, stride = op.conv.kernel_size[0], op.conv.stride[0]
    return f"ReLUConvBN({in_channels}, {channels}{'' if kernel == 1 else f', {kernel}'}{_stride(stride)})"


def _conv_pair(op: nn.Module, channels: str, _: str) -> str:
    assert isinstance(op, ops.ConvPair)
    piece = "ConvPairOneNorm" if op.norm_row is None else "ConvPair"
    return f"{piece}({channels}, {op.conv_row.kernel_size[1]}{_stride(op.conv_row.stride[1])})"


def _pair_from(op: nn.Module, channels: str, in_channels: str) -> str:
    assert isinstance(op, ops.ConvPair)
    return f"ConvPairFrom({in_channels}, {channels}, {op.conv_row.kernel_size[1]}{_stride(op.conv_row.stride[1])})"


def _narrowed(op: nn.Module, channels: str, in_channels: str) -> str:
    assert isinstance(op, nao_tf.NarrowedPool)
    return f"NarrowedPool({_pool(op.pool)}, {in_channels}, {channels})"


def _pool(op: nn.Module, *_: str) -> str:
    assert isinstance(op, ops.Pool)
    if op.kernel % 2 == 0:
        assert op.kernel == 2, op.kernel
        border = "" if op.count_padding else ', mode="replicate"'
        return f'Pool2x2("{op.kind}"{_stride(op.stride)}{border})'
    kind = "MaxPool2d" if op.kind == "max" else "AvgPool2d"
    counted = "" if op.kind == "max" or op.count_padding else ", count_include_pad=False"
    return f"nn.{kind}({op.kernel}, stride={op.stride}, padding={op.kernel // 2}{counted})"


_MAKERS: dict[type[nn.Module], Callable[[nn.Module, str, str], str | None]] = {
    ops.Identity: lambda *_: None,
    ops.ConvNorm: _conv_norm,
    ops.Conv: _conv_norm,
    ops.ConvPair: _conv_pair,
    ops.SepConv: _of("depthwise1", "SepConv"),
    ops.DilatedSepConv: _of("depthwise", "DilConv"),
    ops.FactorizedReduce: lambda _, channels, before: f"FactorizedReduce({before}, {channels})",
    ops.RectifiedReduce: lambda _, channels, before: f"ReLUFactorizedReduce({before}, {channels})",
    ops.Pool: _pool,
    nao_tf.IdentityConv: _conv_norm,
    nao_tf.TfConvPair: _pair_from,
    nao_tf.NarrowedPool: _narrowed,
    nao_tf.Projection: lambda _, channels, before: f"ConvBN({before}, {channels})",
    enas_macro.Separable: _of("depthwise", "SepConvOnce"),
    enas_micro.LayerBase: lambda _, channels, before: f"InputBase({before}, {channels})",
}


def write_nodes(
    code: Code,
    graph: CellGraph,
    nodes: Sequence[Sequence[nn.Module]],
    drops: str,
    wide: Mapping[int, str] | None = None,
) -> None:
    """The operations and the states of a cell's nodes.

    Args:
        code: gets the lines.
        graph: of the cell.
        nodes: its operations.
        drops: which edges drop path drops: ``""`` none, those that ``compute``, ``all``.
        wide: of states that have other than `channels` channels, what their number is called; None: there are none.

    Of a state that nothing reads the operations are made, whose weights there are, and not computed.
    """
    live = _live(graph, nodes)
    for state, (node, made) in enumerate(zip(graph.nodes, nodes, strict=True), graph.inputs):
        terms = []
        for number, (edge, op) in enumerate(zip(node, made, strict=True)):
            if isinstance(op, ops.Zero):
                continue
            expression, term = make(code, op, in_channels=(wide or {}).get(edge.source)), f"s{edge.source}"
            if expression is not None:
                name = f"self.{edge_name(state, number)}"
                code.init.append(f"{name} = {expression}")
                term = f"{name}({term})"
            if drops == "all" or (drops and not (isinstance(op, ops.Operation) and op.passes)):
                term = f"drop_path({term}, share)"
                code.pieces.add("drop_path")
            terms.append(term)
        if state in live:
            code.forward += added(f"s{state}", terms or [_zeros(node[0].source, made[0])])


def _live(graph: CellGraph, nodes: Sequence[Sequence[nn.Module]]) -> set[int]:
    """The states that the output is made of."""
    live: set[int] = set()
    todo = list(graph.output)
    while todo:
        state = todo.pop()
        if state in live:
            continue
        live.add(state)
        if state >= graph.inputs:
            edges, made = graph.nodes[state - graph.inputs], nodes[state - graph.inputs]
            read = [edge.source for edge, op in zip(edges, made, strict=True) if not isinstance(op, ops.Zero)]
            todo += read or [edges[0].source]  # of which zeros have the shape
    return live


def _zeros(source: int, op: nn.Module) -> str:
    assert isinstance(op, ops.Zero)
    halved = "" if op.stride == 1 else f"[:, :, ::{op.stride}, ::{op.stride}]"
    return f"torch.zeros_like(s{source}{halved})"
