"""Cells as pictures (SVG) and as text.

A picture is one self-contained SVG: no scripts, no outside fonts or files. It brings its own light and dark colours and
its own background, so it reads well in a page, in a README and in a viewer that knows neither.
"""

from __future__ import annotations

import re
from html import escape

from nao_ray.report.layout import BOX_PADDING, ROW_HEIGHT, Item, Layout, lay_out
from nao_ray.spaces.base import ArchGraph, Cell

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
CHARACTER_WIDTH = 7.4
"""Upper bound of a glyph's mean width at 12 px, in px: labels keep inside their boxes whatever font is found."""
BADGE_WIDTH = 26.0
LAYER_GAP = 64.0
MARGIN = 22.0
TITLE_HEIGHT = 34.0
INPUT_NAMES = ("c(k-2)", "c(k-1)")

_STYLE = """
.nr-text{font-family:FONT;font-size:12px;fill:#1c2430}.nr-op{font-weight:600}.nr-muted{fill:#5b6675}
.nr-title{font-size:14px;font-weight:600}.nr-ground{fill:#ffffff}.nr-box{fill:#eef1f5;stroke:#c3cad4}
.nr-end{fill:#1c2430}.nr-end-text{fill:#ffffff;font-weight:600}.nr-line{fill:none;stroke:#8390a2;stroke-width:1.6}
.nr-loose{stroke-dasharray:5 4}.nr-halo{fill:none;stroke:#ffffff;stroke-width:5}.nr-tip{fill:#8390a2}
.nr-conv{fill:#cfe0fb}.nr-sep{fill:#cdebd9}.nr-dil{fill:#e2d6f7}.nr-max{fill:#fbdcc4}.nr-avg{fill:#fbebb5}
.nr-id{fill:#dfe3e9}.nr-zero{fill:#f3cfd3}
@media (prefers-color-scheme:dark){.nr-text{fill:#e8ecf2}.nr-muted{fill:#9aa7b8}.nr-ground{fill:#161b22}
.nr-box{fill:#232b36;stroke:#3d4858}.nr-end{fill:#e8ecf2}.nr-end-text{fill:#161b22}.nr-line{stroke:#77869a}
.nr-halo{stroke:#161b22}.nr-tip{fill:#77869a}.nr-conv{fill:#27457a}.nr-sep{fill:#1f5a3c}.nr-dil{fill:#4b3580}
.nr-max{fill:#7a4218}.nr-avg{fill:#675312}.nr-id{fill:#414c5b}.nr-zero{fill:#78303a}}
""".replace("FONT", FONT)

_FAMILIES = (
    ("dil", "nr-dil"),
    ("sep", "nr-sep"),
    ("max", "nr-max"),
    ("avg", "nr-avg"),
    ("conv", "nr-conv"),
    ("zero", "nr-zero"),
    ("none", "nr-zero"),
)


def op_label(op: str) -> str:
    """An operation's name for people: `max_pool_3x3` -> `max pool 3 x 3` with a true multiplication sign.

    Of one of the user's own it is that of its class.
    """
    words = op.rpartition(":")[2].removesuffix("_padded").split("_")
    sizes = [word.replace("x", "\N{MULTIPLICATION SIGN}") for word in words if re.fullmatch(r"\d+x\d+", word)]
    names = [word for word in words if not re.fullmatch(r"\d+x\d+", word)]
    return " ".join([*names, *(["+".join(sizes)] if sizes else [])])


def state_label(cell: Cell, state: int) -> str:
    """A state's name for people: `c(k-2)`, `c(k-1)`, then the nodes' numbers."""
    if state < cell.inputs:
        return INPUT_NAMES[state] if cell.inputs == len(INPUT_NAMES) else f"input {state}"
    return str(state)


def loose_ends(graph: ArchGraph) -> dict[str, list[int]]:
    """Per role the states that are concatenated to the cell's output."""
    return {role: list(cell.output) for role, cell in graph.cells}


# -- text ---------------------------------------------------------------------------------------------------


def cell_text(cell: Cell) -> str:
    """A cell in a few lines of text, one per edge and one for the output."""
    labels = [[op_label(edge.op) for edge in node] for node in cell.nodes]
    width = max((len(label) for node in labels for label in node), default=0)
    lines = []
    for index, (node, names) in enumerate(zip(cell.nodes, labels, strict=True)):
        for row, (edge, name) in enumerate(zip(node, names, strict=True)):
            head = f"{cell.inputs + index:>3} =" if row == 0 else "    +"
            lines.append(f"{head} {name:<{width}} of {state_label(cell, edge.source)}")
    return "\n".join([*lines, "out = " + ", ".join(state_label(cell, state) for state in cell.output)])


# -- SVG ----------------------------------------------------------------------------------------------------


def draw_cells(graph: ArchGraph, title: str = "") -> str:
    """All cells of an architecture, one above the other, as SVG text."""
    drawings = [_draw_cell(role, cell) for role, cell in graph.cells]
    width = max(drawing[1] for drawing in drawings)
    parts, y = [], 0.0
    for body, _, height in drawings:
        parts.append(f'<g transform="translate(0 {y:.1f})">{body}</g>')
        y += height
    name = escape(title or "cells of an architecture")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" width="{width:.0f}" '
        f'height="{y:.0f}" role="img" aria-label="{name}"><title>{name}</title><style>{_STYLE}</style>'
        f'<rect class="nr-ground" width="{width:.0f}" height="{y:.0f}" rx="10"/>{"".join(parts)}</svg>\n'
    )


def _draw_cell(role: str, cell: Cell) -> tuple[str, float, float]:
    """A cell's body, width and height."""
    layout = lay_out(cell)
    column = _column_width(cell)
    left = [MARGIN + index * (column + LAYER_GAP) for index in range(len(layout.layers))]
    x = {layer: (at, at + column) for layer, at in enumerate(left)}
    input_width = max(len(state_label(cell, state)) for state in range(cell.inputs)) * CHARACTER_WIDTH + 24
    x = {layer: (a - column + input_width, b - column + input_width) for layer, (a, b) in x.items()}
    x[0] = (MARGIN, MARGIN + input_width)
    x[len(left) - 1] = (x[len(left) - 1][0], x[len(left) - 1][0] + 66)
    for layer in layout.layers:
        for item in layer:
            item.y += MARGIN + TITLE_HEIGHT
    body = [f'<text class="nr-text nr-title" x="{MARGIN}" y="{MARGIN + 14}">{escape(role)} cell</text>']
    body += _lines(cell, layout, x)
    body += [_box(cell, item, x[item.layer]) for layer in layout.layers for item in layer if not item.waypoint]
    return "".join(body), x[len(left) - 1][1] + MARGIN, layout.height + 2 * MARGIN + TITLE_HEIGHT


def _column_width(cell: Cell) -> float:
    longest = max((len(op_label(edge.op)) for node in cell.nodes for edge in node), default=0)
    return longest * CHARACTER_WIDTH + 20 + BADGE_WIDTH + 2 * BOX_PADDING


def _lines(cell: Cell, layout: Layout, x: dict[int, tuple[float, float]]) -> list[str]:
    """Curves between the layers, each with a halo so that crossings read as over and under."""
    output = cell.inputs + len(cell.nodes)
    halos: dict[int, list[str]] = {}
    lines: dict[int, list[str]] = {}  # by the item they come from: siblings do not cut each other
    for item in (item for layer in layout.layers for item in layer):
        for row, index in enumerate(item.rows):
            source = item.inputs[index]
            start, end = x[source.layer][1], x[item.layer][0]
            y0, y1, middle = source.y, item.port(row), (start + end) / 2
            path = f"M{start:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {end:.1f} {y1:.1f}"
            if item.waypoint:
                path += f"H{x[item.layer][1]:.1f}"
            loose = " nr-loose" if len(cell.output) > 1 and _only_loose(item, output) else ""
            halos.setdefault(id(source), []).append(f'<path class="nr-halo" d="{path}"/>')
            lines.setdefault(id(source), []).append(f'<path class="nr-line{loose}" d="{path}"/>')
            if not item.waypoint:
                lines[id(source)].append(f'<path class="nr-tip" d="M{end:.1f} {y1:.1f}l-7 -3.6v7.2z"/>')
    return [part for source in lines for part in (*halos[source], *lines[source])]


def _only_loose(item: Item, output: int) -> bool:
    """Whether a line into `item` ends at the cell's output alone."""
    if item.waypoint:
        return all(_only_loose(other, output) for other in item.outputs)
    return item.state == output


def _box(cell: Cell, item: Item, span: tuple[float, float]) -> str:
    x, width = span[0], span[1] - span[0]
    top, middle = item.y - item.height / 2, item.y + 4
    frame = f'x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{item.height:.1f}" rx="8"'
    if item.state < cell.inputs:
        name = escape(state_label(cell, item.state))
        label = (
            f'<text class="nr-text nr-end-text" text-anchor="middle" x="{x + width / 2:.1f}" y="{middle:.1f}">{name}'
        )
        return f'<rect class="nr-end" {frame}/>{label}</text>'
    if item.state == cell.inputs + len(cell.nodes):
        label = (
            f'<text class="nr-text nr-end-text" text-anchor="middle" x="{x + width / 2:.1f}" y="{middle:.1f}">concat'
        )
        return f'<rect class="nr-end" {frame}/>{label}</text>'
    parts = [f'<rect class="nr-box" {frame}/>']
    pill = width - BADGE_WIDTH - 2 * BOX_PADDING
    for row, index in enumerate(item.rows):
        edge = cell.nodes[item.state - cell.inputs][index]
        y = top + BOX_PADDING + row * ROW_HEIGHT
        parts.append(
            f'<rect class="{_family(edge.op)}" x="{x + BOX_PADDING:.1f}" y="{y + 2:.1f}" width="{pill:.1f}" '
            f'height="{ROW_HEIGHT - 4:.1f}" rx="5"/><text class="nr-text nr-op" text-anchor="middle" '
            f'x="{x + BOX_PADDING + pill / 2:.1f}" y="{y + ROW_HEIGHT / 2 + 4:.1f}">{escape(op_label(edge.op))}</text>'
        )
    parts.append(
        f'<text class="nr-text nr-muted" text-anchor="middle" x="{x + width - BADGE_WIDTH / 2 - 4:.1f}" '
        f'y="{middle:.1f}">{item.state}</text>'
    )
    return "".join(parts)


def _family(op: str) -> str:
    return next((css for start, css in _FAMILIES if op.startswith(start)), "nr-id")
