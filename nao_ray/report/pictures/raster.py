"""Pictures as PNG, in their light colours.

resvg draws the SVG; its fonts are those that matplotlib brings, so that a picture has its words on a machine without
any font, and the same everywhere.
"""

from __future__ import annotations

import matplotlib as mpl
import resvg_py

SCALE = 2.0
"""Pixels per unit of the SVG: sharp on a screen of twice the density, and in print."""
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


def png(svg: str, scale: float = SCALE) -> bytes:
    """An SVG as PNG."""
    folder = mpl.get_data_path()
    fonts = [f"{folder}/fonts/ttf/{name}" for name in FONTS]
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, zoom=scale, skip_system_fonts=True, font_files=fonts, font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
    )  # fmt: skip
