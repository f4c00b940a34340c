"""A table of texts, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def grid(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, under their names."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = (names, ["-" * width for width in widths], *rows)
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
