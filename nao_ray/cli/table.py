"""``nao-ray table``: tables of trained architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

table = typer.Typer(name="table", help="Tables of trained architectures.", add_completion=False)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(table)


@table.callback()
def _commands() -> None:
    """Tables of trained architectures."""


@table.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="NATS-Bench's folder NATS-tss-...-simple, or its one file.", metavar="SOURCE")
    ],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")] = Path("nas_bench_201.parquet"),
    partial: Annotated[bool, typer.Option("--partial", help="Take what is there of an incomplete folder.")] = False,
) -> None:
    """Convert NATS-Bench's files of the topology space to a table; no code in them is run."""
    from rich.console import Console
    from rich.progress import Progress

    from nao_ray.evaluators.parts.nats_bench import convert

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("architectures", total=None)
        rows = convert(
            source,
            out,
            partial=partial,
            watch=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    typer.echo(f"{rows:,} architectures in {out}")
