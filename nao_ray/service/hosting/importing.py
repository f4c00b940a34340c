"""A pool made of a table of other people's results: CSV, Parquet or JSON lines, one trial per row.

All rows are read before anything is made, and written at once, so that no table is half in a pool. What cannot be read
is named with its row, from 1, the header not counted.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nao_ray.addresses import masked
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.errors import ConfigError, DataError, GenotypeError, PoolError
from nao_ray.evaluators.parts.table_config import less_is_better
from nao_ray.metric import Goal, Metric
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service.hosting.manifest import make_manifest
from nao_ray.service.hosting.table_files import read_table
from nao_ray.spaces.base import SearchSpace
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial

_SIZES = ("cells_per_stage", "channels", "layers", "hidden", "embedding_width")
_MEASURED = {
    "num_params": int, "macs": int, "peak_memory_bytes": int, "train_loss": float, "valid_loss": float,
    "wall_seconds": float, "device_seconds": float, "device": str,
}  # fmt: skip
TAKEN: Mapping[str, type] = {"epochs": int, "data_share": float, **dict.fromkeys(_SIZES, int), **_MEASURED, "seed": int}
"""Columns of a pool that a table's columns of the same name become, and their type."""
_SHOWN = 10  # rows that cannot be read, in one message


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What a table's columns mean."""

    genotype: str
    score: str
    metric: Metric
    in_percent: bool = False
    """Whether the scores are accuracies in percent, which a pool has in [0, 1]."""
    dialect: str | None = None
    """Notation of the genotypes; None: the space's own."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Columns by the name in `TAKEN` that they become, where theirs is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of an import."""

    pool_url: str
    rows: int
    """Of the table."""
    trials: int
    architectures: int
    """Different ones: a genotype that comes again is a repeat, another trial of the same."""
    taken: tuple[str, ...]
    """Columns that were, beside genotype and score."""
    ignored: tuple[str, ...]
    """Columns that were not."""
    left_out: tuple[str, ...]
    """Rows that could not be read, a line each."""


def metric_of_column(score: str, metric: str | None, goal: Goal | None, unit: str | None) -> tuple[Metric, bool]:
    """What a column of scores holds, and whether it is an accuracy in percent.

    Raises:
        ConfigError: by its name less of it is better, and nobody says so; or the three do not go together.
    """
    less = less_is_better(score)
    if goal is None and metric is None and less is not None:
        raise ConfigError(f"--score {score}: by its name less is better ({less}): give --goal minimize, or maximize")
    name = metric or ("accuracy" if goal != "minimize" and unit in (None, "percent", "fraction") else less or score)
    if name == "accuracy" and unit not in (None, "percent", "fraction"):
        raise ConfigError(f"--unit of an accuracy is percent or fraction, got {unit!r}; else give --metric its name")
    try:
        found = Metric(name, "" if name == "accuracy" else unit or "", goal or "maximize")
    except ValueError as error:
        raise ConfigError(f"--score {score}: {error}") from None
    return found, name == "accuracy" and unit == "percent"


def import_table(
    path: Path, space: Component, columns: Columns, pool_url: str | None = None, *, partial: bool = False
) -> Imported:
    """Make a pool of a table; of one that an earlier import of the same table has begun, the whole.

    Args:
        path: a file that ends in .csv, .tsv, .parquet, .jsonl, .ndjson or .json, also .gz.
        space: that its genotypes are of.
        columns: what they mean.
        pool_url: folder or URL; None: ``pools/`` and the file's name.
        partial: leave out the rows that cannot be read.

    Raises:
        ConfigError: there is no such space or column.
        DataError: the file cannot be read, or a row of it; no pool was made.
        PoolError: there is another pool already.
    """
    table = read_table(path)
    taken = _taken(columns, table.column_names, path)
    name = re.sub(r"[^A-Za-z0-9_.-]", ".", path.name.partition(".")[0]).lstrip("._-") or "imported"
    url = pool_url or f"pools/{name}"
    config = _config(name[:100], space, columns, table.num_rows)
    trials, faults = _trials(table, config.make_space(), columns, taken)
    if faults and not (partial and trials):
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else "")
        raise DataError(
            f"{path}: {len(faults):,} of {table.num_rows:,} rows cannot be read, and nothing was imported "
            f"(--partial takes the others): {shown}"
        )
    if not trials:
        raise DataError(f"{path} has no rows")
    _write(url, config, trials, _source(path, columns, taken, table.num_rows))
    used = {columns.genotype, columns.score, *taken.values()}
    return Imported(
        pool_url=url,
        rows=table.num_rows,
        trials=len(trials),
        architectures=len({trial.genotype for trial in trials}),
        taken=tuple(name if name == column else f"{name}={column}" for name, column in taken.items()),
        ignored=tuple(column for column in table.column_names if column not in used),
        left_out=tuple(faults),
    )


def _config(name: str, space: Component, columns: Columns, rows: int) -> RunConfig:
    metric = columns.metric
    return RunConfig(
        name=name,
        space=space,
        evaluator=Component.model_validate(
            {"name": "told", "metric": metric.name, "goal": metric.goal, "unit": metric.unit}
        ),
        strategy=Component(name="imported"),
        budget=Budget(trials=max(1, rows)),
    )


def _source(path: Path, columns: Columns, taken: Mapping[str, str], rows: int) -> dict[str, Any]:
    """What the manifest says of where the trials are from."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    means = {"genotype": columns.genotype, "score": columns.score, **taken}
    return {"file": path.name, "sha256": digest, "rows": rows, "columns": means}


def _write(url: str, config: RunConfig, trials: Sequence[Trial], source: Mapping[str, Any]) -> None:
    manifest = make_manifest(config, str(source["sha256"]), len(trials)) | {"imported": dict(source)}
    if not PoolReader.exists(url):
        pool = PoolWriter.create(url, manifest)
    else:
        pool = PoolWriter.open(url)
        kept = {key: pool.manifest.get(key) for key in ("imported", "config")}
        if kept != {"imported": manifest["imported"], "config": manifest["config"]}:
            raise PoolError(f"{masked(url)} is a pool already, and not of this table: give another --pool")
    now = datetime.now(UTC)
    with pool.acquire(ops=config.make_space().ops_by_cell):
        pool.record_asked([trial.proposal for trial in trials], now)
        pool.record_finished(trials)


# -- reading ------------------------------------------------------------------------------------------------


def _taken(columns: Columns, there: Sequence[str], path: Path) -> dict[str, str]:
    """The table's columns by the name in `TAKEN` that they become."""
    unknown = [name for name in columns.named if name not in TAKEN]
    if unknown:
        raise ConfigError(f"--column {unknown[0]}: a pool has no such column to give; it has {', '.join(TAKEN)}")
    for column in (columns.genotype, columns.score, *columns.named.values()):
        if column not in there:
            raise ConfigError(f"{path} has no column {column!r}; it has {', '.join(there)}")
    own = {name: name for name in TAKEN if name in there and name not in (columns.genotype, columns.score)}
    return {**own, **columns.named}


def _trials(
    table: pa.Table, space: SearchSpace[Any], columns: Columns, taken: Mapping[str, str]
) -> tuple[list[Trial], list[str]]:
    """A trial per row that can be read, and a line per row that cannot."""
    now = datetime.now(UTC)
    trials: list[Trial] = []
    faults: list[str] = []
    fractions = _fractions(table, columns) if columns.in_percent else {}
    for number, row in enumerate(_rows(table), start=1):
        try:
            if number in fractions:
                raise ValueError(fractions[number])
            proposal, measurement = _row(row, space, columns, taken)
        except (ValueError, GenotypeError) as error:
            faults.append(f"row {number}: {' '.join(str(error).split())}")
            continue
        index = len(trials)
        asked = Trial(proposal=replace(proposal, trial_id=index, file_row=number), asked_at=now)
        trials.append(asked.complete(measurement, log_index=index, finished_at=now))
    return trials, faults


def _fractions(table: pa.Table, columns: Columns) -> dict[int, str]:
    """What is wrong with rows of a column in percent that seem to be fractions, by their number.

    Chance among many classes is less than 1 percent too; it is no fraction, as a hundred times as much is rarely among
    the others.
    """
    texts = table[columns.score].to_pylist()
    values = np.array([_number(text) for text in texts])
    others = values[(values > 1) & (values <= 100)]
    if not len(others):
        return {}
    low, high = others.min(), others.max()
    seem = (values > 0) & (values <= 1) & (values * 100 >= low) & (values * 100 <= high)
    hint = f"where others are {low:g} to {high:g} percent; is it a fraction? Give the whole column in one unit"
    return {int(row) + 1: f"{columns.score} is {texts[row]} {hint}" for row in np.flatnonzero(seem)}


def _number(text: Any) -> float:  # noqa: ANN401 - a cell of a foreign table
    """NaN where it is none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _row(
    row: Mapping[str, Any], space: SearchSpace[Any], columns: Columns, taken: Mapping[str, str]
) -> tuple[Proposal, Measurement]:
    """What was measured, and what came of it.

    Raises:
        ValueError: a value is not what its column should hold.
        GenotypeError: the genotype is none of the space.
    """
    text = row[columns.genotype]
    if text is None or not str(text).strip():
        raise ValueError(f"{columns.genotype} is empty")
    genotype = space.canonical(space.parse(str(text), columns.dialect))
    found = {name: _value(row[column], TAKEN[name], column) for name, column in taken.items()}
    sizes = tuple(sorted((name, found[name]) for name in _SIZES if found.get(name) is not None))
    proposal = Proposal(
        genotype=genotype,
        tokens=tuple(space.encode(genotype).tolist()),
        fidelity=Fidelity(size=sizes, epochs=found.get("epochs"), data_share=found.get("data_share")),
        seed=found.get("seed") or 0,
        origin="imported",
    )
    measured: dict[str, Any] = {name: found.get(name) for name in _MEASURED}
    return proposal, Measurement(**measured, **columns.metric.measured(_score(row[columns.score], columns)))


def _score(value: Any, columns: Columns) -> float:  # noqa: ANN401
    """Raises ValueError."""
    score = _value(value, float, columns.score)
    if score is None:
        raise ValueError(f"{columns.score} is empty")
    score = score / 100 if columns.in_percent else score
    least, most = columns.metric.limits
    if not least <= score <= most:
        hint = "; give --unit percent" if columns.metric.name == "accuracy" and 1 < score <= 100 else ""
        raise ValueError(f"{columns.score} is {value}, of {columns.metric.name} [{least:g}, {most:g}] expected{hint}")
    return float(score)


def _value(value: Any, kind: type, column: str) -> Any:  # noqa: ANN401
    """A cell as a whole number, a finite number or text; None where it is empty. Raises ValueError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if kind is str:
        return str(value)
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{column} is {value!r}, expected a number") from None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError(f"{column} is {value}, expected a {'whole' if kind is int else 'finite'} number")
    return kind(number)
