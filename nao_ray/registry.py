"""Components by kind and name.

The name is that of a file in the kind's folder, which holds one public class: a new file is a new component. What
components are made of is in folders below. ``package.module:Class`` is a component of the user's own (`own_modules`).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from difflib import get_close_matches
from functools import cache
from typing import Any

from nao_ray import own_modules
from nao_ray.errors import ConfigError

_KINDS = {
    "space": ("nao_ray.spaces", "SearchSpace"),
    "task": ("nao_ray.tasks", "Task"),
    "evaluator": ("nao_ray.evaluators", "Evaluator"),
    "strategy": ("nao_ray.strategies", "Strategy"),
    "skeleton": ("nao_ray.skeletons", "Skeleton"),
    "logger": ("nao_ray.loggers", "Logger"),
}


def names(kind: str) -> list[str]:
    """Names of the components of a kind (`space`, `task`, `evaluator`, `strategy`, `skeleton`, `logger`), sorted."""
    return list(_listed(kind))


@cache
def _listed(kind: str) -> tuple[str, ...]:
    """The folder is read once: composing a config asks for names a dozen times."""
    package = importlib.import_module(_KINDS[kind][0])
    modules = (module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)
    return tuple(sorted(name for name in modules if name != "base"))


def load(kind: str, name: str) -> Any:  # noqa: ANN401
    """The class of a component.

    Raises:
        ConfigError: there is no component of this name, or the user's own is not what it should be.
    """
    if own_modules.is_own(name):
        return _own(kind, name)
    known = _listed(kind)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
        own = ", or package.module:Class for one of your own" if not close else ""
        raise ConfigError(f"no {kind} is named {name!r}{hint}{own}")
    return _ours(kind, name)


@cache
def _ours(kind: str, name: str) -> Any:  # noqa: ANN401
    """The one public class of its file."""
    module = importlib.import_module(f"{_KINDS[kind][0]}.{name}")
    base = base_of(kind)
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, base) and item.__module__ == module.__name__
        and not item.__name__.startswith("_")
    ]  # fmt: skip
    assert len(found) == 1, f"{module.__name__} must hold one public {base.__name__}, it holds {len(found)}"
    return found[0]


def base_of(kind: str) -> type[Any]:
    """The class that every component of a kind is derived from."""
    package, name = _KINDS[kind]
    base: type[Any] = getattr(importlib.import_module(f"{package}.base"), name)
    return base


def _own(kind: str, name: str) -> Any:  # noqa: ANN401
    """A component of the user's own.

    Raises:
        ConfigError: it cannot be found or imported, or is not what a component of this kind is.
    """
    base = base_of(kind)
    try:
        found = own_modules.find(name)
    except ConfigError as error:
        raise ConfigError(f"{kind} {error}") from error.__cause__
    if wrong := _wrong(found, base, name):
        raise ConfigError(f"{kind} {name}: {wrong}")
    return found


def _wrong(found: Any, base: type[Any], name: str) -> str | None:  # noqa: ANN401
    """What keeps a class from being a component; None: nothing."""
    seam = f"{base.__module__}.{base.__name__}"
    if not isinstance(found, type):
        return f"it is no class; expected one that is derived from {seam}"
    if not issubclass(found, base):
        return f"{found.__name__} is not derived from {seam}"
    if undefined := sorted(getattr(found, "__abstractmethods__", ())):
        return f"{found.__name__} does not define {', '.join(undefined)}"
    config = getattr(found, "Config", None)
    if not isinstance(config, type) or not issubclass(config, base.Config):
        return f"its Config is not derived from {base.Config.__module__}.{base.Config.__name__}"
    if (called := getattr(found, "name", name)) != name:
        is_elsewhere = called == own_modules.own_name(found)
        return f"it is named {called}" if is_elsewhere else f"it calls itself {called!r}: leave `name` out"
    return None
