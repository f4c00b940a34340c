"""A pool of a million trials, read as users read it: from pandas, from the shell.

The rows are made up and have what those of a NAO search have: genotypes of nao_cnn and their tokens, float32
embeddings for all but the seeds, a curve of eight epochs, some failures. They are written in the pool's own schema and
parts, events too, and merged by the pool itself, so that its layout is a user's. Every reader is a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nao_ray import registry, rng
from nao_ray.bench._scale_row import Row
from nao_ray.errors import RunError
from nao_ray.pool import EVENTS, TRIALS, PoolWriter
from nao_ray.trial import FailureKind, TrialState

COLUMNS = ("trial_id", "state", "valid_accuracy", "num_params", "round", "wall_seconds")
_PART_ROWS = 10_000
_CELLS = 2000  # genotypes sampled; the made-up ones pair the normal cell of one with the reduction cell of another
_HIDDEN = 64  # width of an embedding, as of the default controller
_EPOCHS = 8
_SEEDS = 0.05  # share of trials that were not decoded, at the beginning
_FAILED = 0.02
_FIRST = 1_767_225_600_000_000  # microseconds: the first trial is asked at the beginning of 2026
_SECONDS = 30  # a trial takes

_READER = """
import json, sys, time
start = time.perf_counter()
import pandas as pd
imported = time.perf_counter()
frame = pd.read_parquet(sys.argv[1] + "/trials", columns=json.loads(sys.argv[2]))
read = time.perf_counter()
if "state" in frame:
    small = frame[(frame["state"] == "COMPLETED") & (frame["num_params"] < 3_000_000)]
    filtered = time.perf_counter()
    best = small.sort_values(["valid_accuracy", "trial_id"], ascending=[False, True]).head(100)
    ranked, used = time.perf_counter(), time.process_time()
from nao_ray.bench._process import peak_memory
print(json.dumps({
    "rows": len(frame), "imports": imported - start, "read": read - imported, "filter": filtered - read,
    "rank": ranked - filtered, "cpu": used,
    "peak_bytes": peak_memory(),
}))
"""


def measure(trials: int = 1_000_000, shell_trials: int = 100_000, repeats: int = 5, seed: int = 0) -> list[Row]:
    """Make the pools, read them; medians over `repeats`, but once for all columns.

    Args:
        trials: rows of the pool read from pandas.
        shell_trials: rows of the pool asked from the shell.
        repeats: of each reading, each in a process of its own.
        seed: of what the rows hold.

    Raises:
        RunError: a reader failed, or did not find all rows.
    """
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder:
        large, small, empty = (Path(folder, name) for name in ("large", "small", "empty"))
        made = [_made(large, trials, seed), *_read(large, trials, repeats)]
        make_pool(small, shell_trials, seed)
        make_pool(empty, 1, seed)
        return [*made, *_ask(small, empty, shell_trials, repeats)]


# -- the pool -----------------------------------------------------------------------------------------------


def make_pool(url: Path, trials: int, seed: int) -> float:
    """A pool of so many made-up trials, merged; returns the seconds of the merging."""
    pool = PoolWriter.create(
        url, {"config": {"name": "scale", "space": "nao_cnn", "strategy": "nao", "task": "cifar10"}}
    )
    with pool.acquire():
        for first in range(0, trials, _PART_ROWS):
            made = trial_rows(first, min(_PART_ROWS, trials - first), trials, seed)
            pool.record_tables(made, _events(made))
        start = time.perf_counter()
        pool.compact()
    return time.perf_counter() - start


def trial_rows(first: int, count: int, trials: int, seed: int) -> pa.Table:
    """So many finished trials from `first` on, of a search of `trials` in all."""
    draw = rng.child(seed, "scale pool", first)
    ids = np.arange(first, first + count)
    decoded, failed = ids >= _SEEDS * trials, draw.random(count) < _FAILED
    texts, tokens, operations = _genotypes(draw, count, seed)
    accuracy = 0.97 - 0.3 * draw.beta(2, 5, count) * np.where(decoded, 0.6, 1.0)
    curve = accuracy[:, None] * (1 - 0.5 ** np.arange(1, _EPOCHS + 1)) + draw.normal(0, 0.01, (count, _EPOCHS))
    embedding = draw.normal(0, 0.3, (count, _HIDDEN)).astype(np.float32).astype(np.float64)
    params = draw.integers(500_000, 5_000_000, count)
    asked = _FIRST + ids * _SECONDS * 1_000_000
    seconds = draw.gamma(20, _SECONDS / 20, count)
    ended = asked + (seconds * 1e6).astype(np.int64)
    started = asked + draw.integers(1000, 100_000, count)
    columns: dict[str, Any] = {
        "trial_id": ids,
        "attempt": np.ones(count, dtype=np.int64),
        "strategy": ["nao"] * count,
        "space": ["nao_cnn"] * count,
        "genotype": texts,
        "tokens": _lists(tokens),
        "embedding": _lists(embedding, ~decoded),
        "predicted_score": _where(decoded, accuracy + draw.normal(0, 0.02, count)),
        "predicted_spread": _where(decoded, draw.gamma(4, 0.005, count)),
        "source_trial_id": _where(decoded, (ids * draw.random(count)).astype(np.int64)),
        "source_step_size": _where(decoded, draw.integers(1, 31, count).astype(np.float64)),
        "round": ids // 200,
        "epochs": np.full(count, _EPOCHS),
        "cells_per_stage": np.full(count, 2),
        "channels": np.full(count, 16),
        "task": ["cifar10"] * count,
        "state": np.where(failed, TrialState.FAILED.value, TrialState.COMPLETED.value),
        "failure_kind": _where(failed, np.full(count, FailureKind.OUT_OF_MEMORY.value)),
        "failure_message": _where(failed, np.full(count, "OutOfMemoryError: CUDA out of memory, tried 1.2 GiB")),
        "valid_accuracy": _where(~failed, accuracy),
        "valid_loss": _where(~failed, 3.5 * (1 - accuracy)),
        "train_loss": _where(~failed, 2.5 * (1 - accuracy)),
        "curve": _lists(curve, failed),
        "num_params": _where(~failed, params),
        "macs": _where(~failed, params * 150),
        "wall_seconds": _where(~failed, seconds),
        "device_seconds": _where(~failed, 0.98 * seconds),
        "peak_memory_bytes": _where(~failed, 2**30 + 400 * params),
        "device": _where(~failed, np.full(count, "cuda:0")),
        "network": _where(~failed, np.full(count, "cifar10")),
        "num_classes": _where(~failed, np.full(count, 10)),
        "in_channels": _where(~failed, np.full(count, 3)),
        "normal_ops": _lists(operations[0]),
        "reduction_ops": _lists(operations[1]),
        "node": np.char.add("node-", draw.integers(0, 32, count).astype(str)),
        "seed": draw.integers(0, 2**31, count),
        "asked_at": asked,
        "started_at": started,
        "finished_at": np.maximum(ended, started),
        "asked_after": np.maximum(0, ids - 64),
        "log_index": ids,
    }
    return _table(columns, count, TRIALS)


def _events(trials: pa.Table) -> pa.Table:
    """That the trials were asked and started."""
    shared: dict[str, Any] = {name: trials[name] for name in EVENTS.names if name in trials.column_names}
    ids, count = trials["trial_id"].to_numpy(), len(trials)
    asked = {**shared, "seq": 2 * ids, "kind": ["asked"] * count, "attempt": np.zeros(count, dtype=np.int64)}
    asked |= {"node": None, "at": trials["asked_at"]}
    begun = {"seq": 2 * ids + 1, "kind": ["attempt"] * count, "trial_id": ids, "attempt": trials["attempt"]}
    begun |= {"at": trials["started_at"]}
    return pa.concat_tables([_table(asked, count, EVENTS), _table(begun, count, EVENTS)]).sort_by("seq")


def _table(columns: dict[str, Any], count: int, schema: pa.Schema) -> pa.Table:
    def column(field: pa.Field) -> Any:  # noqa: ANN401 - an array, chunked or not
        values = columns.get(field.name)
        if values is None:
            return pa.nulls(count, field.type)
        if isinstance(values, pa.Array | pa.ChunkedArray):
            return values.cast(field.type)
        return pa.array(values, field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _where(known: NDArray[np.bool_], values: NDArray[Any]) -> pa.Array[Any]:
    return pa.array(values, mask=~known)


def _lists(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> pa.Array[Any]:
    """A list for each row of ``values [N, L]``; null where `missing`."""
    offsets = pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, values.ravel(), mask=None if missing is None else pa.array(missing))


def _genotypes(
    draw: np.random.Generator, count: int, seed: int
) -> tuple[list[str], NDArray[np.int64], tuple[NDArray[Any], NDArray[Any]]]:
    """Genotypes of nao_cnn, their tokens, ``[count, L]``, and the operations of both cells, ``[count, L / 4]``."""
    numbers, tokens, (normal_ops, reduction_ops) = _cells(seed)
    half = numbers.shape[1] // 2
    normal, reduction = (draw.integers(0, len(numbers), count) for _ in range(2))
    first, second = ([" ".join(row) for row in part] for part in (numbers[:, :half], numbers[:, half:]))
    texts = [f"{first[i]} {second[j]}" for i, j in zip(normal.tolist(), reduction.tolist(), strict=True)]
    both = np.concatenate([tokens[normal, :half], tokens[reduction, half:]], axis=1)
    return texts, both, (normal_ops[normal], reduction_ops[reduction])


@lru_cache(maxsize=1)
def _cells(seed: int) -> tuple[NDArray[Any], NDArray[np.int64], tuple[NDArray[Any], NDArray[Any]]]:
    cls = registry.load("space", "nao_cnn")
    space, draw = cls(cls.Config()), rng.child(seed, "scale pool cells")
    sampled = [space.sample(draw) for _ in range(_CELLS)]
    numbers = np.array([genotype.key.split() for genotype in sampled])
    operations = [space.ops_by_cell(genotype) for genotype in sampled]
    normal, reduction = (np.array([cells[role] for cells in operations]) for role in ("normal", "reduction"))
    return numbers, np.array([space.encode(genotype) for genotype in sampled], dtype=np.int64), (normal, reduction)


# -- readers ------------------------------------------------------------------------------------------------


def _made(url: Path, trials: int, seed: int) -> Row:
    start = time.perf_counter()
    merging = make_pool(url, trials, seed)
    seconds = time.perf_counter() - start
    sizes = {
        folder: [file.stat().st_size for file in (url / folder).glob("*.parquet")] for folder in ("trials", "events")
    }
    return Row(
        measurement="large pool: on disk",
        setting=f"{trials:,} trials",
        figure=f"trials {_size(sizes['trials'])}, events {_size(sizes['events'])}, merged in {merging:.0f} s",
        data={"seconds": seconds, "merge_seconds": merging, "bytes": sizes},
    )


def _size(parts: list[int]) -> str:
    return f"{sum(parts) / 1e6:,.0f} MB in {len(parts)} part{'s' * (len(parts) > 1)}"


def _read(url: Path, trials: int, repeats: int) -> list[Row]:
    """Six columns, then all of them."""
    found = []
    for what, columns, n in (("six columns", list(COLUMNS), repeats), ("all columns", None, 1)):
        times = [_pandas(url, trials, columns) for _ in range(n)]
        median = {name: statistics.median(time[name] for time in times) for name in times[0]}
        whole = median["read"] + median["filter"] + median["rank"]
        row = Row(
            measurement=f"large pool: pandas, {what}",
            setting=f"{trials:,} trials, read, filter, rank; median of n = {n}, files in the page cache",
            figure=(
                f"{whole:.2f} s ({median['read']:.2f} + {median['filter']:.2f} + {median['rank']:.2f}), at most "
                f"{median['peak_bytes'] / 1e9:.1f} GB; besides, {median['imports']:.1f} s to import pandas"
            ),
            data={"seconds": whole, "times": times},
        )
        found.append(row)
    return found


def _pandas(url: Path, trials: int, columns: list[str] | None) -> dict[str, float]:
    words = [sys.executable, "-c", _READER, str(url), json.dumps(columns)]
    times: dict[str, float] = json.loads(_output(words))
    if times["rows"] != trials:
        raise RunError(f"bench scale: pandas found {times['rows']:,.0f} of {trials:,} trials")
    return times


def _ask(url: Path, empty: Path, trials: int, repeats: int) -> list[Row]:
    """The command line, against the same command on a pool of one trial."""
    where = "where state = 'COMPLETED' and num_params < 3000000"
    query = f"select trial_id, valid_accuracy from trials {where} order by valid_accuracy desc, trial_id limit 100"
    counted = json.loads(_output(_command(url, ("sql", "select count(*) as n from trials", "--json"))))
    if counted != [{"n": trials}]:
        raise RunError(f"bench scale: the shell counts {counted} of {trials:,} trials")
    found = []
    for words in (("best",), ("sql", query)):
        seconds, start_up = (statistics.median(_seconds(pool, words) for _ in range(repeats)) for pool in (url, empty))
        row = Row(
            measurement=f"large pool: nao-ray pool POOL {words[0]}",
            setting=f"{trials:,} trials; median of n = {repeats} commands",
            figure=f"{seconds:.2f} s, {start_up:.2f} s of it on a pool of one trial: imports",
            data={"seconds": seconds, "start_up_seconds": start_up},
        )
        found.append(row)
    return found


def _seconds(url: Path, words: tuple[str, ...]) -> float:
    start = time.perf_counter()
    _output(_command(url, words))
    return time.perf_counter() - start


def _command(url: Path, words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "nao_ray", "pool", str(url), *words]


def _output(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = ran.stderr.strip().rpartition("\n")[2]
        raise RunError(f"bench scale: {' '.join(command[1:3])} ended with {ran.returncode}: {last}")
    return ran.stdout
