"""``nao-ray table``: tables of trained architectures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

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


@table.command()
def audit(
    pool: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    path: Annotated[Path, typer.Argument(help="Parquet or CSV file.", metavar="TABLE")],
    settings: Annotated[
        list[str],
        typer.Argument(
            help="Settings of the evaluator `tabular`: valid=COLUMN, genotype=COLUMN, twins=merge.",
            metavar="KEY=VALUE...",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare a search with shared weights with a table of its space.

    Per phase of alphas the derived cell's value in the table, its rank and its skip connections; per version of shared
    weights Kendall's tau between its scores and the table. Nothing is trained.
    """
    from nao_ray.cli.pool import make_space
    from nao_ray.cli.table_audit import TableAudit, open_table
    from nao_ray.pool import PoolReader
    from nao_ray.report.text import frame_text
    from nao_ray.standings import after

    opened = PoolReader.open(pool)
    found = TableAudit(opened, open_table(make_space(opened), {"path": str(path), **_settings(settings)}))
    derived, agreement = found.derived, found.agreement
    if as_json:
        tables = {"derived": derived, "agreement": agreement}
        rows = {name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()}
        told = {"pool": pool, "table": str(path), "architectures": found.size, "rung": found.rung}
        typer.echo(json.dumps({**told, **rows}))
        return
    typer.echo(f"{path}: {found.size:,} architectures, of which the best has rank 1")
    if not derived.empty:
        typer.echo(f"\nderived from alphas\n{frame_text(derived)}")
    if not agreement.empty:
        alone = "networks trained alone" + ("" if found.rung is None else f", {after(found.rung)}")
        typer.echo(f"\nscores with shared weights (-: {alone})\n{frame_text(agreement)}")


@table.command()
def score(
    pool: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    path: Annotated[Path, typer.Argument(help="Parquet or CSV file.", metavar="TABLE")],
    settings: Annotated[list[str], typer.Argument(help="As of `audit`.", metavar="KEY=VALUE...")],
    count: Annotated[int | None, typer.Option(min=3, help="Cells drawn of the table; default all.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the weights; default the newest.")] = None,
    share: Annotated[float, typer.Option(min=1e-9, max=1, help="Of the validation examples that score.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="CSV file to write each cell's score to.")] = None,
) -> None:
    """Score the cells of a table with a pool's shared weights.

    All on the same validation examples, in this process. Kendall's tau of the scores with the table, beside those of
    the number of parameters and of skip connections, which cost nothing. The pool is not changed.
    """
    from nao_ray.cli.pool import make_space
    from nao_ray.cli.table_audit import open_table
    from nao_ray.cli.table_score import TableScore
    from nao_ray.pool import PoolReader
    from nao_ray.report.text import frame_text

    opened = PoolReader.open(pool)
    known = open_table(make_space(opened), {"path": str(path), **_settings(settings)})
    scored = TableScore(opened, known, count, version, share)
    scores = scored.scores()
    if out is not None:
        scored.rows(scores).to_csv(out, index=False)
    agreement, missing = frame_text(scored.agreement(scores)), sum(not math.isfinite(score) for score in scores)
    left_out = f", without {missing:,} whose score is no finite number" if missing else ""
    typer.echo(f"{path}: {len(scored.cells):,} of {len(known):,} architectures{left_out}\n{agreement}")


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    from nao_ray import yaml_text
    from nao_ray.errors import ConfigError

    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        try:
            found[key] = yaml_text.load(value)
        except yaml_text.YamlTextError:
            found[key] = value  # such as {dataset}_valid
        if not separator:
            raise ConfigError(f"{text}: expected KEY=VALUE, for example valid=cifar10_valid_acc_200")
    return found
