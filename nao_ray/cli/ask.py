"""``nao-ray budget`` and ``nao-ray cancel``: what is asked of a running search, wherever its pool is seen."""

from __future__ import annotations

from typing import Annotated

import typer

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
    typer.echo(asking.change_budget(pool, trials=None if trials is None else int(trials), hours=given.get("hours")))


def cancel(
    pool: Pool,
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="ID", min=0)],
) -> None:
    """Give up one trial of a running search, waiting or begun.

    It is FAILED as `cancelled`, and the strategy is told.
    """
    typer.echo(asking.cancel(pool, trial))
