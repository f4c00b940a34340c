"""The lower seam: an evaluator scores a proposal.

It depends on its constructor and on the proposal (genotype, seed, fidelity), nothing else; it returns numbers, raises
to fail, and knows neither strategies nor pool nor ray. Evaluating a proposal twice gives the same score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Measurement, Proposal


class EvaluatorConfig(BaseModel):
    """Base of every evaluator's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=EvaluatorConfig)


class Evaluator(ABC, Generic[C]):
    """Scores proposals of one space on one task."""

    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig

    def __init__(self, space: SearchSpace[Any], task: Task[Any], config: C) -> None:
        self.space = space
        self.task = task
        self.config = config

    @classmethod
    @abstractmethod
    def fidelity(cls, config: C) -> Fidelity:
        """The fidelity of every trial under this config; needs neither data nor a device."""

    @abstractmethod
    def evaluate(self, proposal: Proposal) -> Measurement:
        """Measure one proposal.

        Raises:
            Exception: whatever went wrong; the caller turns it into a FAILED trial.
        """
