"""What pictures of cells are made of: boxes, labels and lines, as elements of SVG.

Every line and label carries the name of its edge, ``data-edge="ROLE:NODE:INDEX"``, and of a line to the output
``ROLE:out:STATE``: a film shows and hides them by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nao_ray.report.labels import Names, op_label
from nao_ray.report.pictures.layout import LABEL_HEIGHT
from nao_ray.report.pictures.style import ARCS, clipped, family, printable, text_width

PADDING = 8.0
"""Beside the text in a label."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A cell's picture without the frame around it, from (0, 0)."""

    body: str
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Wording:
    """What the labels of a picture say."""

    names: Names
    least: float = 0.0
    """Width of a label's text at least, in px: in a film it changes."""

    def name(self, op: str) -> str:
        """What the space calls an operation."""
        return self.names.get(op, op)

    def label(self, op: str) -> str:
        """Its label."""
        return clipped(op_label(self.name(op)))

    def kind(self, op: str) -> str:
        """Its kind, which its colour is of."""
        return family(self.name(op))

    def width(self, op: str) -> float:
        """Of its label with what is around the text."""
        return max(text_width(self.label(op)), self.least) + 2 * PADDING


def state_box(name: str, kind: str, x: float, y: float, width: float, height: float) -> str:
    """A state: `kind` is in, node or out; `x` its left edge, `y` its middle."""
    frame = f'x="{x:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="9"'
    text = re.sub(r"^([a-z])_\{(.*)\}$", r'\1<tspan class="nr-sub" dy="3">\2</tspan>', printable(name))
    return (
        f'<g class="nr-box"><title>{printable(name)}</title><rect class="nr-{kind}" {frame}/>'
        f'<text class="nr-text nr-state" x="{x + width / 2:.1f}" y="{y + 4:.1f}">{text}</text></g>'
    )


def label(wording: Wording, op: str, edge: str, way: str, x: float, y: float, width: float) -> str:
    """The operation of an edge; `way` says from where to where it leads."""
    title = printable(f"{wording.name(op)}: {way}")
    return (
        f'<g class="nr-label" data-edge="{printable(edge)}"><title>{title}</title>'
        f'<rect class="nr-{wording.kind(op)}" x="{x:.1f}" y="{y - LABEL_HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{LABEL_HEIGHT:.1f}" rx="6"/><text class="nr-text nr-op" x="{x + width / 2:.1f}" y="{y + 4:.1f}">'
        f"{printable(wording.label(op))}</text></g>"
    )


_TIPS = {"right": "l-7 -3.6v7.2z", "left": "l7 -3.6v7.2z", "down": "l-3.6 -7h7.2z"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line from a state along a path of SVG, and an arrow at its end."""

    edge: str
    path: str
    tip: tuple[float, float]
    towards: Literal["right", "left", "down"] = "right"
    is_none: bool = False
    """It carries nothing."""
    title: str = ""
    arc: int | None = None
    """One of `ARCS` colours: among many arcs that cross, those of one layer are told by it."""

    def halo(self) -> str:
        """What keeps it apart from lines below it: crossings read as over and under."""
        if self.arc is not None:
            return ""
        return f'<path class="nr-halo" data-edge="{printable(self.edge)}" d="{self.path}"/>'

    def stroke(self) -> str:
        """The line and its arrow."""
        x, y = self.tip
        title = f"<title>{printable(self.title)}</title>" if self.title else ""
        look = " nr-none" if self.is_none else "" if self.arc is None else f" nr-arc nr-arc{self.arc % ARCS}"
        return (
            f'<g class="nr-edge{look}" data-edge="{printable(self.edge)}">{title}'
            f'<path class="nr-line" d="{self.path}"/>'
            f'<path class="nr-tip" d="M{x:.1f} {y:.1f}{_TIPS[self.towards]}"/></g>'
        )


def lines(found: Sequence[Line]) -> str:
    """Lines that leave one state: they do not cut each other."""
    return "".join(line.halo() for line in found) + "".join(line.stroke() for line in found)
