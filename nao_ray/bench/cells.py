"""Convolutional cells trained alike at equal multiply-adds: the published ones, and random ones beside them.

Each is as wide as makes its network's multiply-adds those asked for, and has the same data, recipe, epochs and seeds as
the others. A training is one of `nao-ray train`: validation is told, the test split is read once, at its end.

    nao-ray bench cells results=study
    nao-ray bench cells task=cifar10 task.path=cifar10.parquet task.image_size=16 recipe=fast_cifar10 results=study

Besides the arguments of `run`: ``task.KEY=value`` and ``recipe.KEY=value``, as `nao-ray train --set` takes them.
"""

from __future__ import annotations

import json
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nao_ray import registry, rng
from nao_ray.bench._gather import made
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row, stored_row, write_row
from nao_ray.bench._summary import Floats, metric_of, spread
from nao_ray.bench.tabular import positive
from nao_ray.config import TrainConfig
from nao_ray.errors import ConfigError, NaoRayError, RunError
from nao_ray.metric import to_plain
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.service.training.train import train
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import Genotype, SearchSpace

CELLS = "NAONet-B,DARTS_V2,ENAS-micro"
_MOST_CHANNELS = 1024
_COLUMNS = ["cell", "space", "channels", "parameters", "multiply-adds", "n", "validation", "test", "CPU s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One training, and where it is kept."""

    cell: str
    config: TrainConfig
    folder: Path


def run(
    cells: str = CELLS,
    random: int = 3,
    space: str = "nao_cnn_small",
    macs: int = 2_000_000,
    task: str = "fashion_mnist",
    recipe: str = "fast_fashion",
    seeds: int = 3,
    first_seed: int = 0,
    epochs: int | None = None,
    processes: int = 1,
    results: str | None = None,
    **settings: object,
) -> BenchResult:
    """Train every cell `seeds` times.

    Args:
        cells: published names, by commas.
        random: so many cells drawn at random beside them, the same ones every time.
        space: that they are drawn from.
        macs: multiply-adds of every network, as near as its channels allow.
        task: what is learnt.
        recipe: of all trainings; it also says how many cells a network has.
        seeds: trainings per cell, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        epochs: of a training; left out, the recipe's.
        processes: trainings side by side on this machine, one thread each.
        results: folder of the trainings, as `nao-ray train --out` fills it, and of `rows` of what they are worth here;
            a training that is there is not done again, and one that was interrupted goes on.
        **settings: ``task.KEY`` or ``recipe.KEY``.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: the data cannot be loaded, or a row on disk is none.
        RunError: a training failed.
    """
    for name, value in {"seeds": seeds, "processes": processes, "macs": macs}.items():
        positive(name, value)
    told = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    told += ["data=train", *([] if epochs is None else [f"epochs={epochs}"])]  # the others validate
    what = _published(str(cells)) | _drawn(random, space)
    configs = {cell: _config({**facts, "task": {"name": task}}, recipe, told, macs) for cell, facts in what.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if results is None else results)
        jobs = [
            _Job(cell=cell, config=config.model_copy(update={"seed": seed}), folder=folder)
            for cell, config in configs.items()
            for seed in range(first_seed, first_seed + seeds)
        ]
        rows = made(_perform, dict(enumerate(jobs)), processes)
        return _summary([rows[number] for number in range(len(jobs))], recipe)


# -- what is to be done ---------------------------------------------------------------------------------------


def _published(names: str) -> dict[str, dict[str, Any]]:
    """By name, the space and the genotype of a training.

    Raises:
        ConfigError: no space publishes such a cell.
    """
    spaces = [registry.load("space", name)() for name in registry.names("space")]
    home: dict[str, SearchSpace[Any]] = {cell: space for space in spaces for cell in space.published}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in home]:
        raise ConfigError(f"bench cells {unknown[0]}: no published cell; there are {', '.join(home)}")
    return {name: _facts(home[name], home[name].parse(name)) for name in wanted}


def _drawn(count: int, name: str) -> dict[str, dict[str, Any]]:
    space: SearchSpace[Any] = registry.load("space", name)()
    drawn = (space.sample(rng.child(0, "random cells", number)) for number in range(count))
    return {f"random {number}": _facts(space, genotype) for number, genotype in enumerate(drawn, start=1)}


def _facts(space: SearchSpace[Any], genotype: Genotype) -> dict[str, Any]:
    return {"space": {"name": space.name}, "genotype": genotype.key}


def _config(what: Mapping[str, Any], recipe: str, told: Sequence[str], macs: int) -> TrainConfig:
    """As wide as makes its multiply-adds the nearest to `macs`."""

    def widened(channels: int) -> TrainConfig:
        return TrainConfig.make(recipe, what, (*told, f"channels={channels}"))

    space = widened(2).make_space()
    skeleton, graph, shapes = (
        skeleton_of(space),
        space.lower(space.parse(what["genotype"])),
        widened(2).make_task().shapes,
    )

    def macs_of(half: int) -> int:
        return skeleton.count(graph, shapes, widened(2 * half).size).macs

    above = bisect_left(range(_MOST_CHANNELS // 2), macs, lo=1, key=macs_of)
    return widened(2 * min((max(above - 1, 1), above), key=lambda half: abs(macs_of(half) - macs)))


# -- one training ---------------------------------------------------------------------------------------------


def _perform(job: _Job) -> Row:
    """Train, or go on, or find it done."""
    first: list[int] = []
    began = time.process_time()
    try:
        trained = train(
            job.config, str(job.folder), job.cell.replace(" ", ""), listener=lambda step: first.append(step.done)
        )
    except NaoRayError as error:
        raise RunError(f"{job.cell}, seed {job.config.seed}: {error}") from error
    taken = time.process_time() - began
    path = job.folder / "rows" / f"{trained['name']}.parquet"
    row = stored_row(path)
    if row is None:
        metric = job.config.make_task().metric
        row = {
            "cell": job.cell,
            "space": job.config.space.name,
            "seed": job.config.seed,
            "name": trained["name"],
            "channels": dict(job.config.size.named)["channels"],
            "metric": json.dumps(to_plain(metric)),
            "valid": trained[metric.column],
            "test": trained[metric.test_column],
            "num_params": trained["num_params"],
            "macs": trained["macs"],
            "epochs": trained["epochs"],
            "cpu_seconds": taken if first[:1] == [1] else None,  # of a whole training alone
            "revision": source_revision() or "",
        }
        write_row(path, row)
    return row


# -- the table ------------------------------------------------------------------------------------------------


def _summary(rows: Sequence[Row], recipe: str) -> BenchResult:
    """By cell, the best first by validation, where there is some."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["cell"], []).append(row)
    metric = metric_of(rows[0])
    ordered = sorted(groups.values(), key=lambda group: -metric.score(_mean(group, "valid")))
    notes = [
        f"{metric.name.capitalize()}, mean ± standard deviation over n seeds; recipe {recipe}, epochs: "
        f"{rows[0]['epochs']}; the test split is read once, at the end of a training.",
        machine(),
    ]
    return BenchResult(
        name="cells",
        columns=_COLUMNS,
        rows=[_line(group) for group in ordered],
        notes=notes,
        data={"trainings": list(rows)},
    )


def _line(group: Sequence[Row]) -> list[object]:
    first = group[0]
    return [
        *(first[name] for name in ("cell", "space", "channels", "num_params", "macs")),
        len(group),
        *(spread(_values(group, name), 3) for name in ("valid", "test")),
        _mean(group, "cpu_seconds"),
    ]


def _values(group: Sequence[Row], name: str) -> Floats:
    return np.array([row[name] for row in group], dtype=np.float64)  # None is a NaN


def _mean(group: Sequence[Row], name: str) -> float:
    return float(_values(group, name).mean())
