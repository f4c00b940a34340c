"""What a study found: queries to the optimum, the best after some queries, and what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row
from nao_ray.metric import ACCURACY, Metric, from_plain

Floats = NDArray[np.float64]

CHECKPOINTS = (10, 20, 30, 50, 100, 150, 200)
"""Queries after which the best so far is reported."""
EARLY = 50
"""Queries after which searches are compared, if they go so far."""
WITHIN = 150
"""Queries within which a search should have found the optimum."""


def of_revisions(rows: Iterable[Row]) -> list[str]:
    """A note where rows are of several revisions of the code."""
    several = len({row["revision"] for row in rows}) > 1
    return ["The searches were made by different revisions of the code."] if several else []


def summary(rows: Sequence[Row]) -> BenchResult:
    """One line per table, strategy and number of workers."""
    last = max((row["max_queries"] for row in rows), default=0)
    shown = _shown(rows, last)
    columns = ["table", "strategy", "workers", "n", f"within {min(WITHIN, last)}", "queries", "sd"]
    columns += [f"{curve.removesuffix('_test')}@{at}" for curve, at in shown]
    table = [[*key, *_line(group, shown)] for key, group in groups(rows).items()]
    most = max((row["scored_per_query_max"] for row in rows), default=0)
    notes = [
        f"queries: until the table's best in validation, mean over n seeds ± standard error; one that did not "
        f"find it counts as its {last} queries. With several workers a query counts when its result is in.",
        f"valid@N, test@N: {_units(rows)}, of the best by validation after N queries; oracle@N: the best test seen by "
        f"then. scored: distinct genotypes the predictor scored (at most {most} for one query).",
        *_of_told(rows),
        machine(),
        *of_revisions(rows),
    ]
    return BenchResult(
        name="tabular",
        columns=[*columns, "CPU s", "scored", "of space"],
        rows=table,
        notes=notes,
        data={"searches": list(map(_plain, rows))},
    )


def _of_told(rows: Sequence[Row]) -> list[str]:
    """A note where strategies go by what is under way."""
    told = {tuple(json.loads(row["evaluator"]).get("tells", ())) for row in rows if row["workers"] > 1} - {()}
    several = (", ".join(map(str, epochs)) for epochs in sorted(told))
    return [
        f"With several workers trainings under way tell what the table has after {each} epochs." for each in several
    ]


def _shown(rows: Sequence[Row], last: int) -> list[tuple[str, int]]:
    """Of which curves, after how many queries, the best is shown: not of what was not reached, nor of the unknown."""
    wanted = [("valid", EARLY), ("test", EARLY), ("oracle_test", EARLY), ("valid", last), ("test", last)]
    reached = [pair for pair in dict.fromkeys(wanted) if pair[1] <= last]
    return [pair for pair in reached if any(math.isfinite(after(row, f"curve_{pair[0]}", pair[1])) for row in rows)]


def groups(rows: Sequence[Row]) -> dict[tuple[str, str, int], list[Row]]:
    """The rows by table, label and workers, in the order they come."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["table"], row["label"], row["workers"]), []).append(row)
    return found


def _line(group: Sequence[Row], curves: Sequence[tuple[str, int]]) -> list[object]:
    queries = queries_to_optimum(group)
    within = sum((row["queries_to_optimum"] or math.inf) <= WITHIN for row in group)
    scale = shown(metric_of(group[0]))
    best = [np.array([scale * after(row, f"curve_{curve}", at) for row in group]) for curve, at in curves]
    return [
        len(group),
        f"{within}/{len(group)}",
        mean_and_error(queries, 1),
        float(queries.std(ddof=1)) if len(group) > 1 else "-",
        *(mean_and_error(values, 3) for values in best),
        *(float(np.mean([row[name] for row in group])) for name in ("cpu_seconds", "scored", "scored_share_of_space")),
    ]


def metric_of(row: Row) -> Metric:
    """What its table measures; rows of earlier studies are of accuracies."""
    return from_plain(json.loads(row.get("metric") or "null"))


def shown(metric: Metric) -> float:
    """Times its value it is shown: accuracies in percent, anything else as it is."""
    return 100.0 if metric == ACCURACY else 1.0


def _units(rows: Sequence[Row]) -> str:
    metrics = dict.fromkeys(map(metric_of, rows))
    return " or ".join(
        "percent"
        if metric == ACCURACY
        else f"{metric.name}{f' in {metric.unit}' if metric.unit else ''} ({metric.goal}d)"
        for metric in metrics
    )


def mean_and_error(values: Floats, digits: int) -> str:
    """Mean of ``[n]`` values ± its standard error, as text; of one that alone."""
    error = f" ± {standard_error(values):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def spread(values: Floats, digits: int) -> str:
    """Mean of ``[n]`` values ± their standard deviation, as text; of one that alone."""
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def after(row: Row, curve: str, queries: int) -> float:
    """After so many queries; a search that stopped at the optimum keeps what it had. NaN: not that far, or null."""
    values = row[curve]
    stopped = row["queries_to_optimum"] is not None and row["queries_to_optimum"] == len(values)
    if not len(values) or (queries > len(values) and not stopped):
        return math.nan
    value = values[min(queries, len(values)) - 1]
    return math.nan if value is None else float(value)


def queries_to_optimum(group: Sequence[Row]) -> Floats:
    """``[n]``: queries until the optimum; a search that did not find it counts as all its queries."""
    return np.array([row["queries_to_optimum"] or row["max_queries"] for row in group], dtype=np.float64)


def standard_error(values: Floats) -> float:
    """Of the mean of ``[n]`` values; NaN for one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _plain(row: Row) -> dict[str, object]:
    """The row for JSON: the curves at the checkpoints alone."""
    plain = {name: value for name, value in row.items() if not name.startswith("curve_")}
    for curve in ("curve_valid", "curve_test", "curve_oracle_test", "curve_hours"):
        values = {f"{curve.removeprefix('curve_')}@{at}": after(row, curve, at) for at in CHECKPOINTS}
        plain |= {name: None if math.isnan(value) else value for name, value in values.items()}
    return plain
