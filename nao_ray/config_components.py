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
        """Everything but the name."""
        return dict(self.__pydantic_extra__ or {})


def make_space(section: Component | Mapping[str, Any] | str) -> SearchSpace[Any]:
    """The search space of a config's section."""
    component = section if isinstance(section, Component) else Component.model_validate(section)
    cls = registry.load("space", component.name)
    space: SearchSpace[Any] = cls(cls.Config(**component.settings))
    return space


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
