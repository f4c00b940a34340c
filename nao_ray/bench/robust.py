"""Strategies on many different tables, half of them kept for reporting: which is first, and on how many.

Tables are of NAS-Bench-201 (other epochs, single trainings, noise, fewer operations, energy, trades, proxies, distorted
scores, made-up tasks with flat tops), of NAS-Bench-101, NAS-Bench-NLP and DARTS, and formulas; they are made as they
are needed, by a seed. Tune on the half `tune`, and say what holds on the half `report`: which table is in which was
settled before any search (the first two of the list, on which `nao` had been tuned, are in `tune`; of the others every
other one, beginning with `report`).

    nao-ray bench robust seeds=10 results=study
    nao-ray bench robust strategies=nao,bold:nao bold.spread_weight=2 half=tune workers=1,8 results=study
    nao-ray bench robust tables=micro_scene,darts_214 half=all strategies=nao,local_search

Searches run as in ``nao-ray bench tabular``. Where a query is noisy the strategy sees the noisy score, and the true one
judges. Regret is what is missing to the best of the table, in percent of what a median architecture misses: 0 is the
best, 100 a random pick. A query finds the best when its true score is the best's, of which there may be several. The
best seen may be a lucky one where queries are noisy: `recommended` is the regret of the one that the strategy
recommends, if it says which (`fits`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nao_ray.bench._gather import gather
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._robust_tables import SUITE, Entry
from nao_ray.bench._study import Row, Search
from nao_ray.bench._summary import after, groups, mean_and_error, metric_of, queries_to_optimum, standard_error
from nao_ray.bench.tabular import STRATEGIES, labelled, numbers, positive
from nao_ray.errors import ConfigError

Floats = NDArray[np.float64]
_PICKED = "curve_recommended"
EARLY, LATE = 50, 200
"""Queries after which the best so far is compared."""
_HALVES = ("tune", "report", "all")


def run(
    strategies: str = STRATEGIES,
    half: Literal["tune", "report", "all"] = "report",
    tables: str | None = None,
    seeds: int = 10,
    first_seed: int = 0,
    workers: int | str = 1,
    max_queries: int = LATE,
    processes: int = 2,
    results: str | None = None,
    **settings: object,
) -> BenchResult:
    """Search `seeds` times with each strategy on each table.

    Args:
        strategies: names, or ``LABEL:NAME`` to have one with several settings; by commas.
        half: of the tables: `tune`, `report` or `all`.
        tables: of that half those named alone; by commas.
        seeds: searches per strategy, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        workers: simulated workers; several numbers by commas.
        max_queries: a search ends there, or at the best.
        processes: of this machine, one thread each.
        results: folder of finished searches; those that are there are not done again.
        **settings: ``LABEL.key`` of a strategy.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: what a table is made of is missing.
        RunError: a search failed.
    """
    entries = chosen(half, tables)
    planned, _ = labelled("robust", strategies, settings)
    span = range(first_seed, first_seed + positive("seeds", seeds))
    counts = numbers(workers)
    with tempfile.TemporaryDirectory(prefix="nao_ray_tables_") as folder:
        searches = []
        for entry in entries:
            space, evaluator = entry.written(Path(folder))
            searches += [
                Search(
                    label=label,
                    table=entry.name,
                    space=space,
                    evaluator=evaluator,
                    strategy=strategy,
                    seed=seed,
                    workers=number,
                    max_queries=positive("max_queries", max_queries),
                    stop_at_optimum=not evaluator.get("runs") and not evaluator.get("noise"),
                )
                for number in counts
                for label, strategy in planned.items()
                for seed in span
            ]
        rows = gather(searches, None if results is None else Path(results), positive("processes", processes))
    return summary(rows)


def chosen(half: str, tables: str | None) -> list[Entry]:
    """Of the suite, in its order.

    Raises:
        ConfigError: there is no such half, or it has no such table.
    """
    if half not in _HALVES:
        raise ConfigError(f"bench robust half={half}: choose of {', '.join(_HALVES)}")
    found = [entry for entry in SUITE if half in ("all", entry.half)]
    if tables is None:
        return found
    wanted = [name.strip() for name in tables.split(",")]
    known = {entry.name: entry for entry in SUITE}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"bench robust tables: no table {name!r}; there are {', '.join(known)}")
        if known[name] not in found:
            raise ConfigError(
                f"bench robust tables: {name} is in the half {known[name].half}; set half=all to mix them"
            )
    return [entry for entry in found if entry.name in wanted]


# -- what came of it ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one strategy on one table, with so many workers; of each less is better."""

    queries: Floats
    """``[n]``."""
    found: float
    """Share of the searches."""
    regrets: Mapping[int, Floats]
    """``[n]`` by the number of queries, in percent."""
    recommended: Mapping[int, Floats]
    """Likewise, of what the strategy recommends; only where a query is noisy and it says so."""

    @classmethod
    def of(cls, group: Sequence[Row]) -> Measured:
        shown = [at for at in (EARLY, LATE) if at <= max(row["max_queries"] for row in group)]
        found = float(np.mean([row["queries_to_optimum"] is not None for row in group]))
        recommended = {} if any(row.get("stop_at_optimum", True) for row in group) else _regrets(group, _PICKED, shown)
        recommended = {at: values for at, values in recommended.items() if not np.isnan(values).any()}
        return cls(queries_to_optimum(group), found, _regrets(group, "curve_valid", shown), recommended)

    def values(self, what: str | int) -> Floats:
        """``[n]``, of `queries` or of the regret after so many."""
        return self.queries if what == "queries" else self.regrets[int(what)]


def _regrets(group: Sequence[Row], curve: str, shown: Sequence[int]) -> dict[int, Floats]:
    """``[n]`` by the number of queries, in percent; NaN where a search has no such curve."""
    score, best = metric_of(group[0]).score, group[0]["best_valid_of_table"]
    span = score(best) - score(group[0]["median_valid_of_table"])
    reached = {
        at: np.array([after(row, curve, at) if row.get(curve) is not None else np.nan for row in group]) for at in shown
    }
    return {at: 100 * (score(best) - score(1.0) * values) / span for at, values in reached.items()}


def summary(rows: Sequence[Row]) -> BenchResult:
    """A line per table, strategy and number of workers; how often each strategy is first, in the notes."""
    halves = {entry.name: entry.half for entry in SUITE}
    found = {key: Measured.of(group) for key, group in groups(rows).items()}
    last = max(row["max_queries"] for row in rows)
    shown = [at for at in (EARLY, LATE) if at <= last]
    table = [
        [halves[name], name, number, label, len(its.queries), mean_and_error(its.queries, 1), its.found]
        + [mean_and_error(its.regrets[at], 2) for at in shown]
        for (name, label, number), its in found.items()
    ]
    columns = ["half", "table", "workers", "strategy", "n", "queries", "found", *(f"regret@{at}" for at in shown)]
    if picked := [at for at in shown if any(at in its.recommended for its in found.values())]:
        columns += [f"recommended@{at}" for at in picked]
        for row, its in zip(table, found.values(), strict=True):
            row += [mean_and_error(its.recommended[at], 2) if at in its.recommended else "-" for at in picked]
    firsts = _firsts(found, halves, [*shown, "queries"])
    notes = [
        "First / within: tables on which a strategy has the least mean, and on which it has it or is away from it by "
        "its own standard error at most; in queries only tables whose best some search found.",
        *_lines(firsts),
        "",
        "queries: until a best of the table, mean over n seeds ± standard error; one that did not find it counts as "
        f"its {last}. found: share of the searches. regret: what the best so far, by what the strategy saw, misses to "
        "the table's best, in percent of what the median architecture misses. recommended: likewise, of what the "
        "strategy recommends, where queries are noisy and it says so.",
        machine(),
    ]
    plain = [{name: value for name, value in row.items() if not name.startswith("curve_")} for row in rows]
    return BenchResult(
        name="robust", columns=columns, rows=table, notes=notes, data={"first": firsts, "searches": plain}
    )


def _firsts(
    found: Mapping[tuple[str, str, int], Measured], halves: Mapping[str, str], measures: Sequence[str | int]
) -> list[dict[str, Any]]:
    """Per half, number of workers and strategy: by measure, of how many tables it is first or nearly so."""
    rows = []
    for half, number in dict.fromkeys((halves[name], number) for name, _, number in found):
        labels = dict.fromkeys(label for name, label, its in found if its == number and halves[name] == half)
        counts: dict[str, dict[str, Any]] = {label: {} for label in labels}
        for what in measures:
            tables = list(dict.fromkeys(name for name, _, its in found if its == number and halves[name] == half))
            if what == "queries":
                tables = [name for name in tables if any(found[name, label, number].found for label in labels)]
            for label in labels:
                compared = [_compared(found, name, label, list(labels), number, what) for name in tables]
                first, within = (sum(pair[at] for pair in compared) for at in (0, 1))
                counts[label][str(what)] = {"first": first, "within": within, "tables": len(tables)}
        rows += [{"half": half, "workers": number, "strategy": label, **told} for label, told in counts.items()]
    return rows


def _compared(
    found: Mapping[tuple[str, str, int], Measured],
    name: str,
    label: str,
    labels: Sequence[str],
    number: int,
    what: str | int,
) -> tuple[bool, bool]:
    """Whether a strategy is the first on a table, and whether it is within its standard error of that."""
    best = min(float(found[name, other, number].values(what).mean()) for other in labels)
    mine = found[name, label, number].values(what)
    away, error = float(mine.mean()) - best, standard_error(mine)
    return away <= 0, away <= 0 or away <= error


def _lines(firsts: Sequence[Mapping[str, Any]]) -> list[str]:
    measures = [name for name in firsts[0] if name not in ("half", "workers", "strategy")]
    titles = [f"regret@{name}" if name.isdecimal() else name for name in measures]
    lines = ["", "| half | workers | strategy | " + " | ".join(titles) + " |", "| --- " * (3 + len(measures)) + "|"]
    for row in firsts:
        told = [f"{row[name]['first']} / {row[name]['within']} of {row[name]['tables']}" for name in measures]
        lines.append(f"| {row['half']} | {row['workers']} | {row['strategy']} | {' | '.join(told)} |")
    return lines
