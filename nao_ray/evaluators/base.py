"""The lower seam: an evaluator scores a proposal.

It depends on its constructor and on the proposal (genotype, seed, fidelity), nothing else; it returns numbers, raises
to fail, and knows neither strategies nor pool nor ray. Evaluating a proposal twice gives the same score.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from nao_ray.errors import ConfigError
from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Measurement, Proposal


class EvaluatorConfig(BaseModel):
    """Base of every evaluator's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=EvaluatorConfig)


class Evaluator(ABC, Generic[C]):
    """Scores proposals of one space, most of them on one task."""

    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig
    needs_task: ClassVar[bool] = True
    """False: a config may leave `task` out."""

    def __init__(self, space: SearchSpace[Any], task: Task[Any] | None, config: C) -> None:
        self.space = space
        self.config = config
        self._task = task

    @property
    def task(self) -> Task[Any]:
        """What is trained on.

        Raises:
            ConfigError: none was given.
        """
        if self._task is None:
            raise ConfigError(f"evaluator {type(self).__name__} was given no task")
        return self._task

    def data_hash(self) -> str:
        """Hex digest that names the data behind the scores, for the manifest.

        Raises:
            DataError: the data is not what it should be; nothing was evaluated.
        """
        return hashlib.sha256().hexdigest() if self._task is None else self._task.data_hash()

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
