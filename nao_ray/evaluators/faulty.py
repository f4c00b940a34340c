"""The closed form behind every fault: what chaos tests search with."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.evaluators.closed_form import ClosedForm, ClosedFormConfig
from nao_ray.evaluators.parts.wrappers import FlakyEvaluator, SlowEvaluator
from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Measurement, Proposal


class FaultyConfig(ClosedFormConfig):
    """Shares of proposals, in [0, 1], that fail in each way; which ones follows from their seeds."""

    error_share: float = Field(default=0.0, ge=0, le=1)
    out_of_memory_share: float = Field(default=0.0, ge=0, le=1)
    nan_share: float = Field(default=0.0, ge=0, le=1)
    hang_share: float = Field(default=0.0, ge=0, le=1)
    hang_seconds: float = Field(default=3600.0, ge=0)
    """How long a proposal that hangs takes, in seconds."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.error_share + self.out_of_memory_share + self.nan_share > 1:
            raise ValueError("the shares of error, out_of_memory and nan are at most 1 together")
        return self


class Faulty(Evaluator[FaultyConfig]):
    """The accuracy by formula, unless something goes wrong."""

    Config: ClassVar[type[EvaluatorConfig]] = FaultyConfig
    needs_task: ClassVar[bool] = False
    keeps_states: ClassVar[bool] = False

    def __init__(self, space: SearchSpace[Any], task: Task[Any] | None, config: FaultyConfig) -> None:
        super().__init__(space, task, config)
        flaky = FlakyEvaluator(
            ClosedForm(space, task, config),
            error=config.error_share,
            out_of_memory=config.out_of_memory_share,
            nan=config.nan_share,
        )
        self._evaluator = SlowEvaluator(flaky, config.hang_seconds, config.hang_share)

    @classmethod
    def fidelity(cls, config: FaultyConfig) -> Fidelity:
        return ClosedForm.fidelity(config)

    def hangs(self, proposal: Proposal) -> bool:
        """Whether this proposal takes `hang_seconds`."""
        return self._evaluator.is_slow(proposal)

    def evaluate(self, proposal: Proposal) -> Measurement:
        return self._evaluator.evaluate(proposal)
