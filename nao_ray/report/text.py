"""Tables as text. How a value reads follows from the type of its column alone, so it reads alike in every query."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nao_ray.metric import BY_COLUMN
from nao_ray.pool import PoolReader
from nao_ray.report.control import has_control, is_control
from nao_ray.report.grid import grid
from nao_ray.report.shared import agreement

BEST = (
    "trial_id",
    "pareto_rank",
    "origin",
    *BY_COLUMN,
    "weights_version",
    "settings",
    "epochs",
    "num_params",
    "round",
    "predicted_score",
    "genotype",
)
"""Columns of the best trials that are shown, where they hold something."""


def best_text(pool: PoolReader, count: int) -> str:
    """The best architectures of a pool, as a table; where there was a random control, it is said which are of it.

    Below it the trial that the strategy recommends, where it is another than the best, and where shared scores were
    audited, what they are worth.

    Raises:
        PoolError: a part is damaged.
    """
    best, metric = pool.best(count), pool.metric
    if not pool.rungs:
        best = best.drop(columns="epochs", errors="ignore")
    if has_control(best, pool.manifest):
        control = is_control(best, pool.manifest)
        best = best.assign(origin=control.map({True: "random control", False: "derived"}))
    aims = [aim.column for aim in pool.objectives if aim.column not in BEST]
    shown = best[
        [name for name in (*BEST[:-1], *aims, BEST[-1]) if name in best and not best[name].isna().all()] or ["trial_id"]
    ]
    if "predicted_score" in shown and not metric.more_is_better:
        shown = shown.assign(predicted_score=-shown["predicted_score"])
    unit = f" ({metric.unit})" if metric.unit else ""
    text = frame_text(shown.rename(columns={"valid_score": f"{metric.name}{unit}"}))
    fits = pool.fits()
    has_one_best = len(best) and not pool.rungs and not pool.objectives
    recommended = _recommended(fits, int(best["trial_id"].iloc[0])) if has_one_best else None
    found = agreement(fits)
    audited = None if found is None or not found.count else f"Shared weights: {found.figures}. {found.meaning}"
    return "\n\n".join(str(part) for part in (text, pool.front(), recommended, audited) if part is not None)


def _recommended(fits: pd.DataFrame, best: int) -> str | None:
    """Of the last fit that says so; None: it is the best, or nothing is recommended."""
    told = [] if "recommended" not in fits else [int(trial_id) for trial_id in fits["recommended"].dropna()]
    if not told or told[-1] == best:
        return None
    return (
        f"Where scores are noisy the best may be a lucky one: the strategy recommends trial {told[-1]}, by its score "
        "and those of like architectures."
    )


def frame_text(frame: pd.DataFrame) -> str:
    """A table with all its columns."""
    columns = [column_text(column) for _, column in frame.items()]
    return grid([str(name) for name in frame.columns], list(map(list, zip(*columns, strict=True))))


def column_text(column: pd.Series[Any]) -> list[str]:
    """The values of a column; what is missing, or no number, is ``-``."""
    if pd.api.types.is_float_dtype(column.dtype):
        return ["-" if pd.isna(value) else _float(float(value)) for value in column]
    return list(map(_text, column))


def is_missing(value: Any) -> bool:  # noqa: ANN401
    """Whether a value of a table is null, NaN or NaT; a list is there, whatever it holds."""
    return value is None or (not hasattr(value, "__len__") and bool(pd.isna(value)))


def _text(value: Any) -> str:  # noqa: ANN401
    if is_missing(value):
        return "-"
    if isinstance(value, float):
        return _float(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _float(value: float) -> str:
    """Four decimals; one of a large number, and two digits of a tiny one."""
    size = abs(value)
    return f"{value:.1f}" if size >= 1000 else f"{value:.1e}" if 0 < size < 5e-5 else f"{value:.4f}"
