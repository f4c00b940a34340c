"""One search on a table: the real strategy and loop, simulated workers, virtual time, everything counted.

A search is one row, written as a Parquet file of its own the moment it ends, so a study goes on where it stopped and
``pd.read_parquet(FOLDER)`` reads all of it. Curves have one value per finished query, in the order of the results.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray.bench._formula import Formula
from nao_ray.config import Budget as ConfigBudget
from nao_ray.config import Component, RunConfig
from nao_ray.config_fidelity import Rungs
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.metric import to_plain
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.service.hosting.manifest import settled, source_revision
from nao_ray.spaces.base import Genotype
from nao_ray.standings import Standings
from nao_ray.strategies.base import Earlier
from nao_ray.trial import Attempt, Diagnostics, Proposal, Trial

Row = dict[str, Any]
_NULLABLE = {"queries_to_optimum": pa.int64(), "started_at_optimum": pa.int64(), "hours_to_optimum": pa.float64()}
_NULLABLE |= {"fits_told": pa.list_(pa.string()), "curve_recommended": pa.list_(pa.float64())}
"""Types of columns that may be null or empty, so that all rows of a folder have one schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What one row is about. The mappings are settings as in a config, with the component's `name`."""

    label: str
    """How the strategy and its settings are called in the study."""
    table: str
    """How the table and its columns are called in the study."""
    space: Mapping[str, Any]
    evaluator: Mapping[str, Any]
    strategy: Mapping[str, Any]
    seed: int
    workers: int
    max_queries: int
    stop_at_optimum: bool
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    """Its ladder; empty: there is none."""

    def config(self) -> RunConfig:
        """The search as a config.

        Raises:
            ConfigError: a component or a setting does not exist.
        """
        return RunConfig(
            name="table",
            seed=self.seed,
            space=Component(**self.space),
            evaluator=Component(**self.evaluator),
            strategy=Component(**self.strategy),
            budget=ConfigBudget(trials=self.max_queries),
            fidelity=Rungs(**self.fidelity) if self.fidelity else None,
        )

    def file_name(self, table_hash: str) -> str:
        """Names the row; another table, column, setting or default, another name."""
        whole = self.config().to_data()
        space = whole["space"] if "path" not in whole["space"] else {**whole["space"], "path": None}
        what = [table_hash, {**whole["evaluator"], "path": None}, space, whole["strategy"]]
        what += [whole["fidelity"]] if self.fidelity else []
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.table}-{self.label}-{digest}-w{self.workers}-s{self.seed:05d}.parquet"


Judge = Tabular | Formula
"""What tells the truth about an architecture, and which is the best."""


def _tested(judge: Judge, genotype: Genotype) -> float:
    """On the test split; NaN where nothing is known of it."""
    return judge.test(genotype) if isinstance(judge, Tabular) and judge.config.test else float("nan")


class _Found(Exception):  # noqa: N818 - not an error
    """The optimum is known: the search may end."""


@dataclass(slots=True)
class Kept:
    """Of a search, beside its curves."""

    trials: list[Trial] = field(default_factory=list)
    fits: list[Diagnostics] = field(default_factory=list)


class _Notes:
    """What the loop would write to a pool, reduced to curves."""

    def __init__(self, table: Judge, clock: VirtualClock, stop_at_optimum: bool, kept: Kept | None = None) -> None:
        self._kept = kept
        self._table, self._clock, self._stop = table, clock, stop_at_optimum
        self._standings = Standings()
        self._score = table.measure.score
        self._seen_test = float("nan")
        self.started = self.failed = 0
        self.queries_to_optimum: int | None = None
        self.started_at_optimum: int | None = None
        self.hours_to_optimum: float | None = None
        self.valid: list[float] = []
        self.test: list[float] = []
        self.oracle_test: list[float] = []
        self.hours: list[float] = []
        self._truths: dict[int, float] = {}
        self._recommended: float | None = None
        self.recommended: list[float | None] = []
        self.scored: list[int] = []
        self.distinct_scored: int | None = None

    def record_asked(self, proposals: Sequence[Proposal], asked_at: datetime, attempts: Sequence[Attempt] = ()) -> None:
        self.record_attempts(attempts)

    def record_attempts(self, rows: Sequence[Attempt]) -> None:
        self.started += len(rows)

    def record_left(self, rows: Sequence[Attempt]) -> None:
        pass

    def record_log(self, trial_id: int, attempt: int, text: str) -> None:
        pass

    def record_budget(self, before: tuple[int | None, float | None], now: tuple[int | None, float | None]) -> None:
        pass

    def write_weights(self, version: str, weights: bytes, training: int | None = None) -> None:
        pass

    def record_finished(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if self._kept is not None:
                self._kept.trials.append(trial)
            self._take(trial)
            if self.queries_to_optimum is not None and self._stop:
                raise _Found

    def record_fits(self, rows: Sequence[Diagnostics]) -> None:
        if self._kept is not None:
            self._kept.fits += rows
        for row in rows:
            if (trial_id := row.get("recommended")) is not None:
                self._recommended = self._truths.get(int(trial_id))  # none of a lower rung's
            if (count := row.get("num_scored")) is not None:
                self.scored.append(int(count))
            if (count := row.get("num_scored_distinct")) is not None:  # so far, over all fits
                self.distinct_scored = int(count)

    def _take(self, trial: Trial) -> None:
        """Validation selects: the incumbent is the best by the score the strategy was told, of whole trainings."""
        valid = self.valid[-1] if self.valid else float("nan")
        test = self.test[-1] if self.test else float("nan")
        self.failed += trial.score is None
        rungs = self._table.rungs
        if trial.score is not None and (not rungs or trial.proposal.fidelity.epochs == rungs[-1]):
            truth = self._truths[trial.trial_id] = self._table.valid(trial.genotype)
            mine = _tested(self._table, trial.genotype)
            if mine == mine and not self._score(mine) <= self._score(self._seen_test):  # nothing seen is a NaN
                self._seen_test = mine
            if self._standings.add(trial.standing):
                valid, test = truth, mine
            if self._score(truth) >= self._score(self._table.best_valid) and self.queries_to_optimum is None:
                self.queries_to_optimum = len(self.valid) + 1
                self.started_at_optimum = self.started
                self.hours_to_optimum = self._clock.seconds() / 3600
        self.valid.append(valid)
        self.test.append(test)
        self.oracle_test.append(self._seen_test)
        self.hours.append(self._clock.seconds() / 3600)
        self.recommended.append(self._recommended)


@lru_cache(maxsize=4)
def _open(text: str) -> tuple[Judge, str]:
    config = RunConfig.parse(text)
    evaluator = config.make_evaluator()
    if not isinstance(evaluator, Judge):
        raise ConfigError(f"a study on a table needs the evaluator tabular, got {type(evaluator).__name__}")
    table_hash = evaluator.data_hash()
    table = settled(config, evaluator.settled()).make_evaluator()
    assert isinstance(table, Judge)
    return table, table_hash


def open_table(search: Search) -> tuple[Judge, str]:
    """The table of a search, and its hash; opened once per process.

    Raises:
        ConfigError: a component or a setting does not exist.
        DataError: the table is not what it should be.
    """
    plain = {"strategy": Component(name="random_search"), "seed": 0, "budget": ConfigBudget(trials=1)}
    return _open(search.config().model_copy(update=plain).to_yaml())


def perform(search: Search, earlier: Sequence[Earlier] = (), kept: Kept | None = None) -> Row:
    """Search, and say what came of it.

    Args:
        search: what.
        earlier: what its strategy learns from beside its own trials.
        kept: gets what the row does not have.
    """
    table, table_hash = open_table(search)
    config = settled(search.config(), table.settled())
    clock = VirtualClock()
    notes = _Notes(table, clock, search.stop_at_optimum, kept)
    began = time.process_time()
    loop = SearchLoop(
        notes,
        LocalProposer(config.make_strategy(earlier)),
        SimulatedExecutor(table, clock, workers=search.workers),
        Budget(trials=search.max_queries),
        clock=clock,
    )
    with suppress(_Found):
        loop.run()
    cpu_seconds = time.process_time() - began
    space_size = table.space.num_architectures
    scored = notes.distinct_scored if notes.distinct_scored is not None else min(sum(notes.scored), space_size)
    return {
        **{name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in asdict(search).items()},
        "table_hash": table_hash,
        "metric": json.dumps(to_plain(table.measure)),
        "queries": len(notes.valid),
        "failed": notes.failed,
        "queries_to_optimum": notes.queries_to_optimum,
        "started_at_optimum": notes.started_at_optimum,
        "hours_to_optimum": notes.hours_to_optimum,
        "curve_valid": notes.valid,
        "curve_test": notes.test,
        "curve_oracle_test": notes.oracle_test,
        "curve_hours": notes.hours,
        "curve_recommended": notes.recommended,
        "best_valid_of_table": table.best_valid,
        "median_valid_of_table": table.median_valid,
        "cpu_seconds": cpu_seconds,
        "fits": len(notes.scored),
        "scored": scored,
        "scored_is_distinct": notes.distinct_scored is not None,
        "scored_share_of_space": scored / space_size,
        "scored_per_query_max": max(notes.scored, default=0),
        "revision": source_revision() or "",
    }


# -- rows on disk ---------------------------------------------------------------------------------------------


def read_row(path: Path, search: Search) -> Row | None:
    """The row of an earlier study, cut to this search's limits; None where there is none that went far enough.

    Raises:
        DataError: the file is not a row.
    """
    return stored_row(path, lambda row: _cut(row, search))


def stored_row(path: Path, fit: Callable[[Row], Row | None] = lambda row: row) -> Row | None:
    """The row of a file, made to `fit`; None where there is no such file.

    Raises:
        DataError: the file is not a row.
    """
    if not path.is_file():
        return None
    try:
        row: Row = pq.read_table(path).to_pylist()[0]
        return fit(row)
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a row of a study ({reason}): remove it, it is measured again") from None


def _cut(row: Row, search: Search) -> Row | None:
    found = row["queries_to_optimum"]
    stopped = found is not None and row["queries"] == found
    if row["queries"] < search.max_queries and not (stopped and search.stop_at_optimum):
        return None
    end = search.max_queries
    if found is not None and found > end:
        row |= {"queries_to_optimum": None, "started_at_optimum": None, "hours_to_optimum": None}
    elif found is not None and search.stop_at_optimum:
        end = min(end, found)
    for name in [name for name in row if name.startswith("curve_")]:
        row[name] = list(row[name])[:end]
    return row | {"queries": min(row["queries"], end), "max_queries": search.max_queries}


def write_row(path: Path, row: Row) -> None:
    """Never half-written: under a name that readers skip, then moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    columns = {name: pa.array([value], _NULLABLE.get(name)) for name, value in row.items()}
    pq.write_table(pa.table(columns), temporary)
    os.replace(temporary, path)
