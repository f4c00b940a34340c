"""Searches with shared weights against their control: random search with shared weights at the same budget.

A search is a preset. Its control has the same space, task, supernet and finalists, trains the weights for as many
epochs, every step on a random genotype, and then scores as many random genotypes as the search scores in all, with the
last weights (Li, Talwalkar, UAI 2019, arXiv 1902.07638). Scores with two sets of shared weights cannot be compared, so
what counts is what networks are worth that are trained alone: of the finalists, the best by shared score; and of a
random sample of what was scored last, whose ranks are compared as well.

    nao-ray bench shared results=study
    nao-ray bench shared presets=nao_ws_small,enas_micro_small seeds=5 results=study
    nao-ray bench shared presets=my_search.yaml task.path=cifar10.parquet evaluator.channels=16

Besides the arguments of `run`: ``SECTION.key=value`` sets a value of all presets, ``PRESET.SECTION.key=value`` of one;
a section is space, task, evaluator or strategy.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nao_ray import registry
from nao_ray.bench._gather import made
from nao_ray.bench._result import BenchResult
from nao_ray.bench._shared_summary import summary
from nao_ray.bench._study import Row, stored_row, write_row
from nao_ray.bench.tabular import positive
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.errors import ConfigError, NaoRayError, RunError
from nao_ray.metric import to_plain
from nao_ray.pool import PoolReader
from nao_ray.preset_files import find_config
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.service.hosting.run import run as search
from nao_ray.strategies.parts.shared_search import SharedConfig, SharedSearch
from nao_ray.trial import Trial

PRESETS = "nao_ws_small,nao_v2_small,enas_micro_small,enas_macro_small"
CONTROL = "shared_random_search"
_SECTIONS = ("space", "task", "evaluator", "strategy")
_PLACES = ("path", "folder")
"""Settings of a task that say where its data is, not what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One search, and where its row and its pool are kept."""

    label: str
    config: RunConfig
    control: str | None
    """Label of its control; None: it is one."""
    name: str
    folder: Path


def run(
    presets: str = PRESETS,
    seeds: int = 3,
    first_seed: int = 0,
    processes: int = 2,
    results: str | None = None,
    **settings: object,
) -> BenchResult:
    """Search with every preset and every control, `seeds` times each.

    Args:
        presets: names of presets or paths of configs, by commas.
        seeds: searches per preset, with the seeds from `first_seed` on.
        first_seed: see `seeds`.
        processes: searches side by side on this machine, one thread each.
        results: folder; its `rows` are finished searches, which are not done again, a Parquet file each, and its
            `pools` what they consist of, from which one that was interrupted goes on.
        **settings: ``SECTION.key`` or ``PRESET.SECTION.key``.

    Raises:
        ConfigError: an argument or a setting is not what it should be, or a preset shares no weights.
        DataError: the data cannot be loaded, or a row on disk is none.
        RunError: a search failed.
    """
    numbers = range(first_seed, first_seed + positive("seeds", seeds))
    positive("processes", processes)
    configs = configs_of([name.strip() for name in str(presets).split(",")], settings)
    with tempfile.TemporaryDirectory() as temporary:
        jobs = _jobs(configs, numbers, Path(temporary if results is None else results))
        found = [stored_row(_row_file(job), _whole) for job in jobs]
        rows = {number: row for number, row in enumerate(found) if row is not None}
        todo = {number: job for number, job in enumerate(jobs) if number not in rows}
        rows |= made(_perform, todo, processes)
    return summary([rows[number] | {"control": job.control or ""} for number, job in enumerate(jobs)])


def control(config: RunConfig) -> RunConfig:
    """The control of a search, named like its strategy.

    Raises:
        ConfigError: the search shares no weights.
    """
    strategy = config.make_strategy()
    if not isinstance(strategy, SharedSearch):
        raise ConfigError(f"{config.name}: the strategy {config.strategy.name} shares no weights; there is no control")
    settings: SharedConfig = strategy.config
    if not settings.finalists:
        raise ConfigError(f"{config.name}: strategy.finalists is 0; they are what is compared, give 1 at least")
    budget = {
        "rounds": 1,
        "epochs": settings.rounds * settings.epochs,
        "scored": sum(strategy.scored_in(index) for index in range(settings.rounds)),
        "epochs_per_version": settings.epochs_per_version,
        "finalists": settings.finalists,
        "audited": settings.audited,
    }
    return config.model_copy(update={"name": CONTROL, "strategy": Component(name=CONTROL, **budget)})


# -- what is to be done ---------------------------------------------------------------------------------------


def configs_of(names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, RunConfig]:
    """By label, every search, with the settings for all and those of its own.

    Raises:
        ConfigError: a setting is not what it should be.
    """
    labels = {Path(name).stem: name for name in names}
    chosen: dict[str, list[str]] = {label: [] for label in labels}
    for key, value in settings.items():
        label, _, rest = key.partition(".")
        own = label in labels
        path = rest if own else key
        if path.partition(".")[0] not in _SECTIONS or not path.partition(".")[2]:
            raise ConfigError(
                f"bench {key}: expected SECTION.key or PRESET.SECTION.key with a SECTION of "
                f"{', '.join(_SECTIONS)} and a PRESET of {', '.join(labels)}"
            )
        for target in [label] if own else labels:
            chosen[target].append(f"{path}={json.dumps(value)}")
    return {label: RunConfig.load(find_config(name), tuple(chosen[label])) for label, name in labels.items()}


def _jobs(configs: Mapping[str, RunConfig], seeds: Sequence[int], folder: Path) -> list[_Job]:
    """Every search, then its control if no other has it already; all of a seed before the next."""
    jobs: dict[str, _Job] = {}
    for seed in seeds:
        for label, config in configs.items():
            against = control(config)
            named = name_of(CONTROL, against)
            for mine, what, its in ((label, config, named), (CONTROL, against, None)):
                name = name_of(mine, what)
                # the strategy ends the search, not the budget
                whole = what.model_copy(update={"name": mine, "seed": seed, "budget": Budget(trials=10**9)})
                job = _Job(label=mine, config=whole, control=its, name=f"{name}-s{seed:05d}", folder=folder)
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def name_of(label: str, config: RunConfig) -> str:
    """Names a search but for its seed; another space, data, setting or default, another name."""
    whole = config.to_data()
    task = {name: value for name, value in whole.get("task", {}).items() if name not in _PLACES}
    what = [_data_hash(json.dumps(whole.get("task"), sort_keys=True)), task]
    what += [whole[section] for section in ("space", "evaluator", "strategy")]
    return f"{label}-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"


@cache
def _data_hash(task: str) -> str:
    """Of a task, given as JSON; read once."""
    settings = json.loads(task)
    cls = registry.load("task", settings.pop("name"))
    return str(cls(cls.Config(**settings)).data_hash())


# -- one search -----------------------------------------------------------------------------------------------


def _row_file(job: _Job) -> Path:
    return job.folder / "rows" / f"{job.name}.parquet"


def _perform(job: _Job) -> Row:
    """Search, or search on, and write down what came of it."""
    url = str(job.folder / "pools" / job.name)
    try:
        search(job.config, url, in_process=True)
        row = _row(job, PoolReader.open(url))
    except NaoRayError as error:
        raise RunError(f"{job.label}, seed {job.config.seed}: {error}") from error
    write_row(_row_file(job), row)
    return row


def _row(job: _Job, pool: PoolReader) -> Row:
    """What a finished pool says.

    Raises:
        RunError: the search has not come to its finalists.
    """
    log = pool.log()
    alone = [t for t in log if t.proposal.phase is None and t.proposal.fidelity.weights_version is None]
    # the finalists are asked first, then the others of the sample
    asked_first = alone[: job.config.make_strategy().config.finalists]
    finalists = [trial.score for trial in asked_first if trial.score is not None]
    if not finalists:
        raise RunError("none of the finalists could be trained alone")
    fits = pool.fits()
    audit = fits.iloc[-1]
    sample = [log[int(word)] for word in str(audit["audit_trials"]).split()]
    phases = [trial for trial in log if trial.proposal.phase is not None]
    shared = [trial for trial in log if trial.proposal.fidelity.weights_version is not None]
    chosen_by = shared[-1].proposal.fidelity
    last = {t.genotype.key: t.score for t in shared if t.proposal.fidelity == chosen_by and t.score is not None}
    times = [(trial.asked_at, trial.finished_at) for trial in log if trial.asked_at and trial.finished_at]
    return {
        "label": job.label,
        "space": job.config.space.name,
        "strategy": job.config.strategy.name,
        "metric": json.dumps(to_plain(job.config.make_task().metric)),
        "seed": job.config.seed,
        "name": job.name.rpartition("-s")[0],
        "control": job.control or "",
        "config": job.config.to_yaml(),
        "finalists": finalists,
        "sample": [trial.score for trial in sample],
        "sample_shared": [last[trial.genotype.key] for trial in sample],
        "shared_mean": float(np.mean(list(last.values()))),
        "audit_tau": _number(audit["audit_tau"]),
        "audit_tau_low": _number(audit["audit_tau_low"]),
        "audit_tau_high": _number(audit["audit_tau_high"]),
        "scored": len(shared),
        "failed": sum(trial.failure_kind is not None for trial in log),
        "cpu_training": _seconds(phases),
        "cpu_scoring": _seconds(shared),
        "cpu_alone": _seconds(alone),
        "cpu_controller": float(fits["cpu_seconds"].sum()) if "cpu_seconds" in fits else 0.0,
        "wall_seconds": (max(end for _, end in times) - min(begin for begin, _ in times)).total_seconds(),
        "revision": source_revision() or "",
    }


def _whole(row: Row) -> Row:
    """The row, if nothing is missing."""
    assert row["finalists"] is not None
    return row


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _seconds(trials: Sequence[Trial]) -> float:
    return math.fsum(trial.measurement.device_seconds or 0.0 for trial in trials if trial.measurement)
