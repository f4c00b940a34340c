"""A config as it is written: YAML with ``--set`` laid over it, and what is wrong with it said in one line."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from nao_ray import yaml_text
from nao_ray.errors import ConfigError
from nao_ray.settings import Instead


def override(data: dict[str, Any], text: str) -> None:
    """Lay ``section.key=value`` over a config; the value is YAML.

    Raises:
        ConfigError: it is not of that form.
    """
    keys, value = _split(text)
    target = data
    for key in keys[:-1]:
        inner = target.get(key)
        if isinstance(inner, str):  # `space: nao_cnn` is short for `space: {name: nao_cnn}`
            inner = {"name": inner}
        if not isinstance(inner, dict):
            inner = {}
        target[key] = inner
        target = inner
    try:
        target[keys[-1]] = yaml_text.load(value)
    except yaml_text.YamlTextError as error:
        raise ConfigError(f"--set {text}: {value!r} is not YAML: {error}") from None


def _split(text: str) -> tuple[list[str], str]:
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {text}: expected section.key=value")
    return keys, value


def blamed(error: ConfigError, overrides: Sequence[str]) -> str | None:
    """The last override that gave what an error complains of; None: the error names no key, or that of none."""
    if error.key is None:
        return None
    wrong = error.key.split(".")
    for text in reversed(overrides):
        keys = _split(text)[0]
        if all(a == b for a, b in zip(keys, wrong, strict=False)):
            return text
    return None


def complaint(
    error: ValidationError,
    model: type[BaseModel],
    prefix: tuple[str, ...] = (),
    former: Mapping[str, str] = MappingProxyType({}),
) -> ConfigError:
    """The first complaint of pydantic, as `key: what, got ...`, and how many more there are.

    Args:
        error: what pydantic says.
        model: of what it says it.
        prefix: where that stands in the config.
        former: keys that are none any more, and why.
    """
    complaints = error.errors()
    first = complaints[0]
    location = ".".join(map(str, (*prefix, *first["loc"])))
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and (within := _KEY.match(what)):
        location, what = f"{location}.{within[1]}".removeprefix("."), what[within.end() :]
    elif first["type"] in ("model_type", "dict_type"):
        what = "expected settings, a mapping"
    if first["type"] == "extra_forbidden" and first["loc"][-1] in former:
        text = f"{location} is left out here: {former[str(first['loc'][-1])]}"
    elif first["type"] == "extra_forbidden":
        text = f"unknown key {location}{_hint(model, first['loc'])}"
    elif first["type"] == "missing":
        text = f"{location} is missing"
    else:
        text = f"{location or 'config'}: {what}{_got(first['input'])}"
    more = len(complaints) - 1
    return ConfigError(text + (f" (and {more} more)" if more else ""), key=location or None)


_KEY = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): ")
"""What a validator of a whole section begins with where it complains of one setting."""
_LONG = 60  # characters of a value that is repeated


def _got(value: object) -> str:
    """A value that is wrong; of settings, which have their own places, nothing."""
    text = repr(value)
    if isinstance(value, Mapping | BaseModel) or len(text) > _LONG:
        return ""
    return f", got {text}"


def _hint(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    models: list[type[BaseModel]] = [model]
    for name in location[:-1]:
        fields = [inner.model_fields[name] for inner in models if name in inner.model_fields]
        models = [found for field in fields for found in _models_of(field)] or models
    known = list(dict.fromkeys(name for inner in models for name in inner.model_fields))
    close = get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known) or 'none'}"


def _models_of(field: FieldInfo) -> Iterator[type[BaseModel]]:
    yield from _models(field.annotation)
    yield from (mark.settings for mark in field.metadata if isinstance(mark, Instead))


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in a type, however deep: `tuple[Component, ...] | None` has one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from annotation.families() if hasattr(annotation, "families") else (annotation,)
    for inner in typing.get_args(annotation):
        yield from _models(inner)
