"""What searches with shared weights found, next to their controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row
from nao_ray.bench._summary import mean_and_error, metric_of, of_revisions
from nao_ray.controllers.measures import kendall_taus
from nao_ray.metric import ACCURACY

Floats = NDArray[np.float64]

_RESAMPLES = 1000
_COLUMNS = ["space", "search", "n", "finalists", "better", "best", "better", "random sample", "better"]
_COLUMNS += ["tau", "95 %", "scored", "CPU s"]


def summary(rows: Sequence[Row]) -> BenchResult:
    """One line per search, its control below it."""
    groups: dict[str, dict[int, Row]] = {}
    for row in rows:
        groups.setdefault(row["name"], {})[row["seed"]] = row
    lines: list[list[object]] = []
    controls = dict.fromkeys(next(iter(group.values()))["control"] for group in groups.values())
    for control in filter(None, controls):
        searches = [group for group in groups.values() if next(iter(group.values()))["control"] == control]
        lines += [_line(group, groups[control]) for group in searches]
        lines.append(_line(groups[control], None))
    labels = dict.fromkeys(metric_of(row).label for row in rows)
    counts = sorted({len(row["finalists"]) for row in rows})
    audited = sorted({len(row["sample"]) for row in rows})
    notes = [
        f"{' or '.join(labels).capitalize()} of networks trained alone, mean over n seeds ± standard deviation; "
        "better: than the control below, same space, weights, epochs and number of scores, seed by seed, ± standard "
        "error.",
        f"finalists: mean of the {_range(counts)} best by shared score; best: of these; random sample: mean of "
        f"{_range(audited)} of what was scored last.",
        "tau: Kendall's, between shared scores and those of the sample alone, mean over the seeds, with its 95 % "
        "bootstrap interval. CPU s: of training, scores, networks trained alone and the controller's fits.",
        machine(),
        *of_revisions(rows),
    ]
    return BenchResult(name="shared", columns=_COLUMNS, rows=lines, notes=notes, data={"searches": _plain(rows)})


def _line(group: Mapping[int, Row], control: Mapping[int, Row] | None) -> list[object]:
    first = next(iter(group.values()))
    metric = metric_of(first)
    digits = 3 if metric == ACCURACY else 2
    cells: list[object] = [first["space"], first["label"], len(group)]
    for measure in (_finalists, _best, _sample):
        values = np.array([measure(row) for row in group.values()])
        cells.append(f"{metric.score(values.mean()):.{digits}f} ± {_deviation(values):.{digits}f}")
        better = [measure(row) - measure(control[seed]) for seed, row in group.items()] if control else []
        cells.append(mean_and_error(np.array(better), digits) if better else "")
    middle, low, high = pooled_tau(list(group.values()))
    cells += [f"{middle:.2f}", f"[{low:.2f}, {high:.2f}]"]
    return [*cells, round(np.mean([row["scored"] for row in group.values()])), _cpu_seconds(group)]


def _finalists(row: Row) -> float:
    return float(np.mean(row["finalists"]))


def _best(row: Row) -> float:
    return float(np.max(row["finalists"]))


def _sample(row: Row) -> float:
    return float(np.mean(row["sample"])) if row["sample"] else math.nan


def pooled_tau(group: Sequence[Row]) -> tuple[float, float, float]:
    """Kendall's tau within each search, mean over searches, and its 95 % bootstrap interval; NaN where there is none.

    Pairs are never formed across searches: their shared weights differ.
    """
    pairs = [np.array([row["sample_shared"], row["sample"]]) for row in group if len(row["sample"]) > 1]
    if not pairs:
        return math.nan, math.nan, math.nan
    sizes = [pair.shape[1] for pair in pairs]
    drawn: list[list[NDArray[np.int64]]] = [[] for _ in pairs]
    for index in range(_RESAMPLES):
        generator = rng.child(0, "pooled tau", index)
        for picks, size in zip(drawn, sizes, strict=True):
            picks.append(generator.integers(0, size, size))
    draws = _mean_taus(pairs, [np.stack(picks) for picks in drawn])
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (math.nan, math.nan)
    (middle,) = _mean_taus(pairs, [np.arange(size)[None] for size in sizes])
    return float(middle), float(low), float(high)


def _mean_taus(pairs: Sequence[Floats], picks: Sequence[NDArray[np.int64]]) -> Floats:
    """``[R]``: at each row of the picks, the mean over those pairs that have one; NaN where none has."""
    taus = np.stack([kendall_taus(pair[0], pair[1], some) for pair, some in zip(pairs, picks, strict=True)])
    known = ~np.isnan(taus)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(known, taus, 0).sum(axis=0) / known.sum(axis=0)
    return means


def _deviation(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _cpu_seconds(group: Mapping[int, Row]) -> float:
    parts = ("cpu_training", "cpu_scoring", "cpu_alone", "cpu_controller")
    return float(np.mean([sum(row[part] for part in parts) for row in group.values()]))


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"


def _plain(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows for JSON: None for NaN."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
