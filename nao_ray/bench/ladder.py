"""What a ladder of fidelities saves: device time to the same quality with it and without, on tables with both.

Each search is made three times with a seed: with every architecture trained for all epochs (`whole`), on the ladder
(`ladder`), and with every one trained as on the first rung, of which the best so far is then trained for all epochs
(`first`). Quality is the validation score after all epochs, of the best by validation: as good as the whole one's is
after 50 queries, and as good as the best of the table. Device time is what all workers take by the table's seconds: a
rung has its share of a whole training's; a trial that goes on pays all epochs of its rung again unless
``evaluator.resumes=true``, for in NAS-Bench-201 the few epochs are a training of their own.

    nao-ray bench ladder workers=1,8 results=study
    nao-ray bench ladder keep=0.33 strategies=nao,bold:nao bold.spread_weight=3
    nao-ray bench ladder path=FILE valid=acc_{epochs} cost=seconds epochs=4,36,108
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nao_ray.bench._gather import made
from nao_ray.bench._ladder_summary import FIRST, LADDER, WHOLE, summary
from nao_ray.bench._result import BenchResult
from nao_ray.bench._study import Kept, Row, Search, open_table, perform, stored_row, write_row
from nao_ray.bench.tabular import Column, labelled, numbers, positive, tables
from nao_ray.config_fidelity import Rungs
from nao_ray.errors import ConfigError
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.tabular import Tabular
from nao_ray.trial import Trial

_VALID = "{dataset}_valid_acc_{epochs}"


@dataclass(frozen=True, slots=True)
class _Job:
    search: Search
    judge: Mapping[str, Any]
    """Settings of the evaluator after all epochs."""
    folder: Path | None


def run(
    strategies: str = "nao,random_search,regularized_evolution",
    epochs: str | Sequence[int] = "12,200",
    keep: float = 0.1,
    seeds: int = 20,
    first_seed: int = 0,
    workers: int | str = 1,
    max_queries: int = 60,
    processes: int = 1,
    results: str | None = None,
    path: str | None = None,
    datasets: str | None = None,
    valid: Column = None,
    cost: Column = None,
    space: str = "nas_bench_201",
    **settings: object,
) -> BenchResult:
    """Search with each strategy on each table in each of the three ways.

    Args:
        strategies: names, or ``LABEL:NAME`` to have one with several settings; by commas.
        epochs: of the rungs, ascending; by commas.
        keep: share of a rung that goes on; the rungs of the default are 17 times as many epochs apart.
        seeds: searches per strategy and way, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        workers: simulated workers; several numbers by commas.
        max_queries: whole trainings, or their device time, that a search ends after, or at the best of the table.
        processes: of this machine, one thread each.
        results: folder of finished searches; those that are there are not done again.
        path: as for `nao-ray bench tabular`, and so are the next four; a column's name has ``{epochs}``.
        datasets: see there.
        valid: see there.
        cost: see there.
        space: see there.
        **settings: ``LABEL.key``, ``evaluator.key`` or ``space.key``.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table is not what it should be.
        RunError: a search failed.
    """
    rungs = Rungs(epochs=_epochs(epochs), keep=keep)
    named, sections = labelled("ladder", strategies, settings, ("evaluator", "space"))
    columns = {"valid": valid or (_VALID if path is None else None), "test": None, "cost": cost}
    known = tables(path, datasets, columns, sections["evaluator"])
    if free := [table for table, evaluator in known.items() if not evaluator.get("cost")]:
        raise ConfigError(
            f"bench ladder: nothing says what a training on {free[0]} takes: give cost, a column of seconds"
        )
    jobs = [
        _Job(search, evaluator, None if results is None else Path(results))
        for table, evaluator in known.items()
        for number in numbers(workers)
        for label, strategy in named.items()
        for seed in range(first_seed, first_seed + positive("seeds", seeds))
        for search in _ways(
            Search(
                label=label,
                table=table,
                space={"name": space, **sections["space"]},
                evaluator=evaluator,
                strategy=strategy,
                seed=seed,
                workers=number,
                max_queries=positive("max_queries", max_queries),
                stop_at_optimum=True,
            ),
            rungs,
        )
    ]
    jobs = [replace(job, judge={**job.judge, "epochs": rungs.top}) for job in jobs]
    found = {number: row for number, job in enumerate(jobs) if (row := _stored(job)) is not None}
    todo = {number: job for number, job in enumerate(jobs) if number not in found}
    found |= made(_make, todo, positive("processes", processes))
    return summary([found[number] for number in range(len(jobs))], rungs)


def _epochs(given: str | Sequence[int]) -> tuple[int, ...]:
    words = given.split(",") if isinstance(given, str) else [str(each) for each in given]
    if not all(word.strip().isdecimal() for word in words):
        raise ConfigError(f"bench ladder: epochs must be whole numbers by commas, e.g. 12,200, got {given}")
    return tuple(int(word) for word in words)


def _ways(search: Search, rungs: Rungs) -> list[Search]:
    """The same search in the three ways, each for the same device time at most."""
    shares = [rungs.keep**number for number in range(len(rungs.epochs))]
    spent = sum(share * epochs for share, epochs in zip(shares, rungs.epochs, strict=True)) / rungs.top
    whole = replace(search, evaluator={**search.evaluator, "epochs": rungs.top}, label=f"{search.label} {WHOLE}")
    first = {**search.evaluator, "epochs": rungs.epochs[0]}
    on_first = min(search.max_queries * rungs.top // rungs.epochs[0], 5 * search.max_queries)
    return [
        whole,
        replace(
            whole,
            label=f"{search.label} {LADDER}",
            fidelity=rungs.model_dump(mode="json"),
            max_queries=round(search.max_queries * sum(shares) / spent),
        ),
        replace(search, evaluator=first, label=f"{search.label} {FIRST}", max_queries=on_first),
    ]


# -- searches -------------------------------------------------------------------------------------------------


def _path(job: _Job) -> Path | None:
    name = job.search.file_name(open_table(job.search)[1]).replace(" ", "-")
    return None if job.folder is None else job.folder / f"ladder-q{job.search.max_queries}-{name}"


def _stored(job: _Job) -> Row | None:
    path = _path(job)
    return None if path is None else stored_row(path)


def _make(job: _Job) -> Row:
    kept = Kept()
    row = perform(job.search, (), kept)
    row["curve_epochs"] = [trial.proposal.fidelity.epochs for trial in kept.trials]
    row["fits_told"] = [str(fit["rung_weights"]) for fit in kept.fits if "rung_weights" in fit]
    row["best_valid_of_whole"] = row["best_valid_of_table"]
    row["curve_more_hours"] = [0.0] * len(kept.trials)
    if job.search.label.endswith(FIRST):
        row |= _trained_on(job, kept, row["curve_hours"])
    if (path := _path(job)) is not None:
        write_row(path, row)
    return row


def _trained_on(job: _Job, kept: Kept, curve_hours: Sequence[float]) -> Row:
    """Curves of the best by the first rung, as if it was trained for all epochs at that moment.

    A column of costs without ``{epochs}`` has whole trainings' seconds, which the search took for its own.
    """
    judge, _ = open_table(replace(job.search, evaluator=job.judge))
    assert isinstance(judge, Tabular)
    valid, hours = [], []
    best: Trial | None = None
    for trial in kept.trials:
        if trial.score is not None and (best is None or best.score is None or trial.score > best.score):
            best = trial
        valid.append(float("nan") if best is None else judge.valid(best.genotype))
        hours.append(0.0 if best is None else (judge.seconds(best.genotype) or 1.0) / 3600)
    settings = {key: value for key, value in job.judge.items() if key != "name"}
    share = TabularConfig(**settings).share_of_cost(job.search.evaluator["epochs"])
    return {
        "curve_valid": valid,
        "curve_hours": [share * each for each in curve_hours],
        "curve_more_hours": hours,
        "best_valid_of_whole": judge.best_valid,
    }
