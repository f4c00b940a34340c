"""What `nao` gains by an earlier pool, and loses by one that misleads: searches on tables of trained architectures.

The search on one data set learns from a search on another one, which had the next seed and no help: from it as it was,
with its scores shuffled among its architectures, and with its scores inverted. Each is compared with the search of the
same seed that learns from none.

    nao-ray bench warm_start seeds=30 results=study
    nao-ray bench warm_start path=FILE datasets=small,large valid={dataset}_valid space=nas_bench_201
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nao_ray import rng
from nao_ray.bench._gather import made
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Kept, Row, Search, open_table, perform, stored_row, write_row
from nao_ray.bench._summary import after, mean_and_error, metric_of, queries_to_optimum, shown
from nao_ray.bench.tabular import Column, plan, positive, tables
from nao_ray.errors import ConfigError
from nao_ray.strategies.base import Earlier

COLD = "cold"
STARTS = ("as it was", "shuffled", "inverted")
"""What is done to the earlier scores."""
_CHECKPOINTS = (10, 25, 50)
"""Queries after which the best so far is compared."""


@dataclass(frozen=True, slots=True)
class _Job:
    search: Search
    earlier: tuple[Earlier, ...]
    folder: Path | None


def run(
    seeds: int = 30,
    first_seed: int = 0,
    max_queries: int = 50,
    starts: str = ",".join(STARTS),
    processes: int = 1,
    results: str | None = None,
    path: str | None = None,
    datasets: str | None = None,
    valid: Column = None,
    space: str = "nas_bench_201",
) -> BenchResult:
    """Search each data set after each other one.

    Args:
        seeds: searches of each kind.
        first_seed: see `seeds`.
        max_queries: a search ends there, or at the optimum.
        starts: what is done to the earlier scores: of `STARTS`, by commas.
        processes: of this machine, one thread each.
        results: folder of finished searches; those that are there are not done again.
        path: as for `nao-ray bench tabular`, and so are the next three.
        datasets: see there; two at least.
        valid: see there.
        space: see there.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    known = tables(path, datasets, {"valid": valid, "test": None, "cost": None})
    wanted = [start.strip() for start in starts.split(",")]
    if unknown := [start for start in wanted if start not in STARTS]:
        raise ConfigError(f"bench warm_start: no start {unknown[0]!r}; there are {', '.join(STARTS)}")
    if len(known) < 2:
        raise ConfigError("bench warm_start: give two data sets at least, datasets=a,b")
    numbers = range(first_seed, first_seed + positive("seeds", seeds))
    searches = plan(
        {COLD: {"name": "nao"}},
        known,
        {"name": space},
        seeds=numbers,
        workers=1,
        max_queries=max_queries,
    )
    folder, at_once = None if results is None else Path(results), positive("processes", processes)
    rows = _made([_Job(search, (), folder) for search in searches], at_once)
    cold = {(search.table, search.seed): row for search, row in zip(searches, rows, strict=True)}
    pairs = [(source, target) for source in known for target in known if source != target]
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for source, target in pairs:
        of_target = [search for search in searches if search.table == target]
        found[source, target] = {COLD: [cold[target, search.seed] for search in of_target]}
        for start in wanted:
            jobs = [_after(search, source, start, cold, numbers, folder) for search in of_target]
            found[source, target][start] = _made(jobs, at_once)
    return _result(found, max_queries)


def _after(
    search: Search, source: str, start: str, cold: Mapping[tuple[str, int], Row], seeds: range, folder: Path | None
) -> _Job:
    """The search after the one of the next seed on another data set."""
    seed = seeds[(seeds.index(search.seed) + 1) % len(seeds)]
    row = cold[source, seed]
    scores = np.array(row["curve_score"])
    if start == "shuffled":
        scores = rng.child(search.seed, "shuffled").permutation(scores)
    elif start == "inverted":
        scores = -scores
    name = f"{source}, {row['queries']} queries of seed {seed}, {start}"
    earlier = Earlier(name, tuple(row["curve_genotype"]), tuple(scores.tolist()))
    strategy = {**search.strategy, "warm_start": [name]}
    return _Job(replace(search, label=start, strategy=strategy), (earlier,), folder)


def _made(jobs: Sequence[_Job], processes: int) -> list[Row]:
    found = {number: row for number, job in enumerate(jobs) if (row := _stored(job)) is not None}
    found |= made(_make, {number: job for number, job in enumerate(jobs) if number not in found}, processes)
    return [found[number] for number in sorted(found)]


def _path(job: _Job) -> Path | None:
    name = job.search.file_name(open_table(job.search)[1])
    return None if job.folder is None else job.folder / f"warm-q{job.search.max_queries}-{name}"


def _stored(job: _Job) -> Row | None:
    path = _path(job)
    return None if path is None else stored_row(path)


def _make(job: _Job) -> Row:
    kept = Kept()
    row = perform(job.search, job.earlier, kept)
    row["curve_genotype"] = [trial.genotype.key for trial in kept.trials]
    row["curve_score"] = [trial.score for trial in kept.trials]
    row["curve_warm"] = [fit["warm_start"] == "on" for fit in kept.fits if "warm_start" in fit]
    if (path := _path(job)) is not None:
        write_row(path, row)
    return row


def _result(found: Mapping[tuple[str, str], Mapping[str, list[Row]]], max_queries: int) -> BenchResult:
    at = [count for count in _CHECKPOINTS if count <= max_queries]
    lines: list[list[object]] = []
    for (source, target), groups in found.items():
        cold = queries_to_optimum(groups[COLD])
        for start, group in groups.items():
            queries = queries_to_optimum(group)
            fits = [share for row in group for share in row["curve_warm"]]
            scale = shown(metric_of(group[0]))
            regret = [
                np.abs([scale * (row["best_valid_of_table"] - after(row, "curve_valid", n)) for row in group])
                for n in at
            ]
            lines.append(
                [source, target, start, len(group), mean_and_error(queries, 1)]
                + ["" if start == COLD else mean_and_error(cold - queries, 1)]
                + [mean_and_error(values, 3) for values in regret]
                + ["" if start == COLD else f"{np.mean(fits):.0%}"]
            )
    return BenchResult(
        name="warm_start",
        columns=["earlier", "searched", "start", "n", "queries", "saved"]
        + [f"regret@{n}" for n in at]
        + ["fits that use it"],
        rows=lines,
        notes=[
            f"queries: until the table's best in validation, mean over n seeds ± standard error; one that did not find "
            f"it counts as its {max_queries}. saved: against cold, seed by seed. regret: of the best so far, in percent"
            " of an accuracy. The earlier pool is the cold search with the next seed.",
            machine(),
        ],
    )
