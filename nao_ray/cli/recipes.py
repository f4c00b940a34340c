"""``nao-ray recipes``: the recipes by name, and what is known of each."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from nao_ray.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(recipes)


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="One of them, with all its settings.", metavar="NAME", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the recipes that networks are trained by, or show one.

    Those with epochs are full trainings, for train --recipe and finalists --recipe; all are settings of an evaluator.
    """
    from nao_ray.training.published import RECIPES

    if name is not None:
        _known(name)
    if as_json:
        typer.echo(json.dumps(_facts(name) if name is not None else {each: _facts(each) for each in RECIPES}))
    elif name is None:
        _list()
    else:
        _show(name)


def _known(name: str) -> None:
    from difflib import get_close_matches

    from nao_ray.training.published import RECIPES

    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {close[0]}?" if close else "nao-ray recipes lists them"
        raise ConfigError(f"no recipe is named {name!r}; {hint}")


def _facts(name: str) -> dict[str, Any]:
    """For JSON."""
    from dataclasses import asdict

    from nao_ray.training.published import FULL_TRAININGS
    from nao_ray.training.recipe import Recipe
    from nao_ray.training.told import TOLD

    plan = FULL_TRAININGS.get(name)
    settings = Recipe(name=name).model_dump(mode="json", exclude={"name"})
    return {**asdict(TOLD[name]), "full_training": plan, "settings": settings}


def _list() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from nao_ray.training.published import FULL_TRAININGS, RECIPES
    from nao_ray.training.told import TOLD

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipe", no_wrap=True)
    table.add_column("epochs", justify="right")
    table.add_column("what")
    table.add_column("published")
    for name in RECIPES:
        told, plan = TOLD[name], FULL_TRAININGS.get(name)
        published = "; ".join(f"{result.genotype} {result.score}" for result in told.results)
        epochs = "" if plan is None else str(plan["epochs"])
        table.add_row(name, epochs, Text(told.what), Text(published))
    Console(highlight=False).print(table)
    typer.echo("nao-ray recipes NAME shows one whole")


def _show(name: str) -> None:
    from nao_ray import yaml_text
    from nao_ray.training.published import FULL_TRAININGS
    from nao_ray.training.told import TOLD

    told, plan, facts = TOLD[name], FULL_TRAININGS.get(name), _facts(name)
    lines = [("trains", told.what)]
    if plan is not None:
        size = ", ".join(f"{key} {value}" for key, value in plan["size"].items())
        apart = "" if plan.get("data", "all") == "all" else "; validation stays apart"
        lines.append(("plan", f"{plan['epochs']} epochs, {size}{apart}"))
    lines += [
        ("published", f"{result.genotype}, {result.num_params:,} parameters: {result.score}") for result in told.results
    ]
    if told.source:
        lines.append(("source", told.source))
        lines.append(("run", told.command(name)))
    for key, value in lines:
        typer.echo(f"{key:<10} {value}")
    typer.echo(
        f"\n# of {name}, to be changed by --set recipe.KEY=VALUE or in a file\n{yaml_text.dump(facts['settings'])}"
    )
