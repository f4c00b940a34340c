"""A component as a config names it, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, model_validator

from nao_ray import own_modules, registry
from nao_ray.addresses import REMEDY, has_credentials, masked
from nao_ray.config_text import complaint
from nao_ray.errors import ConfigError
from nao_ray.settings import Settings
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import SearchSpace
from nao_ray.spaces.parts.preferring import Preferences, preferring
from nao_ray.tasks.base import Task
from nao_ray.yaml_text import load_document


class Component(Settings):
    """A component by name, with its own settings beside the name; ``package.module:Class`` is one of the user's own."""

    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:  # noqa: ANN401
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name, and preferences among a space's operations."""
        given = dict(self.__pydantic_extra__ or {})
        return {name: value for name, value in given.items() if not (name == "ops" and isinstance(value, Mapping))}

    @property
    def preferences(self) -> Preferences | None:
        """What is preferred among a space's operations: `ops`, where it is a mapping."""
        given = (self.__pydantic_extra__ or {}).get("ops")
        if not isinstance(given, Mapping):
            return None
        try:
            return Preferences(**given)
        except ValidationError as error:
            raise complaint(error, Preferences, ("space", "ops")) from None


def make_space(section: Component | Mapping[str, Any] | str) -> SearchSpace[Any]:
    """The search space of a config's section."""
    component = section if isinstance(section, Component) else Component.model_validate(section)
    cls = registry.load("space", component.name)
    wanted, settings = component.preferences, component.settings
    if wanted is not None and "ops" in cls.Config.model_fields:  # it has a setting of its own: those that are left
        settings["ops"] = [op for op in cls.Config().ops if op not in wanted.without]
        if unknown := [op for op in wanted.without if op not in cls.Config().ops]:
            raise ConfigError(f"space.ops: {component.name} has no operation {unknown[0]!r}", "space.ops")
        wanted = wanted.model_copy(update={"without": ()})
    space: SearchSpace[Any] = cls(cls.Config(**settings))
    return space if wanted is None else preferring(space, wanted)


def space_of(manifest: Mapping[str, Any], where: str) -> SearchSpace[Any]:
    """The search space of a pool, by its manifest.

    Raises:
        PoolError: it is of a module of the user's own that is not here; `where` says which pool.
    """
    own_modules.refuse_missing(manifest.get("own_modules", {}), where)
    config = manifest["config"]
    return make_space((load_document(config) if isinstance(config, str) else config)["space"])


def make_task(component: Component) -> Task[Any]:
    """The task; loads no data."""
    cls = registry.load("task", component.name)
    task: Task[Any] = cls(cls.Config(**component.settings))
    return task


def settings_of(kind: str, name: str, space: Component) -> type[Settings]:
    """The config of a component; an evaluator's depends on the space of the search."""
    cls = registry.load(kind, name)
    found: type[Settings] = cls.settings(make_space(space)) if kind == "evaluator" else cls.Config
    return found


def check_component(kind: str, component: Component, space: Component) -> None:
    """Raise ConfigError unless the component exists and takes its settings; the space is one that was checked."""
    _refuse_credentials(component.settings, kind)
    try:
        registry.load(kind, component.name)
    except ConfigError as error:
        raise ConfigError(str(error), key=f"{kind}.name") from None
    settings = settings_of(kind, component.name, space)
    try:
        settings(**component.settings)
    except ValidationError as error:
        raise complaint(error, settings, (kind,), _former(space) if kind == "evaluator" else {}) from None


def _former(space: Component) -> Mapping[str, str]:
    made = make_space(space)
    return skeleton_of(made).former_sizes if made.skeleton else {}


def _refuse_credentials(value: object, key: str) -> None:
    """Raise ConfigError where a setting, however deep, is an address with credentials: the pool would record them."""
    if isinstance(value, str) and has_credentials(value):
        raise ConfigError(f"{key}: the address {masked(value)} holds credentials: {REMEDY}", key)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_credentials(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_credentials(inner, key)


def parts(space: SearchSpace[Any]) -> list[str]:
    """The skeleton and the operations of a space's networks."""
    return [space.skeleton, *getattr(space, "ops", ())]


def check_parts(space: SearchSpace[Any]) -> None:
    """Raise ConfigError unless the user's own skeleton and operations are there: workers get them with the space."""
    skeleton, *ops = parts(space)
    if own_modules.is_own(skeleton):
        registry.load("skeleton", skeleton)
    for op in filter(own_modules.is_own, ops):
        from nao_ray.networks.ops import own_operation

        own_operation(op)


def check_pair(name: str, strategy: Any, of: str, evaluator: Any) -> None:  # noqa: ANN401 - classes of the registry
    """Raise ConfigError where one of a strategy and an evaluator, by their names, trains what the other does not."""
    if evaluator.shares_weights and not strategy.shares_weights:
        raise ConfigError(
            f"the evaluator {of} scores with shared weights, and the strategy "
            f"{name} trains none: take nao_shared, enas or shared_random_search, or the evaluator "
            "standalone"
        )
    if strategy.shares_weights and not evaluator.shares_weights:
        raise ConfigError(
            f"the strategy {name} trains shared weights, and the evaluator {of} has "
            f"none: take the evaluator {'darts' if strategy.trains == 'alphas' else 'one_shot'}"
        )
    if strategy.shares_weights and strategy.trains != evaluator.trains:
        raise ConfigError(
            f"the strategy {name} trains {strategy.trains}, and the evaluator {of} "
            f"{evaluator.trains}: take the evaluator {'darts' if strategy.trains == 'alphas' else 'one_shot'}"
        )
