"""How a pool shows itself in a notebook: progress, the best trials, and their cells."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from nao_ray.errors import NaoRayError
from nao_ray.report.pictures.cells import draw_cells

if TYPE_CHECKING:
    from nao_ray.api.pool import Pool
    from nao_ray.pool import View

_ROWS, _PICTURES = 5, 2


def pool_html(pool: Pool, view: View | None, progress: str) -> str:
    """A fragment of HTML without scripts or styles of its own, which loads nothing.

    Args:
        pool: that is shown.
        view: how it stands; None: it cannot be read.
        progress: in a line, or why it cannot.
    """
    rows = [] if view is None else [_row(pool, row) for _, row in pool.best(_ROWS).iterrows()]
    what = [] if view is None else [word for word in (view.strategy, view.space, view.task) if word]
    share = None
    if view is not None and view.budget_trials:
        share = min(100.0, 100.0 * view.finished / view.budget_trials)
    return _template().render(
        url=pool.url,
        name=None if view is None else view.name,
        what=" · ".join(what),
        progress=progress,
        share=share,
        label=pool.metric.label,
        rows=rows,
        has_params=any(row["params"] for row in rows),
        has_rounds=any(row["round"] for row in rows),
        pictures=[(row["trial"], picture) for row in rows[:_PICTURES] if (picture := _picture(pool, row)) is not None],
    )


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("pool.html")


def _row(pool: Pool, row: pd.Series[Any]) -> dict[str, str]:
    return {
        "trial": str(row["trial_id"]),
        "score": pool.metric.text(float(row[pool.metric.column])),
        "params": "" if pd.isna(row["num_params"]) else f"{int(row['num_params']):,}",
        "round": "" if pd.isna(row["round"]) else str(int(row["round"])),
        "genotype": str(row["genotype"]),
    }


def _picture(pool: Pool, row: dict[str, str]) -> str | None:
    """The cells as base64 of SVG: of an image's own, so that its styles are none of the notebook's."""
    try:
        graph = pool.space.lower(pool.space.parse(row["genotype"]))
    except NaoRayError:  # its space is of a module that is not here
        return None
    return b64encode(draw_cells(graph, f"cells of trial {row['trial']}", pool.space.op_names).encode()).decode()
