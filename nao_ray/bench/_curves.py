"""Anytime curves of a study: the best so far over queries and over simulated time, mean and 95 % band over seeds."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.bench._study import Row
from nao_ray.bench._summary import after, groups, metric_of, shown
from nao_ray.metric import ACCURACY, Metric

Floats = NDArray[np.float64]

CURVES = {
    "curve_valid": "validation {}, which selects{}",
    "curve_test": "test {} of the selected{}",
    "curve_oracle_test": "best test {} seen: an oracle's{}",
}
COLOURS = ("#4c7fe0", "#d9622f", "#2f9e6e", "#a06ad8", "#c2982a", "#d04f86")
_RESAMPLES = 1000
_POINTS = 200


def over_queries(group: Sequence[Row], curve: str) -> tuple[Floats, Floats]:
    """Numbers of queries ``[Q]``, and the curve of each search after so many, ``[n, Q]``; NaN where it ended."""
    last = max(row["max_queries"] for row in group)
    queries = np.arange(1, last + 1, dtype=np.float64)
    return queries, np.array([[after(row, curve, int(at)) for at in queries] for row in group])


def over_hours(group: Sequence[Row], curve: str) -> tuple[Floats, Floats]:
    """Device hours ``[T]``, of all workers together, and each search's curve then, ``[n, T]``; NaN before any result.

    Until the first search ends without the optimum; those that found it keep what they had.
    """
    ended = [row["curve_hours"][-1] for row in group if np.isnan(after(row, curve, len(row["curve_hours"]) + 1))]
    first = min(row["curve_hours"][0] for row in group)
    last = min(ended, default=max(row["curve_hours"][-1] for row in group))
    hours = np.geomspace(max(first, 1e-3), max(last, first, 1e-3), _POINTS)
    values = np.full((len(group), len(hours)), np.nan)
    for line, row in zip(values, group, strict=True):
        done = np.searchsorted(row["curve_hours"], hours, side="right")
        line[done > 0] = np.asarray(row[curve], dtype=np.float64)[done[done > 0] - 1]
    return hours * group[0]["workers"], values


def band(values: Floats, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Mean over the searches of ``[n, Q]`` values and its 95 % interval (bootstrap percentiles), each ``[Q]``.

    NaN where any search has no value: a mean over others would not be comparable.
    """
    picks = rng.child(seed, "bootstrap").integers(0, len(values), size=(_RESAMPLES, len(values)))
    weights = np.stack([np.bincount(row, minlength=len(values)) for row in picks]) / len(values)
    low, high = np.percentile(weights @ values, (2.5, 97.5), axis=0)
    return values.mean(axis=0), low, high


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """One SVG per table and number of workers, `TABLE-wWORKERS.svg`: curves by column, the axis of effort by row."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[Path, dict[str, list[Row]]] = {}
    for (table, label, workers), group in groups(rows).items():
        pictures.setdefault(folder / f"{table}-w{workers}.svg", {})[label] = group
    for path, by_label in pictures.items():
        workers = next(iter(by_label.values()))[0]["workers"]
        title = f"{path.stem.rpartition('-w')[0]}, {workers} simulated worker{'s' if workers > 1 else ''}"
        drawn = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "font.size": 9.0}):
            _figure(by_label, title).savefig(drawn, format="svg", metadata={"Date": None})
        path.write_text(re.sub(r"(\d\.\d)\d+", r"\1", drawn.getvalue()), encoding="utf-8")  # a tenth of a point will do
    return list(pictures)


def _figure(by_label: Mapping[str, Sequence[Row]], title: str) -> Figure:
    curves = [curve for curve in CURVES if _known(by_label, curve)]
    metric = metric_of(next(iter(by_label.values()))[0])
    unit = "%" if metric == ACCURACY else metric.unit
    figure = Figure(figsize=(4.2 * len(curves), 6.4), layout="constrained")
    grid = figure.subplots(2, len(curves), squeeze=False, sharey="col")
    for column, curve in enumerate(curves):
        for axes, over, name in zip(
            grid[:, column], (over_queries, over_hours), ("queries", "simulated device hours"), strict=True
        ):
            starts = []
            for colour, (label, group) in zip(_cycle(len(by_label)), by_label.items(), strict=True):
                at, values = over(group, curve)
                mean, low, high = band(shown(metric) * values)
                axes.plot(at, mean, color=colour, linewidth=1.6, label=f"{label} (n = {len(group)})")
                axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
                starts.append(mean)
            label = CURVES[curve].format(metric.name, f" ({unit})" if unit else "")
            _dress(axes, starts, name, label, metric, log=over is over_hours)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title)
    return figure


def _known(by_label: Mapping[str, Sequence[Row]], curve: str) -> bool:
    return all(np.isfinite(np.asarray(row[curve], dtype=np.float64)).any() for g in by_label.values() for row in g)


def _cycle(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _dress(axes: Axes, means: Sequence[Floats], x: str, y: str, metric: Metric, *, log: bool) -> None:
    """What matters happens near the best: the picture starts where the worst curve has had ten queries."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if log:
        axes.set_xscale("log")
    finite = [mean[np.isfinite(mean)] for mean in means]
    early = min(metric.score(float(mean[min(9, len(mean) - 1)])) for mean in finite)
    best = max(float((mean * metric.score(1.0)).max()) for mean in finite)
    if best > early and not log:
        ends = (metric.score(early - 0.02 * (best - early)), metric.score(best + 0.04 * (best - early)))
        axes.set_ylim(min(ends), max(ends))
