"""Beside shared weights, what an architecture is worth on its own: it is trained, or looked up in a table of its space.

`alone: {epochs: 10, ...}` trains it; `alone: {name: tabular, path: ..., valid: ...}` looks it up, with the settings of
the evaluator `tabular`, and it took the time that the table says. Imports without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, WrapValidator

from nao_ray.errors import ConfigError, DataError, GenotypeError
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.standalone import Standalone, StandaloneConfig, settings_of
from nao_ray.evaluators.tabular import Tabular
from nao_ray.limits import Limits
from nao_ray.settings import Instead
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.trial import Fidelity, Measurement, Proposal

if TYPE_CHECKING:
    from nao_ray.training.objective import Objective

_NAME, _TRAINED = "tabular", "standalone"


class TableAlone(TabularConfig):
    """Settings of a table in place of a training."""

    name: Literal["tabular"] = "tabular"


AloneConfig = StandaloneConfig | TableAlone


def alone_field(trained: type[StandaloneConfig], make: Callable[[], StandaloneConfig]) -> tuple[Any, Any]:
    """The field `alone` of a config: settings of a training, or of a table where they name it.

    Args:
        trained: settings of a training, with the sizes of the space's skeleton.
        make: gives the default.
    """
    serialised = SerializeAsAny()  # type: ignore[type-arg]
    return Annotated[trained, WrapValidator(_read), Instead(TableAlone), serialised], Field(default_factory=make)


def _read(value: Any, training: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    if isinstance(value, TableAlone):
        return value
    if isinstance(value, Mapping) and "name" in value:
        if value["name"] == _NAME:
            return TableAlone(**value)
        if value["name"] != _TRAINED:
            raise ValueError(f"name: expected {_TRAINED} or {_NAME}, got {value['name']!r}")
        value = {key: setting for key, setting in value.items() if key != "name"}
    return training(value)


class Alone:
    """Scores architectures on their own; has the task on the device, for what is trained beside it, too.

    Raises:
        ConfigError: the table measures something else than the task.
    """

    def __init__(self, space: SearchSpace[Any], task: Task[Any], config: AloneConfig, device: str) -> None:
        self._space, self._config = space, config
        self._table = Tabular(space, None, config) if isinstance(config, TableAlone) else None
        training = settings_of(skeleton_of(space))() if isinstance(config, TableAlone) else config
        self._training = Standalone(space, task, training.model_copy(update={"device": device}))
        if isinstance(config, TableAlone) and config.measure != task.metric:
            raise ConfigError(
                f"evaluator.alone: the table's {config.measure.label} is no {task.metric.label}, by which the task "
                "measures: give another column, or its goal, metric and unit"
            )

    @staticmethod
    def fidelity(config: AloneConfig) -> Fidelity:
        """Of every architecture under this config."""
        return Tabular.fidelity(config) if isinstance(config, TableAlone) else Standalone.fidelity(config)

    @staticmethod
    def check(space: SearchSpace[Any], shapes: Shapes | None, config: AloneConfig) -> None:
        """As `Evaluator.check`; a table is opened by `facts`."""
        if not isinstance(config, TableAlone):
            Standalone.check(space, shapes, config)

    # -- data -------------------------------------------------------------------------------------------------

    def objective(self) -> Objective:
        """The task on the device, which is moved there once."""
        return self._training.objective()

    @property
    def uses_gpu(self) -> bool:
        """As `Evaluator.uses_gpu`, of what is trained."""
        return self._training.uses_gpu

    @property
    def needs_gpu(self) -> bool:
        """As `Evaluator.needs_gpu`, of what is trained."""
        return self._training.needs_gpu

    def data_hash(self) -> str:
        """Of the task, and of the table."""
        task = self._training.data_hash()
        if self._table is None:
            return task
        with _in_alone():
            return hashlib.sha256(f"{task} {self._table.data_hash()}".encode()).hexdigest()

    def facts(self) -> Facts | None:
        """Of the task, and of the table, which is opened and checked.

        Raises:
            DataError: either is not what it should be.
        """
        if self._table is None:
            with _in_alone():
                return self._training.facts()
        task = self._training.task.facts()
        with _in_alone():
            table = self._table.facts()
        summary, odd = f"{task.summary}; alone: {table.summary}", (*task.odd, *table.odd)
        return replace(task, digest=self.data_hash(), summary=summary, odd=odd)

    def settled(self) -> Mapping[str, Mapping[str, Any]]:
        """As `Evaluator.settled`: how a table treats twins."""
        if self._table is None:
            return {}
        with _in_alone():
            decided = self._table.settled()
        own = {**self._config.model_dump(mode="json"), **decided["evaluator"]}
        return {**decided, "evaluator": {"alone": own}}

    # -- architectures ----------------------------------------------------------------------------------------

    def evaluate(self, proposal: Proposal) -> Measurement:
        """Train it, or look it up.

        Raises:
            Exception: whatever went wrong.
        """
        return (self._table or self._training).evaluate(proposal)

    @staticmethod
    def check_limits(config: AloneConfig, limits: Limits) -> None:
        """As `Evaluator.check_limits`: of shared weights there is no latency to measure before they are trained."""
        if isinstance(config, TableAlone):
            Tabular.check_limits(config, limits)
        else:
            limits.check_names(("num_params", "macs"), "a search with shared weights")

    def figures(self, genotype: Genotype, limits: Limits) -> Mapping[str, float]:
        """As `Evaluator.figures`, of the network that is trained on its own."""
        one = self._table or self._training
        one.limits = limits
        return one.figures(genotype)

    def look_up(self, genotype: Genotype) -> dict[str, Any]:
        """What the table has of an architecture, as a measurement's `derived_score` and `derived_rank`; {}: nothing."""
        if self._table is not None:
            with suppress(GenotypeError):
                return {"derived_score": self._table.valid(genotype), "derived_rank": self._table.rank(genotype)}
        return {}


@contextmanager
def _in_alone() -> Iterator[None]:
    """Errors of the table name its settings as they stand here."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(str(error).replace("evaluator.", "evaluator.alone.")) from None
