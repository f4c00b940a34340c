"""``nao-ray bench``: the modules of `nao_ray.bench`, each with a ``run(**settings) -> BenchResult``."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nao_ray import bench, yaml_text
from nao_ray.errors import ConfigError, RunError

if TYPE_CHECKING:
    from nao_ray.bench._result import BenchResult


_NAME_WIDTH = 17  # characters of the longest setting


def names() -> list[str]:
    """Everything that can be measured."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))


def run_all(as_json: bool) -> None:
    """Measure all there is, one after the other, as the pages quote it.

    Raises:
        RunError: a result, which is printed, has what must not be.
    """
    for name in names():
        typer.echo(f"\n{name}", err=as_json)
        run(name, [], as_json)


def summary() -> str:
    """What can be measured, and how to ask further."""
    return f"Measurements: {', '.join(names())}. nao-ray bench NAME --help shows what each is, and its settings."


def manual(name: str) -> str:
    """What is measured, and every setting with its default and what it means.

    Raises:
        ConfigError: there is no such measurement.
    """
    measure = _load(name)
    parameters = inspect.signature(measure).parameters.values()
    about = inspect.getdoc(sys.modules[measure.__module__]) or ""
    meanings = _meanings(inspect.getdoc(measure) or "")
    lines = [f"Usage: nao-ray bench {name} [KEY=VALUE]... [--json]", "", about, "", "Settings:"]
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            lines.append(_entry("SECTION.KEY", meanings.get("**" + parameter.name, "")))
        else:
            default = parameter.default
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            default = "" if default is None else f" [default: {shown}]"
            lines.append(_entry(parameter.name, meanings.get(parameter.name, "") + default))
    return "\n".join(lines)


def _entry(name: str, meaning: str) -> str:
    indent = " " * (_NAME_WIDTH + 4)
    first = f"  {name:<{_NAME_WIDTH}}  "
    return textwrap.fill(meaning, 100, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)


def _meanings(text: str) -> dict[str, str]:
    """The section Args of a docstring: meaning by name, each in one line."""
    section = text.partition("Args:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in section.splitlines():
        if not line.startswith("     "):
            name, _, meaning = line.strip().partition(": ")
            found[name] = meaning
        else:
            found[name] += f" {line.strip()}"
    return found


def run(name: str, options: Sequence[str], as_json: bool) -> None:
    """Measure and print.

    Raises:
        ConfigError: there is no such measurement, it has no such setting, or it needs the source tree.
        RunError: the result, which is printed, has what must not be.
    """
    measure = _load(name)
    parameters = inspect.signature(measure).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    open_ended = len(known) < len(parameters)  # it takes SECTION.key too, and says itself which
    settings = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or (key not in known and not (open_ended and "." in key)):
            raise ConfigError(f"bench {name} {option}: expected key=value with a key of {', '.join(known) or 'none'}")
        settings[key] = _value(value, f"bench {name} {option}")
    for parameter in parameters:
        if parameter.name not in settings:
            continue
        where = f"bench {name} {parameter.name}"
        if _is_list(parameter):
            settings[parameter.name] = _listed(settings[parameter.name], where)
        _check_numbers(parameter, settings[parameter.name], where)
    result = measure(**settings)
    if as_json:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        typer.echo(json.dumps({"name": result.name, "rows": rows, "notes": result.notes, "data": result.data}))
    else:
        typer.echo(result.table)
    if result.wrong:
        raise RunError(f"bench {name}: {len(result.wrong)} things are wrong, see above; the first: {result.wrong[0]}")


def _check_numbers(parameter: inspect.Parameter, value: Any, where: str) -> None:  # noqa: ANN401 - from YAML
    """Refuse what is none where numbers are asked for; a measurement itself says which numbers may be."""
    kind = str(parameter.annotation).removesuffix(" | None").removeprefix("Sequence[").removesuffix("]")
    told, types = {"int": ("a whole number", int), "float": ("a number", int | float)}.get(kind, ("", object))
    for each in value if _is_list(parameter) else [value]:
        is_none = each is None and str(parameter.annotation).endswith(" | None")
        if told and not is_none and (isinstance(each, bool) or not isinstance(each, types)):
            raise ConfigError(f"{where}: expected {told}, got {each!r}")


def _is_list(parameter: inspect.Parameter) -> bool:
    return str(parameter.annotation).startswith("Sequence[")


def _listed(value: Any, where: str) -> list[Any]:  # noqa: ANN401 - from YAML
    """What stands between commas; a YAML list is one already."""
    if not isinstance(value, str):
        return value if isinstance(value, list) else [value]
    return [_value(word.strip(), where) for word in value.split(",") if word.strip()]


def _value(text: str, where: str) -> Any:  # noqa: ANN401 - from YAML
    try:
        return yaml_text.load(text)
    except yaml_text.YamlTextError:
        if text.startswith(("[", "'", '"')):
            raise ConfigError(f"{where}: {text!r} is not a YAML value") from None
        return text  # such as {dataset}_valid


def _load(name: str) -> Callable[..., BenchResult]:
    """The measurement; what it compares with lies in `benchmarks/` beside the package, in the source tree alone."""
    if name not in names():
        close = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise ConfigError(f"no measurement is named {name!r}{hint} known: {', '.join(names())}")
    tree = str(Path(bench.__file__).parents[2])
    if Path(tree, "benchmarks").is_dir() and tree not in sys.path:
        sys.path.append(tree)
    try:
        measure: Callable[..., BenchResult] = importlib.import_module(f"nao_ray.bench.{name}").run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "benchmarks":
            raise
        raise ConfigError(
            f"bench {name} compares with code that an installed nao_ray does not carry; run it from the source tree"
        ) from None
    return measure
