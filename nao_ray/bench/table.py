"""Strategies on a table of trained architectures: queries to its optimum, and how good the best so far is.

Each search runs the real strategy in the real loop, with one or several simulated workers in virtual time: a query
takes as long as the table says its training took. Every query counts, from the first random one; the validation
accuracy selects, and the test accuracy is that of the selected architecture.

    nao-ray bench table path=nas_bench_201.parquet valid=cifar10_valid_acc_200 test=cifar10_test_acc_200
    nao-ray bench table strategies=nao,published:nao published.preset=v2 seeds=20 results=study

Besides the arguments of `run`: ``LABEL.key=value`` sets a strategy's setting, ``evaluator.key=value`` one of the table
(`runs`, `unit`, `genotype`, `where`, ...), ``space.key=value`` one of the space.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row, Search, open_table, perform, read_row, write_row
from nao_ray.errors import ConfigError, NaoRayError, RunError

CHECKPOINTS = (10, 20, 30, 50, 100, 150, 200)
"""Queries after which the best so far is reported."""
WITHIN = 150
"""Queries within which a search should have found the optimum."""
_LINES = 10
"""Lines of progress where there is no terminal; fewer searches pass in silence."""
_EXAMPLE = Path("nas_bench_201") / "nas_bench_201.parquet"
_EXAMPLE_COLUMNS = {
    "valid": "cifar10_valid_acc_200",
    "test": "cifar10_test_acc_200",
    "cost": "cifar10_valid_train_time_200_s",
}


def run(
    path: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    cost: str | None = None,
    strategies: str = "nao,random_search,regularized_evolution,local_search,reinforce",
    seeds: int = 100,
    first_seed: int = 0,
    workers: int = 1,
    max_queries: int = 150,
    processes: int = 2,
    stop_at_optimum: bool = True,
    results: str | None = None,
    space: str = "nas_bench_201",
    **settings: Any,  # noqa: ANN401
) -> BenchResult:
    """Search `seeds` times with each strategy.

    Args:
        path: Parquet or CSV; default: NAS-Bench-201 in ``$NAO_RAY_DATA``, with its CIFAR-10 columns.
        valid: column of the validation accuracy.
        test: column of the test accuracy.
        cost: column of the training time in seconds; without it a query takes one second.
        strategies: names, or ``LABEL:NAME`` to have one with several settings; by commas.
        seeds: searches per strategy, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        workers: simulated workers.
        max_queries: a search ends there.
        processes: of this machine, one thread each.
        stop_at_optimum: end a search that has found the best validation accuracy of the table.
        results: folder of finished searches; those that are there are not done again.
        space: the table's search space.
        **settings: ``LABEL.key``, ``evaluator.key`` or ``space.key``.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    for name, number in (
        ("seeds", seeds),
        ("workers", workers),
        ("max_queries", max_queries),
        ("processes", processes),
    ):
        if number < 1:
            raise ConfigError(f"bench table: {name} must be at least 1, got {number}")
    columns: dict[str, str | None] = {"valid": valid, "test": test, "cost": cost}
    if path is None:
        path = str(_data_folder() / _EXAMPLE)
        columns = {name: column or _EXAMPLE_COLUMNS[name] for name, column in columns.items()}
    labels = dict(_labels(strategies))
    sections = _sections(settings, [*labels, "evaluator", "space"])
    template = Search(
        label="",
        space={"name": space, **sections["space"]},
        evaluator={"name": "tabular", "path": path, **columns, **sections["evaluator"]},
        strategy={"name": "random_search"},
        seed=first_seed,
        workers=workers,
        max_queries=max_queries,
        stop_at_optimum=stop_at_optimum,
    )
    searches = [
        replace(template, label=label, strategy={"name": name, **sections[label]}, seed=seed)
        for label, name in labels.items()
        for seed in range(first_seed, first_seed + seeds)
    ]
    for search in searches[::seeds]:
        search.config().make_strategy()  # what can be refused is refused before any work starts
    _, table_hash = open_table(template)
    rows = _gather(searches, table_hash, None if results is None else Path(results), processes)
    return summary(rows)


# -- arguments --------------------------------------------------------------------------------------------------


def _data_folder() -> Path:
    return Path(os.environ.get("NAO_RAY_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _labels(strategies: str) -> Iterator[tuple[str, str]]:
    for word in strategies.split(","):
        label, _, name = word.strip().partition(":")
        yield label, name or label


def _sections(settings: Mapping[str, Any], known: Sequence[str]) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {name: {} for name in known}
    for key, value in settings.items():
        section, *path = key.split(".")
        if section not in sections or not path or not all(path):
            raise ConfigError(f"bench table {key}: expected key or SECTION.key with a SECTION of {', '.join(known)}")
        target = sections[section]
        for name in path[:-1]:
            target = target.setdefault(name, {})
        target[path[-1]] = value
    return sections


# -- the searches -----------------------------------------------------------------------------------------------


def _gather(searches: Sequence[Search], table_hash: str, folder: Path | None, processes: int) -> list[Row]:
    """The rows of all searches, in their order; those on disk are read, the others are made."""
    paths = [None if folder is None else folder / search.file_name(table_hash) for search in searches]
    found = [read_row(path, search) if path else None for path, search in zip(paths, searches, strict=True)]
    rows: dict[int, Row] = {number: row for number, row in enumerate(found) if row is not None}
    todo = {number: (searches[number], paths[number]) for number in range(len(searches)) if number not in rows}
    for number, row in _shown(_made(todo, processes), len(todo)):
        rows[number] = row
    return [rows[number] for number in sorted(rows)]


def _shown(made: Iterator[tuple[int, Row]], total: int) -> Iterator[tuple[int, Row]]:
    """The same, with a bar on the terminal, or ten lines where there is none."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(made, "searches", total=total, console=console, transient=True)
        return
    for done, item in enumerate(made, start=1):
        if total >= _LINES and done * _LINES // total > (done - 1) * _LINES // total:
            console.print(f"bench table: {done}/{total} searches")
        yield item


def _made(todo: Mapping[int, tuple[Search, Path | None]], processes: int) -> Iterator[tuple[int, Row]]:
    if processes == 1 or len(todo) < 2:
        for number, (search, path) in todo.items():
            yield number, _make(search, path)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), context, initializer=_one_thread) as pool:
        numbers = {pool.submit(_make, search, path): number for number, (search, path) in todo.items()}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make(search: Search, path: Path | None) -> Row:
    try:
        row = perform(search)
    except NaoRayError as error:
        raise RunError(f"bench table: {search.label}, seed {search.seed}: {error}") from error
    if path is not None:
        write_row(path, row)
    return row


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


# -- summaries --------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Row]) -> BenchResult:
    """One line per strategy: queries to the optimum, the best after some queries, and what it cost."""
    columns = ["strategy", "workers", "n", f"within {WITHIN}", "queries", "sd", "se", "valid@50", "test@50"]
    columns += ["valid@end", "test@end", "sim. hours", "CPU s", "scored", "of space", "scored/query"]
    groups = _groups(rows)
    table = [[label, workers, *_line(group)] for (label, workers), group in groups.items()]
    last = max((row["max_queries"] for row in rows), default=0)
    notes = [
        f"queries: until the table's best validation accuracy, mean over n seeds; a search that did not find it counts "
        f"as its {last} queries. With several workers a query counts when its result is in.",
        "valid@50, test@50: percent, of the best by validation after 50 queries. scored: genotypes that the predictor "
        "scored, and their share of the space, where a strategy does not say which at most the sum over its fits; "
        "scored/query: most for one fit.",
        machine(),
    ]
    if len({row["revision"] for row in rows}) > 1:
        notes.append("The searches were made by different revisions of the code.")
    return BenchResult(
        name="table", columns=columns, rows=table, notes=notes, data={"searches": list(map(_plain, rows))}
    )


def compare(rows: Sequence[Row], label: str = "nao", at: int = 50, controls_at: int = 200) -> BenchResult:
    """The best of `label` after `at` queries beside the best of every other strategy after `controls_at`.

    Raises:
        ConfigError: there is no such strategy, or a search ended earlier without the optimum.
    """
    groups = _groups(rows)
    if label not in {name for name, _ in groups}:
        raise ConfigError(f"bench table: no search of {label}; there are {', '.join(name for name, _ in groups)}")
    table = []
    for (name, workers), group in groups.items():
        queries = at if name == label else controls_at
        cells: list[object] = []
        for curve in ("curve_valid", "curve_test"):
            values = np.array([_after(row, curve, queries) for row in group])
            if curve == "curve_valid" and np.isnan(values).any():
                raise ConfigError(f"bench table: searches of {name} have no value after {queries} queries")
            cells += [f"{100 * value:.3f}" for value in (float(np.mean(values)), _standard_error(values))]
        table.append([name, workers, queries, len(group), *cells])
    columns = ["strategy", "workers", "queries", "n", "valid", "se", "test", "se of test"]
    notes = ["Accuracies in percent, of the best by validation after so many queries; mean over n seeds.", machine()]
    return BenchResult(name="table", columns=columns, rows=table, notes=notes)


def _groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["workers"]), []).append(row)
    return groups


def _line(group: Sequence[Row]) -> list[object]:
    queries = np.array([row["queries_to_optimum"] or row["max_queries"] for row in group], dtype=float)
    within = sum((row["queries_to_optimum"] or math.inf) <= WITHIN for row in group)
    best = [
        100 * float(np.mean([_after(row, curve, at) for row in group]))
        for at in (50, max(row["max_queries"] for row in group))
        for curve in ("curve_valid", "curve_test")
    ]
    means = [
        float(np.mean([row[name] for row in group])) for name in ("cpu_seconds", "scored", "scored_share_of_space")
    ]
    return [
        len(group),
        f"{within}/{len(group)}",
        float(queries.mean()),
        float(queries.std(ddof=1)) if len(group) > 1 else math.nan,
        _standard_error(queries),
        *(f"{value:.3f}" for value in best),
        float(np.mean([row["curve_hours"][-1] for row in group])),
        *means,
        max(row["scored_per_query_max"] for row in group),
    ]


def _after(row: Row, curve: str, queries: int) -> float:
    """The curve after so many queries; a search that stopped at the optimum keeps what it had. NaN: not that far."""
    values = row[curve]
    stopped = row["queries_to_optimum"] is not None and row["queries_to_optimum"] == len(values)
    if not len(values) or (queries > len(values) and not stopped):
        return math.nan
    return float(values[min(queries, len(values)) - 1])


def _standard_error(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _plain(row: Row) -> dict[str, object]:
    """The row for JSON: the curves at the checkpoints alone."""
    plain = {name: value for name, value in row.items() if not name.startswith("curve_")}
    for curve in ("curve_valid", "curve_test", "curve_oracle_test", "curve_hours"):
        values = {f"{curve.removeprefix('curve_')}@{at}": _after(row, curve, at) for at in CHECKPOINTS}
        plain |= {name: None if math.isnan(value) else value for name, value in values.items()}
    return plain
