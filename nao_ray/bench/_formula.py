"""A stated function of a cell where a study expects a table: spaces too large for one, of which the best is not known.

What stands in for the best is where the best of many long climbs ended, and for the median that of random cells:
`reference` finds them, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from nao_ray import rng
from nao_ray.bench._landscape import UNIT, Landscape
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.evaluators.closed_form import accuracy
from nao_ray.metric import Metric
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Task
from nao_ray.trial import Fidelity, Measurement, Proposal

_RANDOM = 2000
_METRIC = Metric("score")
_SECONDS = 100.0
"""A cell without convolutions takes so long, and a tenth more for each."""


class FormulaConfig(EvaluatorConfig):
    """Which function."""

    best: float
    """The best score that is known."""
    median: float
    """Of random cells."""
    seed: int | None = None
    """Of a `Landscape`; None: the function of the evaluator `closed_form`."""
    noise: float = 0.0
    """Standard deviation of what a query adds, in standard deviations of random cells."""


class Formula(Evaluator[FormulaConfig]):
    """Scores a proposal by the function."""

    name = "nao_ray.bench._formula:Formula"
    Config: ClassVar[type[EvaluatorConfig]] = FormulaConfig
    needs_task: ClassVar[bool] = False
    keeps_states: ClassVar[bool] = False

    def __init__(self, space: SearchSpace[Any], task: Task[Any] | None, config: FormulaConfig) -> None:
        super().__init__(space, task, config)
        self._function = function(space, config.seed)

    @classmethod
    def fidelity(cls, config: FormulaConfig) -> Fidelity:  # noqa: ARG003
        return Fidelity()

    @classmethod
    def metric(cls, config: FormulaConfig, task: Task[Any] | None) -> Metric:  # noqa: ARG003
        return _METRIC

    def evaluate(self, proposal: Proposal) -> Measurement:
        noise = self.config.noise * UNIT * float(rng.child(proposal.seed, "noise").normal())
        cells = self.space.lower(proposal.genotype).cells
        convolutions = sum("conv" in edge.op for _, cell in cells for node in cell.nodes for edge in node)
        seconds = _SECONDS * (1 + 0.1 * convolutions)
        measured = _METRIC.measured(self.valid(proposal.genotype) + noise)
        return Measurement(**measured, wall_seconds=seconds, device_seconds=seconds, device="formula")

    def valid(self, genotype: Genotype) -> float:
        """Without noise."""
        return self._function(self.space.canonical(genotype))

    @property
    def best_valid(self) -> float:
        """The best that is known."""
        return self.config.best

    @property
    def median_valid(self) -> float:
        """Of random cells."""
        return self.config.median

    def data_hash(self) -> str:
        return self.facts().digest

    def facts(self) -> Facts:
        digest = hashlib.sha256(f"{self.space.name} {self.config}".encode()).hexdigest()
        return Facts(digest, f"a function of the cells of {self.space.name}, of which the best is not known")


def function(space: SearchSpace[Any], seed: int | None) -> Callable[[Genotype], float]:
    """Of a canonical genotype, of which more is better."""
    return (lambda genotype: accuracy(space.lower(genotype))) if seed is None else Landscape(space, seed)


def reference(space: SearchSpace[Any], seed: int | None, climbs: int = 20, steps: int = 1000) -> tuple[float, float]:
    """Best and median: climbs from the best of random cells take each mutant that is no worse; some 20 seconds."""
    score, draw = function(space, seed), rng.child(0, "reference")
    found = [space.sample(draw) for _ in range(_RANDOM)]
    scores = [score(genotype) for genotype in found]
    best = max(scores)
    for start in np.argsort(scores)[-climbs:]:
        genotype, value = found[start], scores[start]
        for _ in range(steps):
            mutant = space.mutate(genotype, draw)
            if (its := score(mutant)) >= value:
                genotype, value = mutant, its
        best = max(best, value)
    return best, float(np.median(scores))
