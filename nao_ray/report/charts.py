"""Charts of a pool: a function each, which draws its figures on an Axes of matplotlib, in the colours of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nao_ray.metric import Metric
from nao_ray.report.shared import Audit
from nao_ray.report.tables import Floats, best_so_far

_INK, _FAINT, _ACCENT = "#1c2430", "#d9dee5", "#2f6fde"  # as base.css has them
_DOT = "#8a97a8"  # as the curves below readable on white and on near-black: clouds of dots may become bitmaps
_CURVES = ("#4c7fe0", "#d9622f", "#2f9e6e", "#a06ad8", "#c2982a", "#d04f86")
_SCALE = LinearSegmentedColormap.from_list("score", ["#5873d6", "#b05fb4", "#e0604f", "#eeb03c"])
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
"""Of matplotlib: how Axes of ours look."""
SIZE = (5.6, 3.2)
"""Inches."""
MOST_DOTS = 3000
"""From so many dots on a cloud is a bitmap where a figure is saved as SVG or PDF: the file stays small."""
MOST_LABELS = 10
"""Rounds that are named on an axis: every so many of more."""
_TIME_UNITS = ((3600.0 * 2, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def best_over_trials(axes: Axes, scores: Floats, metric: Metric) -> None:
    """Every score, and the best so far, over the number of completed trials."""
    number = np.arange(1, len(scores) + 1)
    _cloud(axes, number, scores, label="trial")
    best, at = _changes(best_so_far(scores, metric))
    axes.step(number[at], best, where="post", color=_ACCENT, linewidth=1.8, label="best so far")
    _frame(axes, scores, "completed trials", metric.label)
    axes.set_xlim(0.5, max(len(scores), 2) + 0.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)


def best_over_time(axes: Axes, seconds: Floats, scores: Floats, metric: Metric) -> None:
    """The best so far over device time."""
    _, unit, name = next(row for row in _TIME_UNITS if seconds[-1] >= row[0])
    best, at = _changes(best_so_far(scores, metric))
    axes.step(seconds[at] / unit, best, where="post", color=_ACCENT, linewidth=1.8)
    axes.scatter(seconds[at] / unit, best, s=9, color=_ACCENT, linewidths=0)
    _frame(axes, best, f"device time in {name}", f"best {metric.label}")
    axes.set_xlim(left=0)


def scores_by_round(
    axes: Axes, rounds: Mapping[int, Floats] | Mapping[str, Floats], metric: Metric, what: str = "round (0: seeds)"
) -> None:
    """The scores of each round, or of any other groups, and their medians."""
    places = []
    for place, values in enumerate(rounds.values()):
        spread = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.5  # golden ratio: even, and the same each time
        places.append(place + spread)
    number, medians = np.arange(len(rounds)), [float(np.median(values)) for values in rounds.values()]
    axes.hlines(medians, number - 0.32, number + 0.32, color=_ACCENT, linewidth=2)
    _cloud(axes, np.concatenate(places), np.concatenate(list(rounds.values())))
    labels = [f"{index}\nn = {len(values)}" for index, values in rounds.items()]
    step = -(-len(rounds) // MOST_LABELS)
    axes.set_xticks(number[::step], labels[::step])
    axes.set_xlim(-0.6, len(rounds) - 0.4)
    _frame(axes, np.concatenate(list(rounds.values())), f"{what}; bar: median", metric.label)


def map_of_embeddings(axes: Axes, points: Floats, scores: Floats, metric: Metric) -> None:
    """The proposed embeddings on their two principal axes, coloured by score."""
    order = np.argsort(scores if metric.more_is_better else -scores, kind="stable")  # the best on top
    x, y = points[order].T
    raster = len(points) > MOST_DOTS
    dots = axes.scatter(x, y, s=22, c=scores[order], cmap=_SCALE, linewidths=0, rasterized=raster)
    axes.set_xlabel("first principal axis")
    axes.set_ylabel("second principal axis")
    axes.margins(0.08)
    _colour_bar(axes, dots, scores, metric.label)


def ranges_meet(predicted: Floats, measured: Floats) -> bool:
    """Whether the line of exact predictions crosses their picture."""
    (left, right), (low, high) = _limits(predicted), _limits(measured)
    return max(left, low) < min(right, high)


def predicted_and_measured(axes: Axes, predicted: Floats, measured: Floats, metric: Metric, *, has_line: bool) -> None:
    """What the controller predicted against what training measured; `has_line`: and where they are equal."""
    _cloud(axes, predicted, measured)
    low, high = _limits(np.concatenate([predicted, measured]))
    if has_line:
        axes.plot([low, high], [low, high], color=_ACCENT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(*_limits(predicted))
    axes.set_ylim(*_limits(measured))
    axes.set_xlabel(f"predicted {metric.label}")
    axes.set_ylabel(f"measured {metric.label}")


def size_and_score(axes: Axes, params: Floats, scores: Floats, metric: Metric) -> None:
    """Score over the number of parameters."""
    _cloud(axes, params / 1e3, scores)
    axes.set_xlim(*_limits(params / 1e3))
    _frame(axes, scores, "thousand parameters (without auxiliary head)", metric.label)


def mean_and_best(axes: Axes, rounds: Mapping[int, tuple[float, float]], metric: Metric) -> None:
    """Mean and best score of each round."""
    number, values = np.array(list(rounds)), np.array(list(rounds.values()))
    for column, (label, colour) in enumerate((("mean", _DOT), ("best", _ACCENT))):
        axes.plot(number, values[:, column], marker="o", markersize=4, color=colour, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(number.min() - 0.4, number.max() + 0.4)
    _frame(axes, values.ravel(), "round", f"{metric.label}, shared weights")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)


def shared_and_alone(axes: Axes, audit: Audit, metric: Metric) -> None:
    """The shared score of each architecture against the one it has with weights of its own."""
    for chosen, label, face in ((~audit.is_audited, "finalist", "none"), (audit.is_audited, "audited", _ACCENT)):
        x, y = audit.shared[chosen], audit.alone[chosen]
        axes.scatter(x, y, s=30, facecolors=face, edgecolors=_ACCENT, linewidths=1.2, label=label)
    axes.set_xlim(*_limits(audit.shared))
    _frame(axes, audit.alone, f"{metric.label} with shared weights", f"{metric.label}, trained alone")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)


def fit_height(curves: Mapping[str, tuple[Floats, Floats]]) -> float:
    """Inches that `fit_quality` wants, whose legend stands below it."""
    return SIZE[1] + 0.22 * ((len(curves) + 1) // 2)


def fit_quality(axes: Axes, curves: Mapping[str, tuple[Floats, Floats]]) -> None:
    """The controller's qualities over the rounds."""
    for index, (name, (rounds, values)) in enumerate(curves.items()):
        axes.plot(rounds, values, marker="o", markersize=4, color=_CURVES[index % len(_CURVES)], label=name)
    every = np.concatenate([rounds for rounds, _ in curves.values()])
    axes.set_xticks(np.unique(every), [f"{value:.0f}" for value in np.unique(every)])
    axes.set_xlim(every.min() - 0.4, every.max() + 0.4)
    _frame(axes, np.concatenate([values for _, values in curves.values()]), "round", "quality of the fit")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8)


# -- parts --------------------------------------------------------------------------------------------------


def _cloud(axes: Axes, x: NDArray[np.floating[Any]] | NDArray[np.int64], y: Floats, label: str = "") -> None:
    raster = len(y) > MOST_DOTS
    axes.scatter(x, y, s=13, color=_DOT, alpha=0.8, linewidths=0, label=label, rasterized=raster)


def _changes(best: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The values of a best-so-far where it changes, and the last; and their places."""
    at = np.flatnonzero(np.append(True, np.diff(best) != 0))
    at = np.unique(np.append(at, len(best) - 1))
    return best[at], at


def _frame(axes: Axes, values: Floats, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(*_limits(values))


def _limits(values: Floats) -> tuple[float, float]:
    """Bounds around the values with some air, also where all are equal."""
    low, high = float(values.min()), float(values.max())
    air = 0.06 * (high - low) or 0.02 * max(abs(high), 1e-3)
    return low - air, high + air


def _colour_bar(axes: Axes, dots: PathCollection, scores: Floats, label: str) -> None:
    low, high = float(scores.min()), float(scores.max())
    dots.set_clim(low, high if high > low else low + 1e-6)
    bar = axes.inset_axes((1.03, 0.0, 0.03, 1.0))
    steps = np.linspace(0, 1, 24)
    bar.bar(
        np.zeros(24),
        np.full(24, 1 / 24),
        bottom=np.arange(24) / 24,
        width=1.0,
        color=[to_hex(_SCALE(s)) for s in steps],
    )
    bar.set_xlim(-0.5, 0.5)
    bar.set_ylim(0, 1)
    bar.set_xticks([])
    ticks = np.linspace(0, 1, 3) if high > low else np.zeros(1)
    bar.set_yticks(ticks, [f"{low + tick * (high - low):.3g}" for tick in ticks])
    bar.yaxis.tick_right()
    bar.set_ylabel(label)
    bar.yaxis.set_label_position("right")
    bar.grid(visible=False)
