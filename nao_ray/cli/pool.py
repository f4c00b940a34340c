"""``nao-ray pool`` and ``nao-ray report``: a pool from the shell. Neither needs torch."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.errors import ConfigError, PoolError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from nao_ray.pool import Pool
    from nao_ray.spaces.base import SearchSpace

ACTIONS = ("best", "show", "check", "compact", "sql")
_BEST_COLUMNS = (
    "trial_id",
    "valid_accuracy",
    "valid_perplexity",
    "weights_version",
    "num_params",
    "round",
    "predicted_score",
    "genotype",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pool)
    app.command()(report)


def pool(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    action: Annotated[
        str | None,
        typer.Argument(
            help="best; show ID; check; compact; sql QUERY (tables trials, fits, final). Without one: a summary.",
            metavar="[best|show|check|compact|sql]",
        ),
    ] = None,
    argument: Annotated[str | None, typer.Argument(help="The trial of show, the query of sql.", metavar="")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Rows of best.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: one object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
) -> None:
    """Look at a pool, check it, or merge its files."""
    from nao_ray.pool import Pool

    if action is not None and action not in ACTIONS:
        raise ConfigError(f"pool has no action {action!r}; choose one of {', '.join(ACTIONS)}")
    if (argument is not None) != (action in ("show", "sql")):
        wanted = {"show": "the number of a trial", "sql": "a query in quotes"}.get(action or "", "nothing further")
        raise ConfigError(f"pool {url} {action or ''}: expected {wanted}, got {argument or 'nothing'}")
    if as_json and as_csv:
        raise ConfigError("choose one of --json and --csv")
    opened = Pool.open(url)
    form = "json" if as_json else "csv" if as_csv else "text"
    if action == "best":
        _print_frame(opened.best(count), form, _BEST_COLUMNS)
    elif action == "show":
        _show(opened, str(argument), form)
    elif action == "check":
        _check(opened, form)
    elif action == "compact":
        opened.compact()
        typer.echo(f"{url}: compacted, {len(opened.trials(columns=['trial_id']))} trials")
    elif action == "sql":
        _print_frame(opened.sql(str(argument)), form)
    else:
        _summary(opened, form, count)


def report(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    out: Annotated[Path | None, typer.Option("--out", help="Write here; default: report.html in the pool.")] = None,
) -> None:
    """Write the report: one HTML file that needs nothing else."""
    from nao_ray.pool import Pool

    typer.echo(write_report(Pool.open(url), out))


def write_report(pool: Pool, out: Path | None = None) -> str:
    """Write the report of a pool; returns where it is.

    Raises:
        PoolWriteError: the pool cannot be written.
        RunError: `out` cannot be written.
    """
    from nao_ray._pool.storage import open_storage
    from nao_ray.report.render import render

    counts = pool.counts()
    running = counts.asked - counts.finished
    tested = int(pool.sql("SELECT count(*) AS n FROM final")["n"].iloc[0])
    page = render(pool.manifest, pool.trials(), pool.fits(), running, make_space(pool), tested)
    if out is None:
        storage = open_storage(pool.url)
        storage.write("report.html", page.encode())
        return storage.path("report.html")
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the report {out}: {error.strerror or error}") from None
    return str(out)


def make_space(pool: Pool) -> SearchSpace[Any]:
    """The search space of a pool."""
    import yaml

    from nao_ray import registry

    config = pool.manifest["config"]
    section = (yaml.safe_load(config) if isinstance(config, str) else config)["space"]
    settings = {"name": section} if isinstance(section, str) else dict(section)
    space = registry.load("space", settings.pop("name"))
    made: SearchSpace[Any] = space(space.Config(**settings))
    return made


def print_best(pool: Pool, count: int) -> None:
    """The best architectures as a table."""
    _print_frame(pool.best(count), "text", _BEST_COLUMNS)


# -- actions ------------------------------------------------------------------------------------------------


def _summary(pool: Pool, form: str, count: int) -> None:
    counts = asdict(pool.counts())
    if form == "json":
        typer.echo(json.dumps({"pool": pool.url, **counts}))
    elif form == "csv":
        typer.echo(",".join(counts) + "\n" + ",".join("" if value is None else str(value) for value in counts.values()))
    else:
        typer.echo(f"{pool.url}: {counts['asked']} asked, {counts['completed']} completed, {counts['failed']} failed")
        _print_frame(pool.best(count), form, _BEST_COLUMNS)


def _show(pool: Pool, text: str, form: str) -> None:
    try:
        trial_id = int(text)
    except ValueError:
        raise ConfigError(f"pool {pool.url} show {text}: expected the number of a trial") from None
    trials = pool.trials()
    row = trials[trials["trial_id"] == trial_id]
    if row.empty:
        raise PoolError(f"pool {pool.url} has no finished trial {trial_id}")
    if form != "text":
        _print_frame(row, form)
        return
    facts = row.iloc[0]
    is_phase = not _missing(facts["phase"])
    if is_phase:
        facts = facts.drop(["phase", "genotype"])
    for name, value in facts.items():
        if not _missing(value):
            typer.echo(f"{name:<18}  {_text(value)}")
    if is_phase:
        typer.echo(f"\n{_phase(json.loads(row.iloc[0]['phase']))}")
        return
    from nao_ray.report.figures import cell_text

    space = make_space(pool)
    for role, cell in space.lower(space.parse(str(row.iloc[0]["genotype"]))).cells:
        typer.echo(f"\n{role} cell\n{cell_text(cell)}")


def _phase(phase: dict[str, Any]) -> str:
    """Training of shared weights in a line; what it trained may be a thousand genotypes."""
    start = "fresh weights" if phase["source"] is None else f"weights {phase['source']}"
    epochs = f"epochs {phase['first_epoch'] + 1} to {phase['last_epoch']}"
    return (
        f"trained shared weights {phase['version']} from {start}: {epochs}, {len(phase['genotypes'])} genotypes, "
        f"sampling {phase['sampling']}"
    )


def _check(pool: Pool, form: str) -> None:
    problems = pool.check()
    if form == "json":
        typer.echo(json.dumps({"pool": pool.url, "problems": problems}))
    else:
        typer.echo("\n".join(problems) if problems else f"{pool.url}: sound")
    if problems:
        raise typer.Exit(1)


# -- output -------------------------------------------------------------------------------------------------


def _print_frame(frame: pd.DataFrame, form: str, columns: tuple[str, ...] | None = None) -> None:
    """Rows as text (the columns that hold something), as JSON or as CSV (all columns)."""
    if form == "json":
        records = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
        typer.echo(json.dumps(records, default=str))
    elif form == "csv":
        lists = {name: frame[name].map(_list_text) for name in frame.columns if frame[name].dtype == object}
        frame.assign(**lists).to_csv(sys.stdout, index=False)
    else:
        names = [str(name) for name in frame.columns] if columns is None else [n for n in columns if n in frame.columns]
        filled = [name for name in names if columns is None or not all(map(_missing, frame[name]))]
        print_table(filled or names, [[_text(value) for value in row] for row in frame[filled or names].to_numpy()])


def print_table(names: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in (names, ["-" * width for width in widths], *rows):
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _missing(value: Any) -> bool:  # noqa: ANN401
    import pandas as pd

    return value is None or (not hasattr(value, "__len__") and bool(pd.isna(value)))


def _text(value: Any) -> str:  # noqa: ANN401
    if _missing(value):
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _list_text(value: Any) -> Any:  # noqa: ANN401
    """A list as JSON; anything else as it is."""
    return json.dumps(_plain(value)) if hasattr(value, "tolist") or isinstance(value, list) else value


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value of a frame as JSON holds it; NaN and NaT become null."""
    if _missing(value):
        return None
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
