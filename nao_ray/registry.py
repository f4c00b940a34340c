"""Components by kind and name.

The name is that of a file in the kind's folder, which holds one public class: a new file is a new component. What
components are made of is in folders below.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from difflib import get_close_matches
from typing import Any

from nao_ray.errors import ConfigError

_KINDS = {
    "space": ("nao_ray.spaces", "SearchSpace"),
    "task": ("nao_ray.tasks", "Task"),
    "evaluator": ("nao_ray.evaluators", "Evaluator"),
    "strategy": ("nao_ray.strategies", "Strategy"),
    "logger": ("nao_ray.loggers", "Logger"),
}


def names(kind: str) -> list[str]:
    """Names of the components of a kind (`space`, `task`, `evaluator`, `strategy`, `logger`), sorted."""
    package = importlib.import_module(_KINDS[kind][0])
    modules = (module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)
    return sorted(name for name in modules if name != "base")


def load(kind: str, name: str) -> Any:  # noqa: ANN401
    """The class of a component.

    Raises:
        ConfigError: there is no component of this name.
    """
    known = names(kind)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise ConfigError(f"no {kind} is named {name!r}{hint} known: {', '.join(known)}")
    package, base_name = _KINDS[kind]
    base = getattr(importlib.import_module(f"{package}.base"), base_name)
    module = importlib.import_module(f"{package}.{name}")
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, base) and item.__module__ == module.__name__
        and not item.__name__.startswith("_")
    ]  # fmt: skip
    assert len(found) == 1, f"{module.__name__} must hold one public {base_name}, it holds {len(found)}"
    return found[0]
