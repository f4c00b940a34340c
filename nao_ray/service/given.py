"""What a search is given: its config, as a file, a preset or data, and its pool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nao_ray import yaml_text
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.preset_files import find_config

Given = str | Path | Mapping[str, Any] | RunConfig
"""Path of a YAML config, name of a preset, the same as a mapping, or a config that is made."""


def pool_of(given: str | None, config_name: str) -> str:
    """The pool of a search: the given one, or the default.

    Raises:
        ConfigError: the given one is empty, as an unset variable is.
    """
    if given is not None and not given.strip():
        raise ConfigError("--pool is empty: give a folder or a URL, or leave it out for pools/<name of the config>")
    return given or f"pools/{config_name}"


def read_config(config: Given, overrides: Sequence[str] = ()) -> tuple[RunConfig, str]:
    """A config with ``section.key=value`` laid over it, and its text without.

    Raises:
        ConfigError: there is no such config, or it is wrong.
    """
    if isinstance(config, str | Path):
        path = find_config(str(config))
        return RunConfig.load(path, tuple(overrides)), path.read_text(encoding="utf-8")
    try:
        text = config.to_yaml() if isinstance(config, RunConfig) else yaml_text.dump(dict(config))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config holds what no YAML can: {error}") from None
    return RunConfig.parse(text, tuple(overrides), where="the config"), text


def as_overrides(settings: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """Settings by dotted key, or as ``section.key=value``, as the latter."""
    if not isinstance(settings, Mapping):
        return tuple(settings)
    return tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())
