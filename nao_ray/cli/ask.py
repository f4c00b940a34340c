"""``nao-ray budget`` and ``nao-ray cancel``: what is asked of a running search, wherever its pool is seen."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nao_ray.cli import output
from nao_ray.errors import ConfigError
from nao_ray.service.hosting import asking

Pool = Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(budget)
    app.command()(cancel)


def budget(
    pool: Pool,
    limits: Annotated[list[str], typer.Argument(help="trials=N, hours=N, or both.", metavar="LIMIT=N...")],
    as_json: output.AsJson = False,
) -> None:
    """Give a search another budget while it runs.

    It holds for a resume as well, unless that gives a budget of its own.
    """
    given: dict[str, float] = {}
    for limit in limits:
        name, _, text = limit.partition("=")
        if name not in ("trials", "hours"):
            raise ConfigError(f"budget {limit}: expected trials=N or hours=N")
        try:
            given[name] = int(text) if name == "trials" else float(text)
        except ValueError:
            raise ConfigError(
                f"budget {limit}: expected a {'whole ' if name == 'trials' else ''}number above 0"
            ) from None
    trials = given.get("trials")
    trials = None if trials is None else int(trials)
    tell(pool, asking.change_budget(pool, trials=trials, hours=given.get("hours")), as_json)


def cancel(
    pool: Pool,
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="ID", min=0)],
    as_json: output.AsJson = False,
) -> None:
    """Give up one trial of a running search, waiting or begun.

    It is FAILED as `cancelled`, and the strategy is told.
    """
    tell(pool, asking.cancel(pool, trial), as_json)


def tell(pool: str, answer: str, as_json: bool) -> None:
    """Print what a driver has answered."""
    typer.echo(json.dumps({"pool": pool, "answer": answer}) if as_json else answer)
