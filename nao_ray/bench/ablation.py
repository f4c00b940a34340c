"""What each idea of the strategy `nao` is worth: the default, and the default with one idea switched off, on tables.

Every variant searches with the same seeds; the difference to the whole is taken seed by seed.

    nao-ray bench ablation seeds=50 workers=1,8 results=study
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nao_ray.bench._gather import gather
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._summary import groups, mean_and_error, queries_to_optimum
from nao_ray.bench.tabular import Column, plan, positive, tables
from nao_ray.errors import ConfigError

WHOLE = "whole"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    WHOLE: {},
    "no_gradient_steps": {"step_sizes": [0.0]},
    "raw_gradients": {"unit_steps": False},
    "no_pretraining": {"pretraining": {"steps": 1}},
    "no_neighbours": {"neighbours": 0},
    "no_spread": {"spread_weight": 0.0},
    "no_descriptors": {"gp": {"views": ["embedding"]}},
    "descriptors_alone": {"gp": {"views": ["graph"]}},
    "never_blind": {"blind": False},
    "with_subtrees": {"gp": {"views": ["graph", "counts", "tokens", "graph+tokens", "subtrees"]}},
    "no_ranks": {"gp": {"targets": "standard"}},
    "no_large_start": {"largest_of": 1},
    "no_size_prior": {"size_prior": False},
    "fit_every_10": {"refit_every": 10},
}
"""Settings of `nao` that differ from its defaults."""


def run(
    variants: str = ",".join(VARIANTS),
    seeds: int = 50,
    first_seed: int = 0,
    workers: int | str = 1,
    max_queries: int = 150,
    processes: int = 2,
    results: str | None = None,
    path: str | None = None,
    datasets: str | None = None,
    valid: Column = None,
    cost: Column = None,
    space: str = "nas_bench_201",
) -> BenchResult:
    """Search with every variant.

    Args:
        variants: of `VARIANTS`, by commas; `whole` is always among them.
        seeds: searches per variant.
        first_seed: see `seeds`.
        workers: simulated workers; several numbers by commas.
        max_queries: a search ends there, or at the optimum.
        processes: of this machine, one thread each.
        results: folder of finished searches; those that are there are not done again.
        path: as for `nao-ray bench tabular`, and so are the next four.
        datasets: see there.
        valid: see there.
        cost: see there.
        space: see there.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    names = list(dict.fromkeys([WHOLE, *(name.strip() for name in variants.split(","))]))
    if unknown := [name for name in names if name not in VARIANTS]:
        raise ConfigError(f"bench ablation: no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    searches = plan(
        {name: {"name": "nao", **VARIANTS[name]} for name in names},
        tables(path, datasets, {"valid": valid, "test": None, "cost": cost}),
        {"name": space},
        seeds=range(first_seed, first_seed + positive("seeds", seeds)),
        workers=workers,
        max_queries=max_queries,
    )
    found = groups(gather(searches, None if results is None else Path(results), positive("processes", processes)))
    rows: list[list[object]] = []
    for (table, label, number), group in found.items():
        queries = queries_to_optimum(group)
        more = queries - queries_to_optimum(found[table, WHOLE, number])
        missed = sum(row["queries_to_optimum"] is None for row in group)
        difference = "" if label == WHOLE else mean_and_error(more, 1)
        rows.append([table, number, label, len(group), mean_and_error(queries, 1), difference, missed])
    return BenchResult(
        name="ablation",
        columns=["table", "workers", "variant", "n", "queries", "more than whole", f"not within {max_queries}"],
        rows=rows,
        notes=["Queries until the table's best in validation, mean over n seeds ± standard error.", machine()],
    )
