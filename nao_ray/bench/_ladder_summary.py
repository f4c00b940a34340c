"""What a study of ladders found: device hours to a quality, with the ladder against without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row
from nao_ray.bench._summary import after, mean_and_error, metric_of, of_revisions, standard_error
from nao_ray.config_fidelity import Rungs

Floats = NDArray[np.float64]

QUERIES = 50
"""Of the search without a ladder, whose quality is to be reached."""
WHOLE, LADDER, FIRST = WAYS = ("whole", "ladder", "first")
"""Last word of a row's label."""


def summary(rows: Sequence[Row], rungs: Rungs) -> BenchResult:
    """Two lines per table, strategy and number of workers; rows of each way are in the order of their seeds."""
    groups: dict[tuple[str, str, int], dict[str, list[Row]]] = {}
    for row in rows:
        label, way = row["label"].rsplit(" ", 1)
        groups.setdefault((row["table"], label, row["workers"]), {}).setdefault(way, []).append(row)
    lines: list[list[object]] = []
    for key, ways in groups.items():
        quality = [after(row, "curve_valid", QUERIES) for row in ways[WHOLE]]
        best = [row["best_valid_of_whole"] for row in ways[WHOLE]]
        lines += [[*key, *_line(f"whole@{QUERIES}", ways, quality)], [*key, *_line("the best", ways, best)]]
    columns = ["table", "strategy", "workers", "quality", "n", "whole h", "ladder h", "first h"]
    columns += ["ladder/whole", "seed by seed", "first/whole", "reached"]
    shown = ", ".join(map(str, rungs.epochs))
    return BenchResult(
        name="ladder",
        columns=columns,
        rows=lines,
        notes=[
            f"rungs {shown}, keep {rungs.keep:.3g}. h: device hours of all workers until the quality is reached, mean "
            "over n seeds ± standard error; a search that did not reach it counts as all its time, `reached` says how "
            "many did (whole, ladder, first). ladder/whole: ratio of the means ± standard error (jackknife over "
            "seeds, which are paired); seed by seed: geometric mean of the ratios ± standard error.",
            machine(),
            *of_revisions(rows),
        ],
        data={"hours": [_plain(row) for row in rows]},
    )


def _line(quality: str, ways: Mapping[str, Sequence[Row]], wanted: Sequence[float]) -> list[object]:
    found = {way: [_until(row, value) for row, value in zip(ways[way], wanted, strict=True)] for way in WAYS}
    hours = {way: np.array([each[0] for each in found[way]]) for way in WAYS}
    logs = np.log(hours[LADDER] / hours[WHOLE])
    middle, error = float(np.exp(logs.mean())), standard_error(logs)
    return [
        quality,
        len(wanted),
        *(mean_and_error(hours[way], _digits(hours[way])) for way in WAYS),
        _ratio(hours[LADDER], hours[WHOLE]),
        f"{middle:.2f} ± {middle * error:.2f}",
        _ratio(hours[FIRST], hours[WHOLE]),
        "/".join(str(sum(reached for _, reached in found[way])) for way in WAYS),
    ]


def _digits(hours: Floats) -> int:
    """Decimals to show: one from an hour on, below it as many as give three figures."""
    mean = float(hours.mean())
    return 1 if mean >= 1 or mean <= 0 else 2 - math.floor(math.log10(mean))


def _until(row: Row, quality: float) -> tuple[float, bool]:
    """Device hours until the curve is as good, and whether it ever is; all of them where it is not."""
    score = metric_of(row).score
    hours = np.array(row["curve_hours"]) * row["workers"]
    with_more = hours + np.array(row["curve_more_hours"])
    reached = np.array([score(value) >= score(quality) for value in row["curve_valid"]])
    return (float(with_more[reached].min()), True) if reached.any() else (float(hours[-1]), False)


def _ratio(a: Floats, b: Floats) -> str:
    """Of the means of two ``[n]`` arrays, ± the jackknife's standard error."""
    n = len(a)
    if n < 2:
        return f"{a.mean() / b.mean():.2f}"
    without = (a.sum() - a) / (b.sum() - b)
    error = float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))
    return f"{a.mean() / b.mean():.2f} ± {error:.2f}"


def _plain(row: Row) -> dict[str, object]:
    """The row for JSON, without its curves."""
    return {name: value for name, value in row.items() if not name.startswith("curve_")}
