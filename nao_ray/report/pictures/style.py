"""How pictures of cells look: colours by the kind of operation, light and dark, and how wide a text may become."""

from __future__ import annotations

import unicodedata
from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
MOST_CHARACTERS = 28
"""Of a label; the rest of a longer name stands in its tooltip."""

_LIGHT = """
.nr-text{fill:#1c2430}.nr-muted{fill:#5b6675}.nr-ground{fill:#ffffff}.nr-node{fill:#e4edfb;stroke:#7f9fd0}
.nr-in{fill:#dcf1e2;stroke:#6fae86}.nr-out{fill:#fbf0c8;stroke:#c6a948}.nr-line{stroke:#8390a2}
.nr-halo{stroke:#ffffff}.nr-tip{fill:#8390a2}
.nr-conv{fill:#cfe0fb}.nr-sep{fill:#c9e9d6}.nr-dil{fill:#e2d6f7}.nr-max{fill:#fbdcc4}.nr-avg{fill:#f8e7ab}
.nr-id{fill:#dfe3e9}.nr-zero{fill:#f6dcdf}
"""
_DARK = """
.nr-text{fill:#e8ecf2}.nr-muted{fill:#9aa7b8}.nr-ground{fill:#161b22}.nr-node{fill:#1d2c47;stroke:#5f83bd}
.nr-in{fill:#17352a;stroke:#4f9673}.nr-out{fill:#3a3214;stroke:#a68d3a}.nr-line{stroke:#77869a}
.nr-halo{stroke:#161b22}.nr-tip{fill:#77869a}
.nr-conv{fill:#27457a}.nr-sep{fill:#1f5a3c}.nr-dil{fill:#4b3580}.nr-max{fill:#7a4218}.nr-avg{fill:#675312}
.nr-id{fill:#414c5b}.nr-zero{fill:#5b2a31}
"""
_ARC_COLOURS = ("#4c7fe0", "#d9622f", "#2f9e6e", "#a06ad8", "#b98a1d", "#d04f86")  # on white and on near-black
ARCS = len(_ARC_COLOURS)
_ARC_STYLE = "".join(
    f".nr-arc{number} .nr-line{{stroke:{colour}}}.nr-arc{number} .nr-tip{{fill:{colour}}}"
    for number, colour in enumerate(_ARC_COLOURS)
)
STYLE = (
    f".nr-text{{font-family:{FONT};font-size:12px}}"
    ".nr-op{font-weight:600;font-size:11.5px}.nr-title{font-size:14px;font-weight:600}"
    ".nr-state{font-weight:600;text-anchor:middle}.nr-op{text-anchor:middle}.nr-sub{font-size:9px}"
    ".nr-line{fill:none;stroke-width:1.6}.nr-halo{fill:none;stroke-width:5}.nr-none .nr-line{stroke-dasharray:4 4}"
    ".nr-arc .nr-line{stroke-width:1.3}"
    f"{_LIGHT}{_ARC_STYLE}@media (prefers-color-scheme:dark){{{_DARK}}}"
).replace("\n", "")

_FAMILIES = (
    ("dil", "dil"),
    ("sep", "sep"),
    ("max", "max"),
    ("avg", "avg"),
    ("conv", "conv"),
    ("nor_conv", "conv"),
    ("zero", "zero"),
    ("none", "zero"),
    ("tanh", "conv"),
    ("relu", "sep"),
    ("sigmoid", "dil"),
)


def family(op: str) -> str:
    """The kind of an operation by its name: conv, sep, dil, max, avg, zero, or id for any other."""
    name = op.rpartition(":")[2].lower()
    return next((kind for start, kind in _FAMILIES if name.startswith(start)), "id")


def printable(text: str) -> str:
    """Text as XML and HTML hold it: without what XML does not allow, and with its markup escaped."""
    return escape("".join(c for c in text if c in "\n\t" or (c.isprintable() and not 0xFFFE <= ord(c) <= 0xFFFF)))


def clipped(text: str) -> str:
    """A label of bounded length, without characters that show nothing or turn the text round."""
    shown = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def text_width(text: str) -> float:
    """Upper bound of the width of a label of 12 px, in px, whatever font is found."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> float:
    if character in "MW@%mw\N{HORIZONTAL ELLIPSIS}":
        return 13.0
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x2000:
        return 13.5
    return 9.8 if character.isupper() else 5.2 if character in " iljtfrI.,:;'|!()[]" else 8.2
