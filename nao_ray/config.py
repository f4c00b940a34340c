"""The configuration of a search: components' configs composed. YAML in, canonical YAML out.

    name: digits
    seed: 0
    space: nao_cnn
    task: {name: digits}
    evaluator: {name: standalone, epochs: 8}
    strategy: {name: nao, rounds: 2}
    budget: {trials: 72}
    workers: {count: auto, cpus: 1}

Unknown keys are refused by name, and what is given twice with both lines.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from nao_ray import own_modules, registry, yaml_text
from nao_ray.addresses import masked
from nao_ray.config_aims import aim, check_aims, limited, others
from nao_ray.config_components import Component as Component
from nao_ray.config_components import (
    check_component,
    check_pair,
    check_parts,
    make_space,
    make_task,
    parts,
    settings_of,
)
from nao_ray.config_fidelity import Rungs, check_rungs
from nao_ray.config_text import blamed, complaint, override
from nao_ray.config_training import TrainConfig as TrainConfig
from nao_ray.config_workers import Workers as Workers
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig, SharedEvaluator
from nao_ray.limits import MEASURED, Limits
from nao_ray.loggers.base import Logger, Search
from nao_ray.settings import Settings
from nao_ray.spaces.base import SearchSpace
from nao_ray.strategies.base import Earlier, Strategy
from nao_ray.strategies.parts.ladder import Ladder
from nao_ray.tasks.base import Task
from nao_ray.training import recipe_file


class Budget(Settings):
    """When the search stops: at the first limit that is reached."""

    trials: int | None = Field(default=None, ge=1)
    """Rows of the pool: architectures asked and, where weights are shared, phases of their training."""
    hours: float | None = Field(default=None, gt=0)
    """Wall time of this and all earlier drivers of the pool, in hours."""
    failures: int | None = Field(default=10, ge=1)
    """Trials that fail in a row, and none was ever completed: the search then ends, resumable, with the commonest
    message. Five times as many where some were. Null: it never ends for that."""

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.trials is None and self.hours is None:
            raise ValueError("give trials, hours, or both")
        return self


class RunConfig(Settings):
    """A whole search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Names the pool `pools/<name>`."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    space: Component
    task: Component | None = None
    """What is trained on; an evaluator that trains nothing needs none."""
    evaluator: Component
    strategy: Component
    budget: Budget
    fidelity: Rungs | None = None
    """A ladder of epochs; None: every architecture is trained as the evaluator says."""
    workers: Workers = Workers()
    loggers: tuple[Component, ...] = ()
    """Other places that are told of each trial."""
    constraints: Mapping[str, str] = {}
    """What a network may cost, by the name of the figure: ``num_params: "<= 3.3e6"``. Nothing outside is trained."""

    objectives: tuple[str, ...] = ()
    """What is aimed at: the metric's column and others, ``-macs``, with - where less is better."""

    @field_validator("constraints", mode="before")
    @classmethod
    def _one_notation(cls, given: Any) -> Any:  # noqa: ANN401
        return Limits(given).texts if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _check_components(self) -> Self:
        for kind, component in [*self._components().items(), *(("logger", logger) for logger in self.loggers)]:
            check_component(kind, component, self.space)
        evaluator, strategy = (registry.load(kind, getattr(self, kind).name) for kind in ("evaluator", "strategy"))
        check_pair(self.strategy.name, strategy, self.evaluator.name, evaluator)
        if self.task is None and evaluator.needs_task:
            raise ConfigError(f"task is missing: the evaluator {self.evaluator.name} trains on one")
        space, outline = self.make_space(), None if self.task is None else self.make_task().outline
        check_parts(space)
        asks, config = strategy.Config(**self.strategy.settings), self.evaluator_config
        for settings in ({}, *asks.own_settings):
            evaluator.check(space, outline, config.under(settings))
        epochs, most = asks.training_epochs, config.most_epochs
        if epochs is not None and most is not None and epochs > most:
            raise ConfigError(
                f"strategy.epochs is {epochs}, and the cosine of the learning rate ends with epoch {most}: give "
                f"evaluator.period {epochs}"
            )
        check_aims(self, strategy, evaluator)
        if self.fidelity is not None:
            check_rungs(self.fidelity, (self.strategy.name, strategy), evaluator, config)
        return self

    @property
    def own_settings(self) -> Sequence[Mapping[str, Any]]:
        """What some trials are trained under instead of the evaluator's recipe."""
        strategy = registry.load("strategy", self.strategy.name)
        settings: Sequence[Mapping[str, Any]] = strategy.Config(**self.strategy.settings).own_settings
        return settings

    def _components(self) -> dict[str, Component]:
        given = {kind: getattr(self, kind) for kind in ("space", "task", "evaluator", "strategy")}
        return {kind: component for kind, component in given.items() if component is not None}

    @property
    def limits(self) -> Limits:
        """The constraints, read."""
        return Limits(self.constraints)

    # -- components ---------------------------------------------------------------------------------------

    @property
    def own_components(self) -> list[str]:
        """Names of those that are the user's own, of skeleton and operations too."""
        given = [component.name for component in (*self._components().values(), *self.loggers)]
        return [name for name in (*given, *parts(self.make_space())) if own_modules.is_own(name)]

    def make_space(self) -> SearchSpace[Any]:
        """The search space."""
        return make_space(self.space)

    def make_task(self) -> Task[Any]:
        """The task; loads no data.

        Raises:
            ConfigError: the config names none.
        """
        if self.task is None:
            raise ConfigError(f"{self.name} has no task")
        return make_task(self.task)

    def make_evaluator(self) -> Evaluator[Any]:
        """The evaluator, to be made where it runs."""
        cls = registry.load("evaluator", self.evaluator.name)
        task = None if self.task is None else self.make_task()
        evaluator: Evaluator[Any] = cls(self.make_space(), task, self.evaluator_config)
        evaluator.limits = self.limits
        evaluator.aims = others(self.objectives)
        evaluator.times = MEASURED in (*self.constraints, *evaluator.aims)
        evaluator.rungs = () if self.fidelity is None else self.fidelity.epochs
        return evaluator

    @property
    def evaluator_config(self) -> EvaluatorConfig:
        """The evaluator's settings, with the sizes of the space's networks; of a ladder a whole training's epochs."""
        settings: Any = settings_of("evaluator", self.evaluator.name, self.space)
        given = self.evaluator.settings
        if self.fidelity is not None and "epochs" in settings.model_fields:
            given["epochs"] = self.fidelity.top
        config: EvaluatorConfig = settings(**given)
        return config

    def make_strategy(self, earlier: Sequence[Earlier] = ()) -> Strategy[Any]:
        """The strategy, without a past of its own; `earlier` is what the pools of its `warm_start` have come to.

        Raises ConfigError: the constraints leave next to nothing, or not what it is told to ask for.
        """
        evaluator = registry.load("evaluator", self.evaluator.name)
        fidelity, rungs = evaluator.fidelity(self.evaluator_config), self.fidelity
        fidelity = fidelity if rungs is None else replace(fidelity, epochs=rungs.epochs[0])
        cls = registry.load("strategy", self.strategy.name)
        make = cast("Callable[[], SharedEvaluator[Any]]", cache(self.make_evaluator))  # not before it is asked
        space = limited(self.make_space(), self.limits, lambda genotype: make().figures(genotype), self.seed)
        strategy: Strategy[Any] = cls(space, cls.Config(**self.strategy.settings), self.seed, fidelity)
        aim(strategy, self.objectives, lambda genotype: make().figures(genotype))
        if evaluator.shares_weights and strategy.shares_weights:
            strategy.num_params = lambda genotype: make().num_params(genotype)
        strategy.learn_from(earlier)
        return strategy if rungs is None else Ladder(strategy, rungs.epochs, rungs.keep)

    @property
    def bears_failed_phases(self) -> bool:
        """Whether a phase of shared weights may fail as any trial does (`Strategy`)."""
        return bool(registry.load("strategy", self.strategy.name).bears_failed_phases)

    def make_loggers(self, search: Search) -> list[Logger[Any]]:
        """The loggers, not opened.

        Raises:
            ConfigError: what one of them needs is not installed, or a setting does not fit the search.
        """
        classes = [(registry.load("logger", logger.name), logger.settings) for logger in self.loggers]
        return [cls(cls.Config(**settings), search) for cls, settings in classes]

    # -- YAML ---------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, text: str, overrides: tuple[str, ...] = (), where: str = "config") -> RunConfig:
        """From YAML text and ``section.key=value`` overrides (values are YAML).

        Raises:
            ConfigError: not YAML, an unknown key, a wrong type or an impossible value; says where.
        """
        try:
            data = yaml_text.load(text)
        except yaml_text.YamlTextError as error:
            raise ConfigError(f"{where}: not YAML: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected a mapping with name, space, task, evaluator, strategy and budget")
        alone = copy.deepcopy(data)
        for item in overrides:
            override(data, item)
        try:
            return cls._made(data)
        except ConfigError as error:
            raise ConfigError(f"{_whose(error, alone, overrides, where)}: {error}", error.key) from None

    @classmethod
    def _made(cls, data: dict[str, Any]) -> Self:
        try:
            made = cls(**data)
        except ValidationError as error:
            raise complaint(error, cls) from None
        return cls(**made.to_data()) if recipe_file.named_in(data) else made  # files are read once

    @classmethod
    def load(cls, path: str | Path, overrides: tuple[str, ...] = ()) -> RunConfig:
        """From a YAML file, in whose folder the user's own components are looked for first.

        Raises:
            ConfigError: the file cannot be read, or as `parse`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read config {path}: {error}") from None
        with own_modules.looking_in(Path(path).parent):
            return cls.parse(text, overrides, where=str(path))

    def to_yaml(self) -> str:
        """Canonical YAML: every section in order, defaults written out; `parse` gives the same config back."""
        return yaml_text.dump(self.to_data())

    def to_data(self) -> dict[str, Any]:
        """What `to_yaml` writes, as plain data."""
        data = self.model_dump(mode="json")
        for name in ("task", "fidelity"):
            if data[name] is None:
                del data[name]
        for kind, component in self._components().items():
            settings = settings_of(kind, component.name, self.space)
            full = settings(**component.settings).model_dump(mode="json")
            data[kind] = {"name": component.name, **full}
        data["evaluator"] |= self.evaluator_config.model_dump(mode="json")
        if (wanted := self.space.preferences) is not None:
            data["space"]["ops"] = wanted.model_dump(mode="json")
        for name in ("loggers", "constraints", "objectives"):
            if not data[name]:
                del data[name]
        return data


def _whose(error: ConfigError, alone: dict[str, Any], overrides: tuple[str, ...], where: str) -> str:
    """Who is at fault: an override, all of them together, or the file without them."""
    if not overrides:
        return where
    text = blamed(error, overrides)
    if text is not None:
        return f"--set {masked(text)}"
    try:
        RunConfig._made(alone)
    except ConfigError:
        return where
    return f"{where} with {' '.join(f'--set {masked(text)}' for text in overrides)}"
