"""Searches on images whose children are really trained, and the noise that they search in.

Every strategy gets the same space, task, children and number of trials, those of one preset. Three things are measured:

- the noise: random architectures, each trained as a child of the search with several seeds. How far the trainings of
  one differ says what a score is worth, how far architectures differ what there is to find;
- the searches: the best by validation after so many trials, and the mean of what is proposed once the first random
  trials are over, which noise disturbs less than the best does;
- the finalists: the best of each search by its own validation scores, trained with other seeds for longer, all alike,
  and only then read on the test split. With `table`, a table of the space's trained architectures, the best of each
  search is judged by what the table says of it, too.

    nao-ray bench images parts=noise task.path=cifar10.parquet results=study
    nao-ray bench images task.path=cifar10.parquet table=nas_bench_201.parquet results=study
    nao-ray bench images task.path=cifar10.parquet evaluator.channels=16 budget.trials=300 results=on_a_gpu

Children train where `evaluator.device` says, on a GPU if there is one. Besides the arguments of `run`:
``SECTION.key=value`` sets a value of all searches, with a section of space, task, evaluator and budget;
``LABEL.key=value`` one of a strategy.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nao_ray import rng
from nao_ray.bench._gather import made
from nao_ray.bench._images_summary import Judge, ordered, summary
from nao_ray.bench._noise import Repeat, done, measure
from nao_ray.bench._result import BenchResult
from nao_ray.bench._study import Row, write_row
from nao_ray.bench.shared import name_of
from nao_ray.bench.tabular import labelled, positive
from nao_ray.bench.texts import seconds_of, trained_alone
from nao_ray.config import Component, RunConfig, TrainConfig
from nao_ray.errors import ConfigError, NaoRayError, RunError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.metric import to_plain
from nao_ray.pool import PoolReader
from nao_ray.preset_files import find_config
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.service.hosting.run import run as search_with
from nao_ray.service.training.train import train

STRATEGIES = "nao,random_search,regularized_evolution"
PARTS = "noise,searches,finalists"
_SECTIONS = ("space", "task", "evaluator", "budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One search, and where its row and its pool are kept."""

    label: str
    config: RunConfig
    name: str
    folder: Path

    @property
    def row(self) -> Path:
        """Its file."""
        return self.folder / "rows" / f"{self.name}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """Of a finalist."""

    config: TrainConfig
    folder: Path


def run(
    search: str = "cifar10_201_small",
    strategies: str = STRATEGIES,
    parts: str = PARTS,
    seeds: int = 3,
    first_seed: int = 0,
    after: int = 20,
    noise: int = 12,
    repeats: int = 3,
    finalists: int = 3,
    trainings: int = 1,
    epochs: int | None = None,
    table: str | None = None,
    truth: str = "cifar10_test_acc_200",
    processes: int = 1,
    results: str | None = None,
    **settings: object,
) -> BenchResult:
    """Search with every strategy, `seeds` times each, and train what was found for longer.

    Args:
        search: name of a preset or path of a config, whose strategy is left aside.
        strategies: names, or ``LABEL:NAME`` to have one with several settings; by commas.
        parts: what is measured, of noise, searches and finalists, by commas; finalists need the searches.
        seeds: searches per strategy, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        after: trials that do not count as proposed by a strategy, for they are random in some.
        noise: random architectures that the noise is measured on.
        repeats: trainings of each of them.
        finalists: of each search, the best by its own validation scores.
        trainings: of each finalist, from different weights; alike for all of them.
        epochs: of a training of a finalist, on the whole training split; left out, five times those of a child.
        table: Parquet or CSV file of the space's architectures, trained by others.
        truth: its column.
        processes: searches or trainings side by side on this machine, one thread each.
        results: folder of `rows` of what has ended, which is not done again, of the searches' `pools`, from which one
            that was interrupted goes on, and of the finalists' trainings, as `nao-ray train --out` fills it.
        **settings: ``SECTION.key`` of all searches, or ``LABEL.key`` of a strategy.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: the data cannot be loaded, or a row on disk is none.
        RunError: a search or a training failed.
    """
    counts = {"seeds": seeds, "noise": noise, "repeats": repeats, "finalists": finalists, "trainings": trainings}
    for name, value in {**counts, "processes": processes}.items():
        positive(name, value)
    wanted = _parts(parts)
    configs = _configs(search, strategies, settings)
    plain = next(iter(configs.values()))
    judge = None if table is None else _judge(plain, table, truth)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if results is None else results)
        again = [Repeat.of(plain, seed, noise, folder) for seed in range(repeats)] if "noise" in wanted else []
        jobs = [
            _search_job(*item, seed, folder)
            for seed in range(first_seed, first_seed + seeds)
            for item in configs.items()
        ]
        noisy = done(measure, again, processes)
        rows = done(_perform, jobs, processes) if "searches" in wanted else []
        chosen = dict.fromkeys(genotype for row in rows for genotype, _ in ordered(row)[:finalists])
        longer = epochs or 5 * trained_alone(plain).epochs
        todo = [
            _Training(config=_finalist(plain, genotype, longer, index), folder=folder)
            for index in range(trainings if "finalists" in wanted else 0)
            for genotype in chosen
        ]
        anew = made(_train, dict(enumerate(todo)), processes)
    return summary(
        rows, noisy, [anew[number] for number in sorted(anew)], finalists=finalists, after=after, judge=judge
    )


# -- what is to be done ---------------------------------------------------------------------------------------


def _parts(parts: str) -> list[str]:
    """The parts to be measured.

    Raises:
        ConfigError: one is unknown, or needs another.
    """
    wanted, known = [part.strip() for part in parts.split(",")], PARTS.split(",")
    if unknown := [part for part in wanted if part not in known]:
        raise ConfigError(f"bench images parts={unknown[0]}: expected some of {', '.join(known)}")
    if "finalists" in wanted and "searches" not in wanted:
        raise ConfigError("bench images parts=finalists: they are of searches; give parts=searches,finalists")
    return wanted


def _configs(search: str, strategies: str, settings: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The search under each strategy, by its label.

    Raises:
        ConfigError: a setting is not what it should be, or the search trains no networks on their own.
    """
    chosen, _ = labelled("images", strategies, settings, _SECTIONS)
    common = [f"{key}={json.dumps(value)}" for key, value in settings.items() if key.partition(".")[0] in _SECTIONS]
    path = find_config(search)
    configs = {}
    for label, strategy in chosen.items():
        config = RunConfig.load(path, (*common, f"strategy={json.dumps(strategy)}"))
        trained_alone(config)
        if config.budget.trials is None:
            raise ConfigError(f"{search}: the budget has no number of trials, which all strategies would have")
        configs[label] = config
    return configs


def _search_job(label: str, config: RunConfig, seed: int, folder: Path) -> _Job:
    name = f"{name_of(label, config)}-t{config.budget.trials}-s{seed:05d}"
    return _Job(label=label, config=config.model_copy(update={"seed": seed}), name=name, folder=folder)


def _finalist(config: RunConfig, genotype: str, epochs: int, index: int) -> TrainConfig:
    """A training for longer, of the search's size and recipe, whose seed no child had."""
    alone = trained_alone(config)
    facts: dict[str, Any] = {
        "space": config.space,
        "genotype": genotype,
        "task": config.task,
        "recipe": alone.recipe,
        "epochs": epochs,
        "data": "train",
        "seed": rng.child_seed(0, "finalists", index),
        "device": alone.device,
        **dict(alone.size.named),
    }
    return TrainConfig.of(alone.size)(**facts)


def _judge(config: RunConfig, table: str, truth: str) -> Judge:
    settings = {"name": "tabular", "path": table, "valid": truth, "twins": "merge"}
    whole = config.model_copy(update={"evaluator": Component(**settings), "task": None}).make_evaluator()
    assert isinstance(whole, Tabular)
    return Judge(whole, truth)


# -- doing it -------------------------------------------------------------------------------------------------


def _perform(job: _Job) -> Row:
    """Search, or search on, and write down what came of it."""
    url = str(job.folder / "pools" / job.name)
    try:
        search_with(job.config, url, in_process=True)
        pool = PoolReader.open(url)
        log, fits = pool.log(), pool.fits()
    except NaoRayError as error:
        raise RunError(f"{job.label}, seed {job.config.seed}: {error}") from error
    metric = job.config.make_task().metric
    row = {
        "label": job.label,
        "seed": job.config.seed,
        "config": job.config.to_yaml(),
        "metric": json.dumps(to_plain(metric)),
        "genotypes": [trial.genotype.key for trial in log],
        "values": [math.nan if trial.score is None else metric.score(trial.score) for trial in log],
        "cpu_children": seconds_of(log),
        "cpu_strategy": float(fits["cpu_seconds"].sum()) if "cpu_seconds" in fits else 0.0,
        "revision": source_revision() or "",
    }
    write_row(job.row, row)
    return row


def _train(training: _Training) -> Row:
    """Train a finalist, or go on, or find it done."""
    config, began = training.config, time.process_time()
    try:
        trained = train(config, str(training.folder), "finalist")
    except NaoRayError as error:
        raise RunError(f"finalist {config.genotype}: {error}") from error
    metric = config.make_task().metric
    return {
        "genotype": config.genotype,
        "seed": config.seed,
        "epochs": trained["epochs"],
        "valid": trained[metric.column],
        "test": trained[metric.test_column],
        "cpu_seconds": time.process_time() - began,
    }
