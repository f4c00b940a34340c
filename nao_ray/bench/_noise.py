"""The noise that a search works in: random architectures, each trained with several seeds as a child of it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from nao_ray import rng
from nao_ray.bench._gather import made
from nao_ray.bench._study import Row, stored_row, write_row
from nao_ray.bench._summary import Floats
from nao_ray.bench.shared import name_of
from nao_ray.config import Component, RunConfig
from nao_ray.evaluators.base import Evaluator
from nao_ray.metric import to_plain
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.trial import Proposal

_DRAWN = "random architectures"
"""Names their draws."""


class Kept(Protocol):
    """What leaves a row behind."""

    @property
    def row(self) -> Path:
        """Its file."""


J = TypeVar("J", bound=Kept)


def done(work: Callable[[J], Row], jobs: Sequence[J], processes: int) -> list[Row]:
    """The rows of the jobs, in their order; those on disk are read.

    Raises:
        DataError: a file is not a row.
    """
    found = [stored_row(job.row) for job in jobs]
    rows = {number: row for number, row in enumerate(found) if row is not None}
    rows |= made(work, {number: job for number, job in enumerate(jobs) if number not in rows}, processes)
    return [rows[number] for number in range(len(jobs))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """The random architectures, the same ones under every seed, trained under one."""

    config: RunConfig
    architectures: int
    row: Path

    @classmethod
    def of(cls, search: RunConfig, seed: int, architectures: int, folder: Path) -> Repeat:
        """As the children of a search are trained."""
        config = search.model_copy(update={"strategy": Component(name="random_search"), "seed": seed})
        name = f"{name_of('noise', config)}-n{architectures}-s{seed:05d}"
        return cls(config=config, architectures=architectures, row=folder / "rows" / f"{name}.parquet")


@lru_cache(maxsize=1)
def _evaluator(config: str) -> Evaluator[Any]:
    """That of a config, with its data."""
    return RunConfig.parse(config).make_evaluator()


def measure(repeat: Repeat) -> Row:
    """Train them."""
    config, space = repeat.config, repeat.config.make_space()
    evaluator = _evaluator(config.model_copy(update={"seed": 0}).to_yaml())
    fidelity = type(evaluator).fidelity(evaluator.config)
    metric, draws = config.make_task().metric, rng.child(0, _DRAWN)
    genotypes, values, seconds = [], [], []
    for number in range(repeat.architectures):
        genotype, seed = space.sample(draws), rng.child_seed(config.seed, "noise", number)
        proposal = Proposal(genotype=genotype, trial_id=number, seed=seed, fidelity=fidelity)
        measured = evaluator.evaluate(proposal)
        genotypes.append(genotype.key)
        values.append(metric.score(measured.score))
        seconds.append(measured.device_seconds or math.nan)
    row = {
        "seed": config.seed,
        "config": config.to_yaml(),
        "metric": json.dumps(to_plain(metric)),
        "genotypes": genotypes,
        "values": values,
        "seconds": seconds,
        "revision": source_revision() or "",
    }
    write_row(repeat.row, row)
    return row


@dataclass(frozen=True, slots=True)
class Noise:
    """Of ``[S, A]`` scores: A architectures under S seeds."""

    values: Floats

    @property
    def within(self) -> float:
        """Standard deviation over trainings of one architecture, pooled; NaN for one seed."""
        return pooled([list(column) for column in self.values.T])

    @property
    def between(self) -> float:
        """Standard deviation between architectures, without what the trainings' own adds; NaN for one seed."""
        of_means = float(self.values.mean(axis=0).var(ddof=1)) if self.values.shape[1] > 1 else math.nan
        return math.sqrt(max(0.0, of_means - self.within**2 / len(self.values)))


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation of several measurements of each of some things; NaN where nothing was measured twice."""
    several = [group for group in groups if len(group) > 1]
    return math.sqrt(np.mean([np.var(group, ddof=1) for group in several])) if several else math.nan
