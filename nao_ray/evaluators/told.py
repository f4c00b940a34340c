"""Trials that are measured elsewhere: whoever asked for a proposal tells its score (`search.session`)."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self

from pydantic import Field, model_validator

from nao_ray.errors import RunError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.metric import DEFAULT, Goal, Metric
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Proposal


class ToldConfig(EvaluatorConfig):
    """What is told."""

    metric: str = Field(default=DEFAULT.name, min_length=1, max_length=200)
    """Its name."""
    goal: Goal = DEFAULT.goal
    unit: str = ""
    """Of the metric, as it is shown; of shares none."""

    @model_validator(mode="after")
    def _is_a_metric(self) -> Self:
        Metric(self.metric, self.unit, self.goal)
        return self


class Told(Evaluator[ToldConfig]):
    """Stands in a pool's manifest for what its trials are measured by."""

    Config: ClassVar[type[EvaluatorConfig]] = ToldConfig
    needs_task: ClassVar[bool] = False
    keeps_states: ClassVar[bool] = False
    measures: ClassVar[bool] = False

    @classmethod
    def fidelity(cls, config: ToldConfig) -> Fidelity:  # noqa: ARG003
        return Fidelity()

    @classmethod
    def metric(cls, config: ToldConfig, task: Task[Any] | None) -> Metric:  # noqa: ARG003
        return Metric(config.metric, config.unit, config.goal)

    def evaluate(self, proposal: Proposal) -> NoReturn:
        raise RunError(f"trial {proposal.trial_id} is measured by whoever asked for it")
