"""``nao-ray bench``: the modules of `nao_ray.bench`, each with a ``run(**settings) -> BenchResult``."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nao_ray import bench, yaml_text
from nao_ray.errors import ConfigError, RunError

if TYPE_CHECKING:
    from nao_ray.bench._result import BenchResult


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


def run(name: str, options: Sequence[str], as_json: bool) -> None:
    """Measure and print.

    Raises:
        ConfigError: there is no such measurement, it has no such setting, or it needs the source tree.
        RunError: the result, which is printed, has what must not be.
    """
    if name not in names():
        close = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise ConfigError(f"no measurement is named {name!r}{hint} known: {', '.join(names())}")
    measure = _load(name)
    parameters = inspect.signature(measure).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    open_ended = len(known) < len(parameters)  # it takes SECTION.key too, and says itself which
    settings = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or (key not in known and not (open_ended and "." in key)):
            raise ConfigError(f"bench {name} {option}: expected key=value with a key of {', '.join(known) or 'none'}")
        try:
            settings[key] = yaml_text.load(value)
        except yaml_text.YamlTextError:
            if value.startswith(("[", "'", '"')):
                raise ConfigError(f"bench {name} {option}: {value!r} is not a YAML value") from None
            settings[key] = value  # text such as {dataset}_valid
    result = measure(**settings)
    if as_json:
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        typer.echo(json.dumps({"name": result.name, "rows": rows, "notes": result.notes, "data": result.data}))
    else:
        typer.echo(result.table)
    if result.wrong:
        raise RunError(f"bench {name}: {len(result.wrong)} things are wrong, see above; the first: {result.wrong[0]}")


def _load(name: str) -> Callable[..., BenchResult]:
    """The measurement; what it compares with lies in `benchmarks/` beside the package, in the source tree alone."""
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
