"""What shared scores are worth to a search that trains some alone: `nao` on a table, with them as its prior or without.

The table is what an architecture trained alone is worth, and nothing is trained. What `nao_mixed` does with the scores
of a version, `nao` does here with scores of a study of `bench tau`: a version's scores of some random cells are learnt
like an earlier pool. Beside it stand the same scores shuffled, the number of parameters of the same cells, which costs
nothing, and made-up scores that rank as well as is asked for: they show from which tau on it pays.

    nao-ray bench mixed scores=study/scores/FILE.parquet seeds=20 results=searches
    nao-ray bench mixed taus=0.1,0.2,0.4,0.6 seeds=20

Searches of one seed begin alike, and are compared seed by seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from nao_ray import rng
from nao_ray.bench._gather import made
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Kept, Row, Search, open_table, perform, stored_row, write_row
from nao_ray.bench._summary import after, mean_and_error, metric_of, shown
from nao_ray.bench.tabular import plan, positive, tables
from nao_ray.controllers.descriptors import num_live_params
from nao_ray.controllers.gp import normal_scores
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.base import Earlier

Floats = NDArray[np.float64]

COLD, RANDOM = "nao", "random_search"
_CHECKPOINTS = (5, 8, 10, 15, 20, 30)
"""Architectures trained alone after which the best of them is compared."""


@dataclass(frozen=True, slots=True)
class _Prior:
    """Scores of some cells that cost next to nothing."""

    label: str
    cells: tuple[Genotype, ...]
    scores: Floats
    """``[n]``, more is better."""
    tau: float
    """Kendall's, with the table."""

    @classmethod
    def of(cls, label: str, table: Tabular, cells: Sequence[Genotype], scores: Floats) -> _Prior:
        truth = [table.measure.score(table.valid(cell)) for cell in cells]
        return cls(label, tuple(cells), scores, float(kendalltau(scores, truth).statistic))

    def earlier(self) -> Earlier:
        """As a strategy learns from it."""
        return Earlier(self.label, tuple(cell.key for cell in self.cells), tuple(self.scores.tolist()))


@dataclass(frozen=True, slots=True)
class _Job:
    search: Search
    earlier: tuple[Earlier, ...]
    path: Path | None


def run(
    scores: str = "",
    taus: str = "0.1,0.2,0.4,0.6",
    cells: int = 250,
    seeds: int = 20,
    first_seed: int = 0,
    max_queries: int = 20,
    processes: int = 1,
    results: str | None = None,
    path: str | None = None,
    dataset: str = "cifar10",
    valid: str | None = None,
    space: str = "nas_bench_201",
) -> BenchResult:
    """Search with each prior, and without.

    Args:
        scores: files of `bench tau`, its `scores/*.parquet`, by commas; each is a prior, and each is shuffled too.
        taus: of made-up scores, by commas; each seed has scores of its own.
        cells: that have made-up scores.
        seeds: searches of each kind.
        first_seed: see `seeds`.
        max_queries: architectures trained alone.
        processes: of this machine, one thread each.
        results: folder of finished searches; those that are there are not done again.
        path: of the table, as for `nao-ray bench tabular`, and so are the next three.
        dataset: one.
        valid: see there.
        space: see there.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table or a file is not what it should be.
        RunError: a search failed.
    """
    numbers = range(first_seed, first_seed + positive("seeds", seeds))
    wanted = _taus(taus)
    searches = plan(
        {COLD: {"name": "nao"}, RANDOM: {"name": "random_search"}},
        tables(path, dataset, {"valid": valid, "test": None, "cost": None}),
        {"name": space},
        seeds=numbers,
        workers=1,
        max_queries=max_queries,
        stop_at_optimum=False,
    )
    table = open_table(searches[0])[0]
    assert isinstance(table, Tabular)
    measured = [_read(Path(word.strip()), table) for word in str(scores).split(",") if word.strip()]
    folder = None if results is None else Path(results)
    jobs: dict[tuple[str, int], _Job] = {}
    priors: dict[str, list[_Prior]] = {}
    for search in searches:
        jobs[search.label, search.seed] = _job(search, None, folder)
        if search.label == COLD:
            for prior in _priors(measured, wanted, positive("cells", cells), table, search.seed):
                priors.setdefault(prior.label, []).append(prior)
                jobs[prior.label, search.seed] = _job(search, prior, folder)
    rows = dict(zip(jobs, _made(list(jobs.values()), positive("processes", processes)), strict=True))
    return _result(rows, priors, max_queries)


def _taus(words: str) -> list[float]:
    try:
        found = [float(word) for word in str(words).split(",") if word.strip()]
    except ValueError:
        found = [math.nan]
    if not all(-1 < tau < 1 for tau in found):
        raise ConfigError(f"bench mixed taus={words}: expected numbers between -1 and 1, by commas")
    return found


def _read(path: Path, table: Tabular) -> _Prior:
    row = stored_row(path)
    if row is None or not {"cells", "scores"} <= row.keys():
        raise DataError(f"{path}: expected a file of scores of nao-ray bench tau")
    pairs = zip(row["cells"], row["scores"], strict=True)
    found = {table.space.canonical(table.space.parse(text)): score for text, score in pairs}
    return _Prior.of(path.stem, table, list(found), np.array(list(found.values())))


def _priors(measured: Sequence[_Prior], taus: Sequence[float], count: int, table: Tabular, seed: int) -> list[_Prior]:
    """Those of one seed."""
    found = [each for prior in measured for each in (prior, _shuffled(prior, table, seed))]
    order = rng.child(seed, "cells that are scored").permutation(len(table))[:count]
    known = table.genotypes()
    cells = [known[row] for row in order]
    truth = normal_scores(np.array([table.measure.score(table.valid(cell)) for cell in cells]))
    noise = rng.child(seed, "made-up scores").standard_normal(len(cells))
    for tau in taus:
        share = math.sin(math.pi * tau / 2)  # the correlation of normal variables that have this tau
        scores = share * truth + math.sqrt(1 - share**2) * noise
        found.append(_Prior.of(f"made up, tau {tau:g}", table, cells, scores))
    sizes = np.array([float(num_live_params(table.space.lower(cell))) for cell in cells])
    return [*found, _Prior.of("parameters", table, cells, sizes)]


def _shuffled(prior: _Prior, table: Tabular, seed: int) -> _Prior:
    """The same scores of other cells: what is worth nothing."""
    scores = rng.child(seed, "shuffled").permutation(prior.scores)
    return _Prior.of(f"{prior.label}, shuffled", table, prior.cells, scores)


def _job(search: Search, prior: _Prior | None, folder: Path | None) -> _Job:
    name = f"q{search.max_queries}-{search.file_name(open_table(search)[1])}"
    if prior is None:
        return _Job(search, (), None if folder is None else folder / name)
    earlier = prior.earlier()
    digest = hashlib.sha256(repr(earlier).encode()).hexdigest()[:12]
    told = replace(search, label=prior.label, strategy={**search.strategy, "warm_start": [prior.label]})
    return _Job(told, (earlier,), None if folder is None else folder / f"prior-{digest}-{name}")


def _made(jobs: Sequence[_Job], processes: int) -> list[Row]:
    stored = {number: None if job.path is None else stored_row(job.path) for number, job in enumerate(jobs)}
    found = {number: row for number, row in stored.items() if row is not None}
    found |= made(_make, {number: job for number, job in enumerate(jobs) if number not in found}, processes)
    return [found[number] for number in sorted(found)]


def _make(job: _Job) -> Row:
    kept = Kept()
    row = perform(job.search, job.earlier, kept)
    row["curve_used"] = [fit["warm_start"] == "on" for fit in kept.fits if "warm_start" in fit]
    if job.path is not None:
        write_row(job.path, row)
    return row


def _result(
    rows: Mapping[tuple[str, int], Row], priors: Mapping[str, Sequence[_Prior]], max_queries: int
) -> BenchResult:
    at = [count for count in _CHECKPOINTS if count <= max_queries]
    labels = dict.fromkeys(label for label, _ in rows)
    cold = _regret([row for (label, _), row in rows.items() if label == COLD], at)
    lines: list[list[object]] = []
    for label in labels:
        group = [row for (name, _), row in rows.items() if name == label]
        regret, taus = _regret(group, at), [prior.tau for prior in priors.get(label, ())]
        used = [share for row in group for share in row.get("curve_used") or ()]
        lines.append(
            [label, len(group), f"{np.mean(taus):.2f}" if taus else ""]
            + [mean_and_error(values, 2) for values in regret.T]
            + ["" if label == COLD else mean_and_error(values, 2) for values in (cold - regret).T]
            + [f"{np.mean(used):.0%}" if used else ""]
        )
    return BenchResult(
        name="mixed",
        columns=["prior", "n", "tau"]
        + [f"regret@{n}" for n in at]
        + [f"better@{n}" for n in at]
        + ["fits that use it"],
        rows=lines,
        notes=[
            "regret@k: of the best of k architectures trained alone, what the table's best is ahead, in percent of an "
            "accuracy, mean over n seeds ± standard error; better: than nao without a prior, seed by seed. tau: "
            "Kendall's, of the prior's scores with the table, mean over the seeds.",
            machine(),
        ],
    )


def _regret(group: Sequence[Row], at: Sequence[int]) -> Floats:
    """``[n, K]``."""
    scale = shown(metric_of(group[0]))
    found = [[scale * (row["best_valid_of_table"] - after(row, "curve_valid", k)) for k in at] for row in group]
    return np.abs(np.array(found))
