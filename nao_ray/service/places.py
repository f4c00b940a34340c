"""Where the data of a search or a training are, which is not what is learnt: that the data's hash says."""

from __future__ import annotations

import copy
from functools import reduce
from typing import Any, TypeVar

from nao_ray import registry
from nao_ray.addresses import absolute
from nao_ray.config import Component, RunConfig, TrainConfig
from nao_ray.config_components import settings_of

C = TypeVar("C", RunConfig, TrainConfig)


def placed(config: C) -> C:
    """The config with the paths of its data absolute: workers, and whoever goes on later, may stand elsewhere."""
    update = {kind: _placed(kind, component, config.space) for kind, component in _readers(config).items()}
    if isinstance(config, RunConfig) and earlier_pools(config):
        pools = [absolute(pool) for pool in earlier_pools(config)]
        update["strategy"] = Component(**{**config.strategy.model_dump(), "warm_start": pools})
    return config.model_copy(update=update)


def earlier_pools(config: RunConfig) -> tuple[str, ...]:
    """Addresses of the pools that a search learns from beside its own trials."""
    return tuple(registry.load("strategy", config.strategy.name).Config(**config.strategy.settings).earlier_pools)


def given(config: RunConfig | TrainConfig) -> dict[str, str]:
    """The paths of the data of a search or a training as the config has them, by dotted key."""
    found: dict[str, str] = {}
    for kind, component in _readers(config).items():
        settings: Any = settings_of(kind, component.name, config.space)(**component.settings)
        paths = {f"{kind}.{name}": _at(settings, name) for name in settings.places}
        found |= {key: str(path) for key, path in paths.items() if path is not None}
    return found


def unlearnt(config: RunConfig | TrainConfig) -> frozenset[str]:
    """Dotted keys of the settings that say where the data are and how they are read."""
    keys: set[str] = set()
    for kind, component in _readers(config).items():
        settings: Any = settings_of(kind, component.name, config.space)
        keys |= {f"{kind}.{name}" for name in settings.places | getattr(settings, "hashed", frozenset())}
    return frozenset(keys)


def _readers(config: RunConfig | TrainConfig) -> dict[str, Component]:
    """The components that read data."""
    given = {"task": config.task, "evaluator": getattr(config, "evaluator", None)}
    return {kind: component for kind, component in given.items() if component is not None}


def _placed(kind: str, component: Component, space: Component) -> Component:
    settings: Any = settings_of(kind, component.name, space)(**component.settings)
    given = copy.deepcopy(component.settings)
    for name in settings.places:
        if (place := _at(settings, name)) is not None:
            *outer, last = name.split(".")
            within = reduce(lambda mapping, key: mapping[key], outer, given)
            within[last] = absolute(place)
    return Component(name=component.name, **given)


def _at(settings: Any, name: str) -> str | None:  # noqa: ANN401
    """A setting by its dotted name; None where it is not given, or there is none of it."""
    found: str | None = reduce(lambda within, key: getattr(within, key, None), name.split("."), settings)
    return found
