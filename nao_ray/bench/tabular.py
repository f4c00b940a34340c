"""Strategies on tables of trained architectures: queries to the optimum, and how good the best so far is.

Each search runs the real strategy in the real loop, with one or several simulated workers in virtual time: a query
takes as long as the table says its training took. Every query counts, from the first random one; the validation
accuracy selects, and the test accuracy is that of the selected architecture. With several workers a strategy may go by
what is under way: in NAS-Bench-201 it is told the accuracy after 12 of the 200 epochs (``evaluator.tells=[]``: it is
not). A protocol says how many queries and which seeds: `nao_ray`, that of the project's own figures, 200 queries and
the seeds 0 to 99, or `mls_bench`, 30 queries and the seeds 0 to 4.

    nao-ray bench tabular results=study figures=pictures
    nao-ray bench tabular protocol=mls_bench datasets=cifar10 strategies=nao,random_search
    nao-ray bench tabular path=FILE datasets=a,b valid={dataset}_valid test={dataset}_test cost={dataset}_seconds
    nao-ray bench tabular path=FILE valid=val_loss evaluator.goal=minimize evaluator.unit=nats
    nao-ray bench tabular path=FILE datasets=wiki,digits valid={dataset} evaluator.goal=wiki:minimize,digits:maximize
    nao-ray bench tabular strategies=nao,published:nao published.preset=paper seeds=20 workers=1,8

Besides the arguments of `run`: ``LABEL.key=value`` sets a strategy's setting, ``evaluator.key=value`` one of the table
(`runs`, `unit`, `goal`, `twins`, `where`, ...; `goal`, `metric` and `unit` also by data set), ``space.key=value`` one
of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nao_ray.bench._curves import draw
from nao_ray.bench._data import data_folder
from nao_ray.bench._gather import gather
from nao_ray.bench._result import BenchResult
from nao_ray.bench._study import Search
from nao_ray.bench._summary import summary
from nao_ray.errors import ConfigError

Column = str | Mapping[str, str] | None
"""Name of a column, or its names by data set."""
STRATEGIES = "nao,random_search,regularized_evolution,local_search,reinforce"
PROTOCOLS = {"nao_ray": (200, 100), "mls_bench": (30, 5)}
"""By name, the queries of a search, and how many seeds there are, from 0 on."""
_EXAMPLE = Path("nas_bench_201") / "nas_bench_201.parquet"
_MEASURES = ("goal", "metric", "unit")
_EXAMPLE_COLUMNS = {"valid": "{dataset}_valid_acc_200", "test": "{dataset}_test_acc_200"}
_TOLD = {"valid": "{dataset}_valid_acc_{epochs}", "epochs": 200, "tells": (12,)}
"""Of the same table, whose trainings under way tell what the table has after few epochs."""
_EXAMPLE_COSTS = {"cifar10": "cifar10_valid_train_time_200_s", "cifar100": "cifar100_train_time_200_s"}


def run(
    path: str | None = None,
    datasets: str | None = None,
    valid: Column = None,
    test: Column = None,
    cost: Column = None,
    strategies: str = STRATEGIES,
    protocol: str = "nao_ray",
    seeds: int | None = None,
    first_seed: int = 0,
    workers: int | str = 1,
    max_queries: int | None = None,
    processes: int = 2,
    stop_at_optimum: bool = True,
    results: str | None = None,
    figures: str | None = None,
    space: str = "nas_bench_201",
    **settings: Any,  # noqa: ANN401
) -> BenchResult:
    """Search `seeds` times with each strategy on each table.

    Args:
        path: Parquet or CSV; default: NAS-Bench-201 in ``$NAO_RAY_DATA``, its CIFAR-10 and CIFAR-100.
        datasets: names by commas, each a table of its own: what ``{dataset}`` in a column's name stands for.
        valid: column of what is searched by, on the validation split; by data set, as the next two: ``a:x,b:y``.
        test: column of the same on the test split.
        cost: column of the training time in seconds; without it a query takes one second.
        strategies: names, or ``LABEL:NAME`` to have one with several settings; by commas.
        protocol: `nao_ray` or `mls_bench`: what holds where `seeds` or `max_queries` is not given.
        seeds: searches per strategy, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        workers: simulated workers; several numbers by commas.
        max_queries: a search ends there.
        processes: of this machine, one thread each.
        stop_at_optimum: end a search that has found the best validation accuracy of the table.
        results: folder of finished searches; those that are there are not done again.
        figures: folder for anytime curves, an SVG per table and number of workers.
        space: the table's search space.
        **settings: ``LABEL.key``, ``evaluator.key`` or ``space.key``.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"bench tabular protocol={protocol}: choose of {', '.join(PROTOCOLS)}")
    queries, count = PROTOCOLS[protocol]
    named, sections = labelled("tabular", strategies, settings, ("evaluator", "space"))
    if path is None and valid is None and not sections["evaluator"].keys() & _TOLD.keys():
        sections["evaluator"] |= _TOLD
    searches = plan(
        named,
        tables(path, datasets, {"valid": valid, "test": test, "cost": cost}, sections["evaluator"]),
        {"name": space, **sections["space"]},
        seeds=range(first_seed, first_seed + positive("seeds", count if seeds is None else seeds)),
        workers=workers,
        max_queries=queries if max_queries is None else max_queries,
        stop_at_optimum=stop_at_optimum,
    )
    rows = gather(searches, None if results is None else Path(results), positive("processes", processes))
    if figures is not None:
        draw(rows, Path(figures))
    return summary(rows)


def plan(
    strategies: Mapping[str, Mapping[str, Any]],
    evaluators: Mapping[str, Mapping[str, Any]],
    space: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    workers: int | str,
    max_queries: int,
    stop_at_optimum: bool = True,
) -> list[Search]:
    """Every strategy, by its label, on every table, with every number of workers and every seed."""
    return [
        Search(
            label=label,
            table=table,
            space=space,
            evaluator=evaluator,
            strategy=strategy,
            seed=seed,
            workers=number,
            max_queries=positive("max_queries", max_queries),
            stop_at_optimum=stop_at_optimum,
        )
        for table, evaluator in evaluators.items()
        for number in numbers(workers)
        for label, strategy in strategies.items()
        for seed in seeds
    ]


def tables(
    path: str | None,
    datasets: str | None,
    columns: Mapping[str, Column],
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """By name, the settings of the evaluator for each table; `settings` of all of them win."""
    names = [name.strip() for name in str(datasets).split(",")] if datasets else []
    if path is not None:
        common = {"name": "tabular", "path": path}
        if not names:
            return {Path(path).stem: {**common, **_of(None, columns), **settings}}
        return {name: {**common, **_of(name, columns), "dataset": name, **_own(name, settings)} for name in names}
    common = {"name": "tabular", "path": str(data_folder() / _EXAMPLE), "twins": "merge"}
    found = {}
    for name in names or _EXAMPLE_COSTS:
        own = _of(name, columns, {**_EXAMPLE_COLUMNS, "cost": _EXAMPLE_COSTS.get(name)})
        found[name] = {**common, **own, "dataset": name, **_own(name, settings)}
    return found


def _own(dataset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluator's settings for one data set: what is measured may be given by data set.

    Raises:
        ConfigError: it is, and this one has none.
    """
    measures = {name: settings[name] for name in _MEASURES if name in settings}
    return {**settings, **_of(dataset, measures)}


def _of(
    dataset: str | None, columns: Mapping[str, Column], defaults: Mapping[str, str | None] = MappingProxyType({})
) -> dict[str, str | None]:
    """The columns of one data set, or what else is given by data set.

    Raises:
        ConfigError: it is, and this one has none.
    """
    found = {}
    for name, given in columns.items():
        column = by_dataset(given)
        if isinstance(column, Mapping) and dataset not in column:
            what = f"data set {dataset}" if dataset is not None else "a table without datasets"
            raise ConfigError(f"bench {name}: nothing is given for {what}; it has those of {', '.join(column)}")
        found[name] = (column[str(dataset)] if isinstance(column, Mapping) else column) or defaults.get(name)
    return found


def by_dataset(column: Column) -> Column:
    """A column's name, or names by data set, also written ``a:column,b:other``."""
    if not isinstance(column, str) or ":" not in column:
        return column
    pairs = [part.partition(":") for part in column.split(",")]
    return {dataset.strip(): name.strip() for dataset, _, name in pairs}


def positive(name: str, number: int) -> int:
    """The number.

    Raises:
        ConfigError: it is none of 1, 2, 3, ...
    """
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"bench: {name} must be a whole number from 1 on, got {number}")
    return number


def numbers(workers: int | str) -> list[int]:
    """Of workers, by commas.

    Raises:
        ConfigError: one is no whole number from 1 on.
    """
    words = str(workers).split(",")
    return [positive("workers", int(word) if word.strip().isdecimal() else 0) for word in words]


def labelled(
    bench: str, strategies: str, settings: Mapping[str, Any], others: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """By label, a strategy with its settings; and the settings ``SECTION.key`` of the sections that are none.

    Raises:
        ConfigError: a setting is of no strategy, and of no other section.
    """
    words = (word.strip().partition(":") for word in strategies.split(","))
    labels = {label: name or label for label, _, name in words}
    sections: dict[str, dict[str, Any]] = {name: {} for name in (*labels, *others)}
    for key, value in settings.items():
        section, *path = key.split(".")
        if section not in sections or not path or not all(path):
            raise ConfigError(
                f"bench {bench} {key}: expected key or SECTION.key with a SECTION of {', '.join(sections)}"
            )
        target = sections[section]
        for name in path[:-1]:
            target = target.setdefault(name, {})
        target[path[-1]] = value
    return {label: {"name": name, **sections[label]} for label, name in labels.items()}, sections
