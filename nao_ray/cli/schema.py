"""``nao-ray schema``: the form of what commands print with ``--json``, for programs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nao_ray.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(schema)


def schema(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="For example search, or pool best; without one: all.", metavar="[COMMAND]"),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json."""
    from nao_ray.cli.forms import forms

    known, name = forms(), " ".join(command or ())
    if name and name not in known:
        raise ConfigError(f"schema {name}: there are {', '.join(known)}")
    found = {each: form.json_schema() for each, form in known.items()}
    typer.echo(json.dumps(found[name] if name else found, indent=1))
