"""Pictures of the cells of an arch graph, as SVG.

As papers draw them: inputs on the left, numbered nodes, an arrow per edge with its operation on it, and lines from the
states that are concatenated (of a recurrent cell averaged) to the output on the right. A picture is one self-contained
SVG: no scripts, no outside fonts or files. It brings its own light and dark colours and its own background, so it reads
well in a page, in a README and in a viewer that knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nao_ray.report.labels import Names, cell_text, is_chain, is_recurrent, role_label, state_label
from nao_ray.report.pictures.chain import draw_chain
from nao_ray.report.pictures.drawing import Drawing, Line, Wording, label, lines, state_box
from nao_ray.report.pictures.layout import NODE, Item, Layout, Route, lay_out
from nao_ray.report.pictures.style import STYLE, printable, text_width
from nao_ray.spaces.base import ArchGraph, Cell, Edge

MARGIN = 22.0
TITLE_HEIGHT = 34.0
OUTPUT = "c_{k}"
RECURRENT_INPUTS, RECURRENT_OUTPUT = ("x_{t}", "h_{t-1}"), "h_{t}"
_NONE = ("zero", "none")
"""Operations that carry nothing: their edges are dashed."""


def draw_cells(graph: ArchGraph, title: str = "", names: Names | None = None) -> str:
    """All cells of an architecture, one above the other, as SVG text.

    Args:
        graph: what is drawn.
        title: what the picture is called; it is not shown.
        names: what the space calls its operations (`SearchSpace.op_names`).
    """
    wording = Wording(names or {})
    drawings = [draw_cell(role, cell, wording) for role, cell in graph.cells]
    width = max(drawing.width for drawing in drawings)
    parts, y = [], 0.0
    for drawing in drawings:
        parts.append(f'<g transform="translate(0 {y:.1f})">{drawing.body}</g>')
        y += drawing.height
    told = "\n\n".join(f"{role_label(role)}\n{cell_text(cell, names)}" for role, cell in graph.cells)
    return frame("".join(parts), width, y, title or "cells of an architecture", told)


def frame(body: str, width: float, height: float, title: str, told: str) -> str:
    """The SVG around what is drawn; `told`: what it shows, in words."""
    name = printable(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{name}"><title>{name}</title><desc>{printable(told)}'
        f'</desc><style>{STYLE}</style><rect class="nr-ground" width="{width:.0f}" height="{height:.0f}" rx="10"/>'
        f"{body}</svg>\n"
    )


def draw_cell(role: str, cell: Cell, wording: Wording) -> Drawing:
    """One cell under its name."""
    drawn = (draw_chain if is_chain(cell) else _draw_layers)(role, cell, wording)
    name = f'<text class="nr-text nr-title" x="{MARGIN}" y="{MARGIN + 14}">{printable(role_label(role))}</text>'
    body = f'{name}<g transform="translate({MARGIN} {MARGIN + TITLE_HEIGHT})">{drawn.body}</g>'
    width = max(drawn.width, text_width(role_label(role)) * 14 / 12)
    return Drawing(body, width + 2 * MARGIN, drawn.height + 2 * MARGIN + TITLE_HEIGHT)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A cell as it is drawn: of a recurrent one also what its state 0 is made of."""

    role: str
    cell: Cell
    shift: int = 0
    """States that are drawn before the cell's own."""

    @classmethod
    def of(cls, role: str, cell: Cell) -> _Drawn:
        if not is_recurrent(cell):
            return cls(role, cell)
        inputs = len(RECURRENT_INPUTS)
        first = tuple(Edge(source, "") for source in range(inputs))
        nodes = tuple(tuple(replace(edge, source=edge.source + inputs) for edge in node) for node in cell.nodes)
        return cls(role, Cell(inputs, (first, *nodes), tuple(state + inputs for state in cell.output)), inputs)

    def name(self, state: int) -> str:
        """What its box says."""
        if self.is_output(state):
            return RECURRENT_OUTPUT if self.shift else OUTPUT
        if self.shift:
            return RECURRENT_INPUTS[state] if state < self.shift else str(state - self.shift)
        return state_label(self.cell, state)

    def kind(self, state: int) -> str:
        """Of its box."""
        return "out" if self.is_output(state) else "in" if state < self.cell.inputs else "node"

    def is_output(self, state: int) -> bool:
        return state == self.cell.inputs + len(self.cell.nodes)

    def edge(self, state: int, index: int | None, source: int) -> str:
        """Its name in the picture, which counts the cell's own states."""
        return (
            f"{self.role}:out:{source - self.shift}" if index is None else f"{self.role}:{state - self.shift}:{index}"
        )

    def op(self, edge: tuple[int, int]) -> Edge:
        state, index = edge
        return self.cell.nodes[state - self.cell.inputs][index]


def _draw_layers(role: str, cell: Cell, wording: Wording) -> Drawing:
    drawn = _Drawn.of(role, cell)
    layout = lay_out(drawn.cell)
    spans = _spans(drawn, layout, wording)
    found: dict[int, list[Line]] = {}
    for route in layout.routes:
        found.setdefault(route.source, []).append(_line(drawn, route, spans))
    body = [lines(leaving) for leaving in found.values()]
    for item in (item for layer in layout.layers for item in layer):
        x, right = spans[item.layer]
        if item.edge is not None and drawn.op(item.edge).op:
            (state, index), edge = item.edge, drawn.op(item.edge)
            way = f"{drawn.name(edge.source)} \N{RIGHTWARDS ARROW} {drawn.name(state)}"
            body.append(label(wording, edge.op, drawn.edge(state, index, edge.source), way, x, item.y, right - x))
        elif item.state is not None:
            name, kind = drawn.name(item.state), drawn.kind(item.state)
            body.append(state_box(name, kind, x, item.y, right - x, item.height))
    return Drawing("".join(body), spans[-1][1], layout.height)


def _spans(drawn: _Drawn, layout: Layout, wording: Wording) -> list[tuple[float, float]]:
    """Left and right edge of each layer: the further its lines climb, the further from the one before."""
    found: list[tuple[float, float]] = []
    x = 0.0
    for layer in layout.layers:
        climb = max((abs(item.y - source.y) for item in layer for source in item.inputs), default=0.0)
        x += min(34 + 0.22 * climb, 74) if found else 0.0
        width = max((_width(drawn, item, wording) for item in layer), default=0.0)
        found.append((x, x + width))
        x += width
    return found


def _width(drawn: _Drawn, item: Item, wording: Wording) -> float:
    if item.edge is not None:
        op = drawn.op(item.edge).op
        return wording.width(op) if op else 0.0
    if item.state is None:
        return 0.0
    return max(NODE, text_width(drawn.name(item.state).replace("_", "").strip("{}")) * 0.8 + 16)


def _line(drawn: _Drawn, route: Route, spans: Sequence[tuple[float, float]]) -> Line:
    """Through the waypoints and under the label."""
    path, y, end = "", 0.0, 0.0
    for before, after in pairwise(route.items):
        start, y0 = spans[before.layer][1], before.y
        end, y = spans[after.layer][0], after.y if after.state is None else after.port(before)
        middle = (start + end) / 2
        path += f"{'H' if path else 'M'}{start:.1f}{'' if path else f' {y0:.1f}'}"
        path += f"C{middle:.1f} {y0:.1f} {middle:.1f} {y:.1f} {end:.1f} {y:.1f}"
    name = drawn.edge(route.target, route.index, route.source)
    is_none = route.index is not None and drawn.op((route.target, route.index)).op in _NONE
    return Line(name, path, (end, y), is_none=is_none)
