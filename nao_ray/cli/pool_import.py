"""``nao-ray pool import``: a pool of other people's results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nao_ray.errors import ConfigError

if TYPE_CHECKING:
    from nao_ray.service.hosting.importing import Imported

NAME = "pool import"
"""Of the command, for whom two words of a line are one (`joined`)."""
_SHOWN = 10  # rows that were left out


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(NAME)(import_)


def joined(words: Sequence[str]) -> list[str]:
    """The words of a command line, in which `pool import` is one: elsewhere a pool's address follows `pool`."""
    first = next((k for k, word in enumerate(words) if not word.startswith("-")), len(words))
    is_import = list(words[first : first + 2]) == NAME.split()
    return [*words[:first], NAME, *words[first + 2 :]] if is_import else list(words)


def import_(
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV, Parquet or JSON lines; the first two with a header, also .gz.")
    ],
    space: Annotated[str, typer.Option(help="Search space: its name, or {name: ..., SETTING: ...}.", metavar="SPACE")],
    genotype: Annotated[str, typer.Option(help="Column of the architectures' texts.", metavar="COLUMN")],
    score: Annotated[str, typer.Option(help="Column of what they are measured by.", metavar="COLUMN")],
    unit: Annotated[
        str | None, typer.Option(help="Of an accuracy percent or fraction (the default); else any, e.g. nats.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What is measured; default accuracy, or by --score.")] = None,
    goal: Annotated[
        Literal["maximize", "minimize"] | None, typer.Option(help="minimize for losses, errors, perplexities.")
    ] = None,
    dialect: Annotated[str | None, typer.Option(help="Notation of the genotypes; default the space's own.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Take a column whose name is not the pool's: num_params=COLUMN, macs=, epochs=, wall_seconds=, seed=, "
            "...; may be given often. What has the pool's name is taken anyway.",
            metavar="NAME=COLUMN",
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Folder or URL of the pool; default pools/<name of the file>.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out rows that cannot be read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make a pool of a table of results from elsewhere.

    A pool like any other, to look at and to learn from (strategy.warm_start), in which no search goes on. A row is a
    trial, and so is each repeat of an architecture.
    """
    from nao_ray.service.hosting.importing import Columns, import_table, metric_of_column

    measured, in_percent = metric_of_column(score, metric, goal, unit)
    columns = Columns(
        genotype=genotype, score=score, metric=measured, in_percent=in_percent, dialect=dialect, named=_named(column)
    )
    done = import_table(file, _space(space), columns, pool, partial=partial)
    if as_json:
        facts = asdict(done)
        typer.echo(json.dumps({"pool": facts.pop("pool_url"), **facts}))
    else:
        typer.echo(_told(done, file))


def _space(text: str) -> Any:  # noqa: ANN401 - the floor above config imports it when it is called
    from nao_ray import yaml_text
    from nao_ray.config_components import Component

    try:
        given = yaml_text.load(text) if text.lstrip().startswith("{") else text
    except yaml_text.YamlTextError as error:
        raise ConfigError(f"--space {text}: {error}") from None
    return Component.model_validate(given)


def _named(words: Sequence[str] | None) -> dict[str, str]:
    named = {}
    for word in words or ():
        name, separator, column = word.partition("=")
        if not separator or not column:
            raise ConfigError(f"--column {word}: expected NAME=COLUMN, for example num_params=params")
        named[name.strip()] = column.strip()
    return named


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _told(done: Imported, file: Path) -> str:
    counts = (_counted(done.trials, "trial"), _counted(done.architectures, "architecture"), _counted(done.rows, "row"))
    lines = ["{} of {} from {} of ".format(*counts) + str(file)]
    lines += [f"columns taken    {', '.join(done.taken)}"] if done.taken else []
    lines += [f"columns left     {', '.join(done.ignored)}"] if done.ignored else []
    if done.left_out:
        more = len(done.left_out) - _SHOWN
        were = "was" if len(done.left_out) == 1 else "were"
        lines += [f"{_counted(len(done.left_out), 'row')} {were} left out:", *done.left_out[:_SHOWN]]
        lines += [f"and {more:,} more"] if more > 0 else []
    return "\n".join([*lines, f"pool    {done.pool_url}"])
