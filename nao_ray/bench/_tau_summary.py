"""What scores with shared weights are worth: Kendall's tau with a table, beside what costs nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.bench._curves import COLOURS
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row
from nao_ray.controllers.measures import kendall_taus
from nao_ray.evaluators.tabular import Tabular

Floats = NDArray[np.float64]

_RESAMPLES = 1000
_COLUMNS = [
    "ranked by",
    "epochs",
    "batch norm",
    "n",
    "tau",
    "95 %",
    "against parameters",
    "given parameters",
    "tau of the better half",
]
_COLUMNS += ["95 %", "rank of the best", "CPU s training", "CPU s scoring"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The cells by one score, beside what the table has of them."""

    label: str
    epochs: int
    norm: str
    scores: Floats
    """``[n]``, more is better."""
    truth: Floats
    """Likewise."""
    training: float = 0.0
    """CPU seconds of the weights, from the first epoch."""
    scoring: float = 0.0
    """Of all cells."""

    @classmethod
    def of(cls, row: Row, truth: Floats) -> Self:
        """From a row of the study."""
        scores = np.array(row["scores"], dtype=np.float64)
        return cls(row["sampling"], row["epochs"], row["norm"], scores, truth, row["training"], row["seconds"])

    @classmethod
    def free(cls, name: str, scores: Floats, truth: Floats) -> Self:
        """One that needs no training."""
        return cls(name, 0, "", scores, truth)

    def tau(self) -> tuple[float, float, float]:
        """Kendall's tau and its 95 % interval, of resampled cells."""
        return _interval(self._resampled(np.arange(len(self.truth))))

    def tau_of_better_half(self) -> tuple[float, float, float]:
        """The same of the cells that the table has as the better half."""
        return _interval(self._resampled(np.argsort(-self.truth, kind="stable")[: len(self.truth) // 2]))

    def ahead_of(self, other: Ranking) -> tuple[float, float, float]:
        """Its tau less that of another ranking of the same cells, with the interval of the same resamples."""
        rows = np.arange(len(self.truth))
        return _interval(self._resampled(rows) - other._resampled(rows))

    def given(self, other: Ranking) -> tuple[float, float, float]:
        """Kendall's partial tau with the truth where another ranking is known: what it tells beside that one."""
        rows = np.arange(len(self.truth))
        mine, its, both = self._resampled(rows), other._resampled(rows), _taus(self.scores, other.scores)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _interval((mine - its * both) / np.sqrt((1 - its**2) * (1 - both**2)))

    def _resampled(self, rows: NDArray[np.int64]) -> Floats:
        """``[1 + R]``: tau of the cells of these rows, then of each resample of them."""
        return _taus(self.scores[rows], self.truth[rows])


def _taus(one: Floats, other: Floats) -> Floats:
    """``[1 + R]``: Kendall's tau of two ``[n]``, then of each resample of their pairs."""
    picks = rng.child(0, "tau bootstrap").integers(0, len(one), size=(_RESAMPLES, len(one)))
    return kendall_taus(one, other, np.vstack([np.arange(len(one)), picks]))


def _interval(taus: Floats) -> tuple[float, float, float]:
    known = taus[1:][np.isfinite(taus[1:])]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return float(taus[0]), float(low), float(high)


def summary(found: Sequence[Ranking], bars: Sequence[Ranking], table: Tabular) -> BenchResult:
    """A line per ranking; the first of the `bars` is what the others are compared with."""
    notes = [
        "tau: Kendall's, of scores with shared weights and what the table has, with its 95 % interval over resampled "
        "cells; against parameters: less that of the numbers of parameters, on the same resamples; given parameters: "
        "the partial tau, what the scores tell beside them. The better half is the table's.",
        f"rank of the best: the table's, of {len(table):,}, of the cell that is ranked first. CPU s: of the training "
        "from its first epoch, and of scoring all n cells.",
        machine(),
    ]
    lines = [_line(each, bars[0], table) for each in [*found, *bars]]
    data: dict[str, object] = {
        "rankings": [[each.label, each.epochs, each.norm, *each.tau()] for each in [*found, *bars]]
    }
    return BenchResult(name="tau", columns=_COLUMNS, rows=lines, notes=notes, data=data)


def _line(each: Ranking, bar: Ranking, table: Tabular) -> list[object]:
    tau, half = each.tau(), each.tau_of_better_half()
    against = "" if each is bar else _text(each.ahead_of(bar), signed=True)
    given = "" if each is bar else _text(each.given(bar), signed=False)
    best = table.rank_of(table.measure.score(float(each.truth[int(each.scores.argmax())])))
    return [
        each.label,
        each.epochs or "",
        each.norm,
        len(each.truth),
        f"{tau[0]:.3f}",
        f"[{tau[1]:.3f}, {tau[2]:.3f}]",
        against,
        given,
        f"{half[0]:.3f}",
        f"[{half[1]:.3f}, {half[2]:.3f}]",
        best,
        round(each.training, 1),
        round(each.scoring, 1),
    ]


def _text(interval: tuple[float, float, float], *, signed: bool) -> str:
    if np.isnan(interval).any():
        return "none"  # it ranks as the other does
    form = "+.3f" if signed else ".3f"
    middle, low, high = (f"{value:{form}}" for value in interval)
    return f"{middle} [{low}, {high}]"


def draw(found: Sequence[Ranking], bars: Sequence[Ranking], path: Path) -> None:
    """An SVG: tau over epochs, of all cells and of the better half, by sampling and by treatment of batch norm."""
    norm, sampling = found[0].norm, found[0].label
    groups = {
        f"paths drawn; batch norm: {norm}": [(each.label, each) for each in found if each.norm == norm],
        f"batch norm; paths: {sampling}": [(each.norm, each) for each in found if each.label == sampling],
    }
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "font.size": 9.0}):
        figure = Figure(figsize=(8.4, 6.4), layout="constrained")
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for column, (title, lines) in zip(grid.T, groups.items(), strict=True):
            for axes, half in zip(column, (False, True), strict=True):
                _panel(axes, lines, bars[0], half=half)
            column[0].set_title(title, fontsize=9)
            column[0].legend(frameon=False, fontsize=8)
            column[1].set_xlabel("epochs of the shared weights")
        grid[0, 0].set_ylabel("Kendall's tau with the table")
        grid[1, 0].set_ylabel("of the better half")
        where = machine().partition(", torch")[0]  # numbers of versions would be rounded below
        figure.suptitle(f"Scores with shared weights, n = {len(found[0].truth)} cells, 95 % intervals; {where}")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"(\d\.\d)\d+", r"\1", drawn.getvalue()), encoding="utf-8")  # a tenth of a point will do


def _panel(axes: Axes, lines: Sequence[tuple[str, Ranking]], bar: Ranking, *, half: bool) -> None:
    def tau(each: Ranking) -> tuple[float, float, float]:
        return each.tau_of_better_half() if half else each.tau()

    for number, label in enumerate(dict.fromkeys(label for label, _ in lines)):
        points = [(each.epochs, *tau(each)) for name, each in lines if name == label]
        at, middle, low, high = np.array(points, dtype=np.float64).T
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(at, middle, "o-", color=colour, linewidth=1.4, markersize=3, label=label)
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(tau(bar)[0], color="#555555", linestyle="--", linewidth=1, label="number of parameters")
    axes.axhline(0, color="#bbbbbb", linewidth=0.7)
    axes.set_xscale("log")
    ticks = sorted({each.epochs for _, each in lines})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
