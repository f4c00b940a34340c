"""YAML by the rules of its version 1.2, and refused where one reader would take it for something else than another.

YAML 1.1, which PyYAML reads, takes ``1:30`` for 90, ``010`` for 8 and ``1e-1`` for text. What is written here reads the
same by either version, so a manifest needs no reader of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

HEAD = "%YAML 1.2\n---\n"
"""First lines of a document that says by which rules it is to be read."""


_BREAKS = "\x85\u2028\u2029"  # end a line by one version alone


class YamlTextError(ValueError):
    """Not YAML, or not YAML with one meaning; a line that says where and why."""


class _Constructor(SafeConstructor):
    def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:  # noqa: ANN401
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise YamlTextError(f"line {line}: the key {key!r} is no text: write it in quotes")
        if key in mapping:
            first = next(other for other, _ in node.value if other.value == key_node.value)
            raise YamlTextError(f"the key {key} is given twice, in lines {first.start_mark.line + 1} and {line}")
        return True


# dates, and `=`, are text in YAML 1.2
for _tag in ("timestamp", "value"):
    _Constructor.add_constructor(f"tag:yaml.org,2002:{_tag}", SafeConstructor.construct_yaml_str)


def load(text: str) -> Any:  # noqa: ANN401
    """What a document says: mappings with text as keys, lists, text, numbers, booleans and None.

    Raises:
        YamlTextError: it is not YAML, or a key is given twice.
    """
    return deepcopy(_said(text))


@lru_cache(maxsize=64)
def _said(text: str) -> Any:  # noqa: ANN401
    """Kept, for one manifest is read many times, and ruamel takes 10 ms for it."""
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    reader.Constructor = _Constructor
    try:
        return reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        said = [error.context] if error.context and error.context.startswith("expected") else []
        raise YamlTextError(f"{where}{' '.join(', '.join([*said, error.problem or 'no YAML']).split())}") from None
    except YAMLError as error:
        raise YamlTextError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlTextError("it is nested too deeply") from None
    except ValueError as error:  # a number or a date that is none
        if isinstance(error, YamlTextError):
            raise
        raise YamlTextError(" ".join(str(error).split())) from None


def load_document(text: str) -> Any:  # noqa: ANN401
    """As `load`; a document without `HEAD`, as earlier versions wrote them, by the rules of YAML 1.1.

    Raises:
        YamlTextError: as `load`.
    """
    if text.startswith(HEAD):
        return load(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise YamlTextError(" ".join(str(error).split())) from None


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that either version takes for a number."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?0o[0-7_]+$"), list("-+0"))


def dump(data: Mapping[str, Any]) -> str:
    """A mapping as YAML, in its order.

    Raises:
        ValueError: it holds something that YAML cannot give back.
    """
    try:
        text = _written(data, plain=True)
        if any(letter in text for letter in _BREAKS):
            text = _written(data, plain=False)
    except yaml.YAMLError as error:
        raise ValueError(f"not plain data: {' '.join(str(error).split())}") from None
    return text


def _written(data: Mapping[str, Any], *, plain: bool) -> str:
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=plain)
    return text
