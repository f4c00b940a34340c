"""``nao-ray bench``: the modules of `nao_ray.bench`, each with a ``run(**settings) -> BenchResult``."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Sequence
from difflib import get_close_matches

import typer
import yaml

from nao_ray import bench
from nao_ray.errors import ConfigError, RunError


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
        ConfigError: there is no such measurement, or it has no such setting.
        RunError: the result, which is printed, has what must not be.
    """
    if name not in names():
        close = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise ConfigError(f"no measurement is named {name!r}{hint} known: {', '.join(names())}")
    measure = importlib.import_module(f"nao_ray.bench.{name}").run
    parameters = inspect.signature(measure).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    open_ended = len(known) < len(parameters)  # it takes SECTION.key too, and says itself which
    settings = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or (key not in known and not (open_ended and "." in key)):
            raise ConfigError(f"bench {name} {option}: expected key=value with a key of {', '.join(known) or 'none'}")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
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
