"""Searches on texts against random search at the same budget, judged by what their best is worth when trained anew.

A search is a preset. Its control has the same space, task and evaluator: random search with shared weights where the
search shares them, as in `bench shared`, else random search with as many trials. Validation selects: the best of each
by its own training is trained anew, from weights that no search saw, for longer and by the same recipe for all, and
only then the test split is read.

    nao-ray bench texts results=study
    nao-ray bench texts searches=nao_text,nao_ws_text,enas_text seeds=3 results=study
    nao-ray bench texts searches=nao_ws_text task.name=ptb task.path=ptb results=study

Besides the arguments of `run`: ``SECTION.key=value`` sets a value of all searches, ``PRESET.SECTION.key=value`` of
one; a section is space, task, evaluator or strategy.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nao_ray import rng
from nao_ray.bench._gather import made
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row, stored_row, write_row
from nao_ray.bench._summary import metric_of, of_revisions, spread, standard_error
from nao_ray.bench.shared import configs_of, control, name_of
from nao_ray.bench.tabular import positive
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.errors import ConfigError, NaoRayError, RunError
from nao_ray.evaluators.one_shot import OneShotConfig
from nao_ray.evaluators.standalone import StandaloneConfig
from nao_ray.metric import to_plain
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.service.hosting.run import run as search
from nao_ray.skeletons.base import skeleton_of
from nao_ray.strategies.parts.shared_search import SharedSearch
from nao_ray.training.recipe import Recipe
from nao_ray.trial import Trial

SEARCHES = "nao_text"
_COLUMNS = [
    "space",
    "search",
    "n",
    "best of the search",
    "test, trained anew",
    "better",
    "trials",
    "CPU s",
    "anew CPU s",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One search, how its best is trained anew, and where its row and its pool are kept."""

    label: str
    config: RunConfig
    control: str
    """Name of its control; "": it is one."""
    name: str
    folder: Path
    recipe: str
    epochs: int
    trainings: int


def run(
    searches: str = SEARCHES,
    seeds: int = 3,
    first_seed: int = 0,
    epochs: int = 4,
    trainings: int = 1,
    recipe: str = "short_text",
    processes: int = 1,
    results: str | None = None,
    **settings: object,
) -> BenchResult:
    """Search with every preset and every control, `seeds` times each, and train what each found anew.

    Args:
        searches: names of presets or paths of configs, by commas.
        seeds: searches per preset, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        epochs: of a training anew.
        trainings: anew of each search's best, from different weights; those of a search and its control begin alike.
        recipe: of a training anew.
        processes: searches side by side on this machine, one thread each.
        results: folder; its `rows` are finished searches, which are not done again, a Parquet file each, and its
            `pools` what they consist of, from which one that was interrupted goes on.
        **settings: ``SECTION.key`` or ``PRESET.SECTION.key``.

    Raises:
        ConfigError: an argument or a setting is not what it should be.
        DataError: the data cannot be loaded, or a row on disk is none.
        RunError: a search failed.
    """
    for name, value in {"seeds": seeds, "epochs": epochs, "trainings": trainings, "processes": processes}.items():
        positive(name, value)
    configs = configs_of([name.strip() for name in str(searches).split(",")], settings)
    for config in configs.values():
        trained_alone(config)
    how = {"recipe": recipe, "epochs": epochs, "trainings": trainings}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if results is None else results)
        jobs = _jobs(configs, range(first_seed, first_seed + seeds), folder, how)
        found = [stored_row(_row_file(job)) for job in jobs]
        rows = {number: row for number, row in enumerate(found) if row is not None}
        todo = {number: job for number, job in enumerate(jobs) if number not in rows}
        rows |= made(_perform, todo, processes)
    return _summary([rows[number] | {"control": job.control} for number, job in enumerate(jobs)])


def _jobs(configs: Mapping[str, RunConfig], seeds: Sequence[int], folder: Path, how: Mapping[str, Any]) -> list[_Job]:
    """Every search, then its control if no other has it already; all of a seed before the next."""
    jobs: dict[str, _Job] = {}
    for seed in seeds:
        for label, config in configs.items():
            against = _control(config)
            named = name_of(against.name, against)
            for mine, what, its in ((label, config, named), (against.name, against, "")):
                shares = isinstance(what.make_strategy(), SharedSearch)  # then the strategy ends the search
                budget = Budget(trials=10**9) if shares else what.budget
                whole = what.model_copy(update={"name": mine, "seed": seed, "budget": budget})
                name = f"{name_of(mine, what)}-s{seed:05d}"
                job = _Job(label=mine, config=whole, control=its, name=name, folder=folder, **how)
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def _control(config: RunConfig) -> RunConfig:
    if isinstance(config.make_strategy(), SharedSearch):
        return control(config)
    if config.budget.trials is None:
        raise ConfigError(f"{config.name}: the budget has no number of trials, which its control would have too")
    return config.model_copy(update={"name": "random_search", "strategy": Component(name="random_search")})


def trained_alone(config: RunConfig) -> StandaloneConfig:
    """How the search trains networks on their own.

    Raises:
        ConfigError: it trains none.
    """
    settings = config.evaluator_config
    alone = settings.alone if isinstance(settings, OneShotConfig) else settings
    if not isinstance(alone, StandaloneConfig):
        raise ConfigError(f"{config.name}: its evaluator {config.evaluator.name} trains no networks on their own")
    return alone


# -- one search -----------------------------------------------------------------------------------------------


def _row_file(job: _Job) -> Path:
    anew = f"{Path(job.recipe).stem}-e{job.epochs}-t{job.trainings}"
    return job.folder / "rows" / f"{job.name}-{anew}.parquet"


def _perform(job: _Job) -> Row:
    """Search, or search on, train the best anew, and write down what came of it."""
    url = str(job.folder / "pools" / job.name)
    try:
        search(job.config, url, in_process=True)
        row = _row(job, PoolReader.open(url))
    except NaoRayError as error:
        raise RunError(f"{job.label}, seed {job.config.seed}: {error}") from error
    write_row(_row_file(job), row)
    return row


def _row(job: _Job, pool: PoolReader) -> Row:
    """What a finished pool says, and what its best is worth.

    Raises:
        RunError: nothing could be trained alone.
    """
    log = pool.log()
    alone = [t for t in log if t.proposal.phase is None and t.proposal.fidelity.weights_version is None]
    if isinstance(strategy := job.config.make_strategy(), SharedSearch):
        alone = alone[: strategy.config.finalists]  # asked first, before the audit's random ones
    scored = [trial for trial in alone if trial.score is not None]
    if not scored:
        raise RunError("nothing could be trained alone")
    best = max(scored, key=lambda trial: (trial.score, -trial.trial_id))
    began = time.process_time()
    tests = [_trained_anew(job, best, index) for index in range(job.trainings)]
    metric = job.config.make_task().metric
    fits = pool.fits()
    return {
        "label": job.label,
        "space": job.config.space.name,
        "seed": job.config.seed,
        "name": job.name.rpartition("-s")[0],
        "config": job.config.to_yaml(),
        "metric": json.dumps(to_plain(metric)),
        "genotype": best.genotype.key,
        "best": metric.score(best.score or math.nan),
        "test": tests,
        "trials": len(log),
        "failed": sum(trial.failure_kind is not None for trial in log),
        "cpu_search": seconds_of(log) + (float(fits["cpu_seconds"].sum()) if "cpu_seconds" in fits else 0.0),
        "cpu_anew": time.process_time() - began,
        "revision": source_revision() or "",
    }


def _trained_anew(job: _Job, best: Trial, index: int) -> float:
    """The value on the test split after one training anew."""
    import torch

    from nao_ray.training.fit import fit

    space, task, recipe = job.config.make_space(), job.config.make_task(), Recipe(name=job.recipe)
    seed, size = rng.child_seed(job.config.seed, "trained anew", index), trained_alone(job.config).size
    objective = task.objective(torch.device("cpu"), recipe)
    with rng.torch_seeded(seed, "weights"):
        network = skeleton_of(space).build(space.lower(best.genotype), task.shapes, size, recipe)
    fit(network, objective, epochs=job.epochs, seed=seed)
    return float(task.test_scores(network, objective.constants(), objective.device, recipe).value)


def seconds_of(trials: Sequence[Trial]) -> float:
    """Device seconds of all their trainings."""
    return math.fsum(trial.measurement.device_seconds or 0.0 for trial in trials if trial.measurement)


# -- the table ------------------------------------------------------------------------------------------------


def _summary(rows: Sequence[Row]) -> BenchResult:
    groups: dict[str, dict[int, Row]] = {}
    for row in rows:
        groups.setdefault(row["name"], {})[row["seed"]] = row
    lines = [_line(group, groups.get(next(iter(group.values()))["control"])) for group in groups.values()]
    metric, trainings = metric_of(rows[0]), len(rows[0]["test"])
    notes = [
        f"{metric.label.removeprefix('validation ').capitalize()}, mean over n seeds ± standard deviation. best of "
        "the search: by its own training, on the validation split, which selects. test, trained anew: that one, on the "
        f"test split, the mean of {trainings} training{'s' * (trainings > 1)}.",
        "better: by how much than its control, seed by seed, ± standard error, below 0 where it is worse; what is "
        "within two standard errors of 0 is a draw.",
        "CPU s: of a search with its controller's fits, and of its trainings anew.",
        machine(),
        *of_revisions(rows),
    ]
    return BenchResult(name="texts", columns=_COLUMNS, rows=lines, notes=notes, data={"searches": list(rows)})


def _line(group: Mapping[int, Row], against: Mapping[int, Row] | None) -> list[object]:
    first = next(iter(group.values()))
    metric = metric_of(first)
    best = np.array([row["best"] for row in group.values()])
    tests = np.array([np.mean(row["test"]) for row in group.values()])
    better = ""
    if against is not None:
        gains = np.array(
            [metric.score(float(np.mean(row["test"]) - np.mean(against[seed]["test"]))) for seed, row in group.items()]
        )
        better = f"{gains.mean():.2f} ± {standard_error(gains):.2f}"
    costs = [float(np.mean([row[name] for row in group.values()])) for name in ("trials", "cpu_search", "cpu_anew")]
    return [first["space"], first["label"], len(group), spread(best, 2), spread(tests, 2), better, *map(round, costs)]
