"""The section `fidelity` of a configuration: a ladder of epochs, of which most architectures see the first rung alone.

For example ``fidelity: {epochs: [3, 9, 27], keep: 0.33}``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic import Field, field_validator

from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.settings import Settings
from nao_ray.strategies.base import Strategy


class Rungs(Settings):
    """Where trainings pause, and how many go on."""

    epochs: tuple[int, ...] = Field(min_length=2)
    """Of each rung in all, ascending, each at least 1. The last is a whole training: the learning rate's schedule, on
    every rung, and what `evaluator.epochs` becomes."""
    keep: float = Field(default=1 / 3, gt=0, lt=1)
    """Share of a rung's trials that go on to the next."""

    @field_validator("epochs")
    @classmethod
    def _ascending(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if given[0] < 1 or any(after <= before for before, after in pairwise(given)):
            raise ValueError("expected whole numbers from 1 that ascend, such as [3, 9, 27]")
        return given

    @property
    def top(self) -> int:
        """Epochs of a whole training."""
        return self.epochs[-1]


def check_rungs(
    rungs: Rungs, strategy: tuple[str, type[Strategy[Any]]], evaluator: type[Evaluator[Any]], config: EvaluatorConfig
) -> None:
    """Refuse a ladder where nothing can pause.

    Args:
        rungs: of the search.
        strategy: its name and class.
        evaluator: of the search.
        config: of the evaluator.

    Raises:
        ConfigError: weights are shared, or the evaluator has no epochs.
    """
    name, cls = strategy
    if cls.shares_weights:
        raise ConfigError(
            f"fidelity: the strategy {name} trains shared weights, and a ladder is of trainings alone: leave it out, "
            "or take nao, regularized_evolution or random_search",
            "fidelity",
        )
    evaluator.check_rungs(config, rungs.epochs)
