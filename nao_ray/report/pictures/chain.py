"""The picture of a whole network of layers: a column of operations, skips as arcs beside it.

A network of 24 layers would be wider than any page from left to right; from top to bottom it is as wide as a phone.
"""

from __future__ import annotations

from nao_ray.report.labels import state_label
from nao_ray.report.pictures.drawing import Drawing, Line, Wording, label, lines, state_box
from nao_ray.report.pictures.layout import NODE
from nao_ray.spaces.base import Cell

STEP = 34.0
"""From layer to layer."""
BOX = 24.0
GAP = 12.0
NEAR, REACH = 16.0, 11.0
"""How far to the right an arc is drawn, and how much further for each layer that it passes."""


def draw_chain(role: str, cell: Cell, wording: Wording) -> Drawing:
    """The layers from top to bottom."""
    width = max(wording.width(node[0].op) for node in cell.nodes)
    left = NODE + GAP
    output = cell.inputs + len(cell.nodes)
    column = [_down(f"{role}:{state}:0", state, left + width / 2) for state in range(1, output)]
    arcs, widest = _arcs(role, cell, left + width)
    body = [*(lines(leaving) for leaving in arcs), lines(column)]
    if cell.output == (output - 1,):
        body.append(lines([_down(f"{role}:out:{output - 1}", output, left + width / 2)]))
    body.append(state_box(state_label(cell, 0), "in", left, _y(0), width, BOX))
    for state, node in enumerate(cell.nodes, cell.inputs):
        way = f"{state_label(cell, node[0].source)} \N{RIGHTWARDS ARROW} {state}"
        body.append(state_box(str(state), "node", 0, _y(state), NODE, BOX))
        body.append(label(wording, node[0].op, f"{role}:{state}:0", way, left, _y(state), width))
    body.append(state_box("output", "out", left, _y(output), width, BOX))
    return Drawing("".join(body), left + width + widest, _y(output) + BOX / 2)


def _y(state: int) -> float:
    return BOX / 2 + STEP * state


def _down(edge: str, state: int, x: float) -> Line:
    """From a layer to the next one."""
    y = _y(state) - BOX / 2
    return Line(edge, f"M{x:.1f} {_y(state - 1) + BOX / 2:.1f}V{y:.1f}", (x, y), "down")


def _arcs(role: str, cell: Cell, x: float) -> tuple[list[list[Line]], float]:
    """The skips by the layer they leave, and how far they reach."""
    output = cell.inputs + len(cell.nodes)
    ends = [
        (edge.source, state, f"{role}:{state}:{index}")
        for state, node in enumerate(cell.nodes, cell.inputs)
        for index, edge in enumerate(node)
        if index
    ]
    if cell.output != (output - 1,):
        ends += [(state, output, f"{role}:out:{state}") for state in cell.output]
    found: list[list[Line]] = [[] for _ in range(output)]
    widest = 0.0
    for source, target, edge in ends:
        reach = NEAR + REACH * (target - source)
        y0, y1 = _y(source) + 3, _y(target) - 3
        path = f"M{x:.1f} {y0:.1f}C{x + reach:.1f} {y0:.1f} {x + reach:.1f} {y1:.1f} {x:.1f} {y1:.1f}"
        title = f"skip: {state_label(cell, source)} \N{RIGHTWARDS ARROW} {target}"
        found[source].append(Line(edge, path, (x, y1), "left", title=title, arc=source))
        widest = max(widest, 0.75 * reach)
    return found, widest
