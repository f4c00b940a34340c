"""Search within limits, and for two objectives, on NAS-Bench-201 with the latencies of HW-NAS-Bench.

The first part searches for accuracy under limits of latency and parameters: every strategy asks only for what keeps
them, so that random search and evolution are filtered too, and queries to the best architecture within them are
counted. The second searches for accuracy and latency at once: the share of the hypervolume of the whole table that a
search has after so many queries, above 80 % accuracy and below the table's largest latency.

    nao-ray bench limits seeds=30 results=study
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from nao_ray import pareto
from nao_ray.bench._data import data_folder
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import stored_row, write_row
from nao_ray.bench._summary import mean_and_error
from nao_ray.bench.tabular import positive
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.trial import Proposal, Trial

_STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "nao": {},
    "regularized_evolution": {"population": 20, "sample": 5},  # of 100 the first 100 queries would be random
    "random_search": {},
}
_MARKS = (50, 100, 200)
_LEAST_ACCURACY = 0.8
_PARTS = ("limits", "objectives")


def run(
    parts: str = ",".join(_PARTS),
    strategies: str = ",".join(_STRATEGIES),
    seeds: int = 30,
    max_queries: int = 200,
    device: str = "edgegpu",
    latency_ms: float = 4.0,
    num_params: float = 400_000,
    results: str | None = None,
) -> BenchResult:
    """Search `seeds` times with each strategy.

    Args:
        parts: `limits`, `objectives`, or both by commas.
        strategies: of nao, regularized_evolution and random_search, by commas.
        seeds: searches per strategy.
        max_queries: a search ends there; within limits also at the optimum.
        device: whose latency, a word in the columns of `hardware.parquet`.
        latency_ms: at most.
        num_params: at most.
        results: folder of finished searches; those that are there are not done again.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the tables are missing, or not what they should be.
    """
    chosen, names = (list(dict.fromkeys(text.split(","))) for text in (parts, strategies))
    if unknown := [name for name in (*chosen, *names) if name not in (*_PARTS, *_STRATEGIES)]:
        raise ConfigError(f"bench limits: no {unknown[0]!r}; there are {', '.join((*_PARTS, *_STRATEGIES))}")
    limits = {"latency_ms": f"<= {latency_ms}", "num_params": f"<= {num_params}"}
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        path = _joined(Path(folder) / "joined.parquet", device)
        for part in chosen:
            more: dict[str, Any] = (
                {"constraints": limits} if part == "limits" else {"objectives": ("valid_accuracy", "-latency_ms")}
            )
            for name in names:
                for seed in range(positive("seeds", seeds)):
                    config = _config(path, device, name, seed, more)
                    rows.append(_row(part, name, config, positive("max_queries", max_queries), results))
    return _result(rows, limits, device)


def _joined(path: Path, device: str) -> Path:
    """Both tables as one: they have the same rows."""
    folder = data_folder() / "nas_bench_201"
    column = f"cifar10_{device}_latency_ms"
    try:
        table, other = (pq.read_table(folder / f"{name}.parquet") for name in ("nas_bench_201", "hardware"))
        if not table["index"].equals(other["index"]):
            raise DataError(f"{folder}: hardware.parquet has other rows than nas_bench_201.parquet")
        pq.write_table(table.append_column(column, other[column]), path)
    except (OSError, KeyError) as error:
        raise DataError(f"{folder}: no latencies of {device}: {error}") from None
    return path


def _config(path: Path, device: str, strategy: str, seed: int, more: Mapping[str, Any]) -> RunConfig:
    table: dict[str, Any] = {"name": "tabular", "path": str(path), "valid": "cifar10_valid_acc_200"}
    table |= {"num_params": "params", "latency_ms": f"cifar10_{device}_latency_ms", "twins": "merge"}
    return RunConfig(
        name="limits",
        seed=seed,
        space=Component(name="nas_bench_201"),
        evaluator=Component(**table),
        strategy=Component(name=strategy, **_STRATEGIES[strategy]),
        budget=Budget(trials=1),
        **more,
    )


def _row(part: str, name: str, config: RunConfig, queries: int, results: str | None) -> dict[str, Any]:
    """Of one search, read or made."""
    data = config.to_data()
    what = json.dumps([{**data["evaluator"], "path": None}, *(data.get(key) for key in ("strategy", "constraints"))])
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    path = None if results is None else Path(results) / f"{part}-{name}-{digest}-q{queries}-s{config.seed:05d}.parquet"
    found = None if path is None else stored_row(path)
    if found is None:
        found = {"part": part, "strategy": name, "seed": config.seed, **_search(config, queries)}
        if path is not None:
            write_row(path, found)
    return found


def _search(config: RunConfig, queries: int) -> dict[str, Any]:
    """Ask, look up, tell; one worker."""
    strategy, table, began = config.make_strategy(), config.make_evaluator(), time.process_time()
    assert isinstance(table, Tabular)
    best, of_table, reference = _reachable(table, config)
    measured: list[tuple[float, float]] = []
    to_optimum = None
    while len(measured) < queries and (asked := strategy.ask(1)):
        (proposal,) = asked
        trial = Trial(proposal=proposal, attempt=1).complete(table.evaluate(proposal), log_index=len(measured))
        strategy.tell([trial])
        measured.append(_values(trial))
        if to_optimum is None and measured[-1][0] >= best:
            to_optimum = len(measured)
            if config.constraints:
                break
    values = np.array(measured)
    accuracies = np.maximum.accumulate(values[:, 0])
    shares = pareto.hypervolumes(values, reference) / of_table
    return {
        "queries_to_optimum": to_optimum,
        "regrets": [100 * (best - _at(accuracies, mark)) for mark in _MARKS],
        "shares": [_at(shares, mark) for mark in _MARKS],
        "cpu_seconds": time.process_time() - began,
    }


def _values(trial: Trial) -> tuple[float, float]:
    assert trial.measurement is not None
    assert trial.measurement.latency_ms is not None
    return trial.measurement.score, -trial.measurement.latency_ms


def _at(course: Any, mark: int) -> float:  # noqa: ANN401 - an array
    return float(course[min(mark, len(course)) - 1])


def _reachable(table: Tabular, config: RunConfig) -> tuple[float, float, list[float]]:
    """Of the table within the limits: the best accuracy, the hypervolume, and the point that it stands on."""
    kept = [genotype for genotype in table.genotypes() if table.limits.broken(table.figures(genotype)) is None]
    trials = [Trial(proposal=Proposal(genotype=genotype)) for genotype in kept]
    values = np.array([_values(trial.complete(table.evaluate(trial.proposal))) for trial in trials])
    if not len(values):
        raise ConfigError(f"bench limits: nothing in the table keeps {config.limits}")
    reference = [_LEAST_ACCURACY, float(values[:, 1].min())]
    return float(values[:, 0].max()), pareto.hypervolume(values, reference), reference


def _result(rows: list[dict[str, Any]], limits: Mapping[str, str], device: str) -> BenchResult:
    columns = ["part", "strategy", "n", "found", "queries to optimum", *(f"after {mark}" for mark in _MARKS), "CPU s"]
    lines = [_line(part, name, group) for (part, name), group in _groups(rows)]
    notes = [
        f"limits: {', '.join(f'{name} {limit}' for name, limit in limits.items())} (latency of {device}); regret in "
        "points of validation accuracy; objectives: share of the table's hypervolume in %, of accuracy and latency, "
        f"above {_LEAST_ACCURACY:.0%} and below the largest latency; mean and standard error; queries to the optimum "
        "of those that found it",
        machine(),
    ]
    return BenchResult(name="limits", columns=columns, rows=lines, notes=notes, data={"searches": rows})


def _groups(rows: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, str], list[dict[str, Any]]]]:
    for key in dict.fromkeys((row["part"], row["strategy"]) for row in rows):
        yield key, [row for row in rows if (row["part"], row["strategy"]) == key]


def _line(part: str, name: str, group: list[dict[str, Any]]) -> list[object]:
    found = [row["queries_to_optimum"] for row in group if row["queries_to_optimum"] is not None]
    marked = [
        [row["regrets"][at] if part == "limits" else 100 * row["shares"][at] for row in group]
        for at in range(len(_MARKS))
    ]
    cpu = math.fsum(row["cpu_seconds"] for row in group) / len(group)
    queries = mean_and_error(np.array(found, dtype=np.float64), 1) if len(found) > 1 else "-"
    return [
        part,
        name,
        len(group),
        len(found),
        queries,
        *(mean_and_error(np.array(values), 2) for values in marked),
        cpu,
    ]
