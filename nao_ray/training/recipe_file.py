"""A recipe of the user's own: a file of settings, beside the config or in the current folder."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from nao_ray import own_modules, yaml_text
from nao_ray.errors import ConfigError


def is_file(name: object) -> bool:
    """Whether a recipe's name is that of a file."""
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))


def read(name: str, known: Collection[str]) -> dict[str, Any]:
    """The settings in a file, of which `name` is the recipe that they differ from.

    Args:
        name: path of the file, from the config's folder or the current one.
        known: the settings that there are.

    Raises:
        ConfigError: there is no such file, it is no mapping, or has an unknown key.
    """
    path = own_modules.find_file(name)
    if path is None:
        where = " nor in ".join(map(str, own_modules.folders()))
        raise ConfigError(f"there is no recipe file {name}, neither in {where}")
    try:
        data = yaml_text.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml_text.YamlTextError) as error:
        raise ConfigError(f"cannot read recipe {path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {path}: expected a mapping of settings")
    for key in data:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"recipe {path}: unknown key {key}; {hint}")
    if is_file(data.get("name")):
        raise ConfigError(f"recipe {path}: name is that of one of nao_ray's recipes, not {data['name']}")
    return data


def named_in(value: object) -> bool:
    """Whether a config, or a part of it, names a recipe file."""
    if isinstance(value, list):
        return any(map(named_in, value))
    if not isinstance(value, dict):
        return False
    given = value.get("recipe")
    name = given.get("name") if isinstance(given, dict) else given
    return is_file(name) or any(map(named_in, value.values()))
