"""``nao-ray pool``, ``report`` and ``film``: a pool from the shell. Neither needs torch."""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.cli import output
from nao_ray.errors import ConfigError, PoolError
from nao_ray.standings import after

if TYPE_CHECKING:
    import pandas as pd

    from nao_ray.pool import PoolReader
    from nao_ray.spaces.base import SearchSpace

ACTIONS = ("best", "show", "check", "compact", "sql", "columns")
_MESSAGE = 120  # characters of a failure in the summary


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pool)
    app.command()(report)
    app.command()(film)


def pool(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    action: Annotated[
        str | None,
        typer.Argument(
            help="best; show ID; check; compact; sql QUERY (tables trials, fits, final); columns: what each means. "
            "Without one: a summary, with what went wrong.",
            metavar="[best|show|check|compact|sql|columns]",
        ),
    ] = None,
    argument: Annotated[str | None, typer.Argument(help="The trial of show, the query of sql.", metavar="")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Rows of best.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: one object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
) -> None:
    """Look at a pool, check it, or merge its files."""
    from nao_ray.pool import PoolReader, PoolWriter

    if action is not None and action not in ACTIONS:
        raise ConfigError(f"pool has no action {action!r}; choose one of {', '.join(ACTIONS)}")
    if (argument is not None) != (action in ("show", "sql")):
        wanted = {"show": "the number of a trial", "sql": "a query in quotes"}.get(action or "", "nothing further")
        raise ConfigError(f"pool {url} {action or ''}: expected {wanted}, got {argument or 'nothing'}")
    if as_json and as_csv:
        raise ConfigError("choose one of --json and --csv")
    opened = PoolReader.open(url)
    form = "json" if as_json else "csv" if as_csv else "text"
    if action == "best":
        _best(opened, form, count)
    elif action == "show":
        _show(opened, str(argument), form)
    elif action == "check":
        _check(opened, form)
    elif action == "compact":
        PoolWriter.open(url).compact()
        merged = len(opened.trials(columns=["trial_id"]))
        typer.echo(json.dumps({"pool": url, "trials": merged}) if as_json else f"{url}: compacted, {merged} trials")
    elif action == "sql":
        _print_frame(opened.sql(str(argument)), form)
    elif action == "columns":
        _columns(form)
    else:
        _summary(opened, form, count)


def report(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    out: Annotated[Path | None, typer.Option("--out", help="Write here; default: report.html in the pool.")] = None,
    as_json: output.AsJson = False,
) -> None:
    """Write the report: one HTML file that needs nothing else."""
    from nao_ray.page.bundle import write_report
    from nao_ray.pool import PoolReader

    opened = PoolReader.open(url)
    output.tell_files([write_report(opened, make_space(opened), out)], as_json)


def film(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")],
    out: Annotated[Path | None, typer.Option("--out", help="Write here; default: film.html in the pool.")] = None,
    as_json: output.AsJson = False,
) -> None:
    """Write the film of a search: its cell after each epoch.

    One HTML file with a slider; where no alphas were trained it shows each best architecture so far.
    """
    from nao_ray.pool import PoolReader
    from nao_ray.report.write import write_film

    opened = PoolReader.open(url)
    output.tell_files([write_film(opened, make_space(opened), out)], as_json)


def make_space(pool: PoolReader) -> SearchSpace[Any]:
    """The search space of a pool."""
    from nao_ray.config_components import space_of

    return space_of(pool.manifest, pool.url)


# -- actions ------------------------------------------------------------------------------------------------


def _best(pool: PoolReader, form: str, count: int) -> None:
    from nao_ray.report.text import best_text

    if form == "text":
        typer.echo(best_text(pool, count))
    else:
        best = pool.best(count)
        _print_frame(best if "pareto_rank" in best or form == "csv" else best.assign(pareto_rank=None), form)


def _summary(pool: PoolReader, form: str, count: int) -> None:
    from nao_ray.report.tables import failures
    from nao_ray.report.text import best_text

    counts = asdict(pool.counts())
    columns = ["trial_id", "log_index", "state", "failure_kind", "failure_message", "retry_of", "epochs"]
    trials = pool.trials(columns, rungs=True)
    failed = failures(trials)
    rungs = {epochs: int((trials["epochs"] == epochs).sum()) for epochs in pool.rungs}
    if form == "json":
        front = pool.front()
        covered = None if front is None else front.plain
        typer.echo(json.dumps({"pool": pool.url, **counts, "failures": failed, "front": covered, "rungs": rungs}))
        return
    if form == "csv":
        typer.echo(",".join(counts) + "\n" + ",".join("" if value is None else str(value) for value in counts.values()))
        return
    typer.echo(f"{pool.url}: {counts['asked']} asked, {counts['completed']} completed, {counts['failed']} failed")
    if rungs:
        typer.echo(f"rungs: {', '.join(f'{count} {after(epochs)}' for epochs, count in rungs.items())}")
    if counts["completed"]:
        typer.echo(best_text(pool, count))
    if failed:
        typer.echo(("\n" if counts["completed"] else "") + _failures(pool.url, failed))


def _failures(url: str, failed: list[dict[str, Any]]) -> str:
    """What went wrong, by kind, and how to learn more."""
    from nao_ray.report.grid import grid

    rows = [[row["kind"], str(row["count"]), str(row["trial_id"]), _clipped(row["message"])] for row in failed]
    names = ["failure", "trials", "newest", "message"]
    if any(row["retried"] for row in failed):
        names[2:2] = ["asked again", "completed then"]
        rows = [
            [*cells[:2], str(row["retried"]), str(row["cured"]), *cells[2:]]
            for row, cells in zip(failed, rows, strict=True)
        ]
    newest, where = failed[0]["trial_id"], shlex.quote(url)
    hints = [(f"pool {where} show {newest}", f"says all that is known of trial {newest}")]
    left = {row["kind"] for row in failed if row["retried"] < row["count"]}
    if left == {"cancelled"}:
        hints.append((f"resume {where} --retry-failed cancelled", "asks for what was cancelled again"))
    elif left:
        hints.append((f"resume {where} --retry-failed [KIND]", "asks for failed trials again"))
    width = max(len(command) for command, _ in hints)
    return "\n".join([grid(names, rows), *(f"nao-ray {command:<{width}}  {what}" for command, what in hints)])


def _clipped(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE else f"{line[: _MESSAGE - 3]}..."


def _show(pool: PoolReader, text: str, form: str) -> None:
    try:
        trial_id = int(text)
    except ValueError:
        raise ConfigError(f"pool {pool.url} show {text}: expected the number of a trial") from None
    trials, logs, again = pool.trials(rungs=True), pool.logs(trial_id), pool.retries().get(trial_id)
    row = trials[trials["trial_id"] == trial_id]
    if row.empty and not (logs and form == "text"):
        raise PoolError(f"pool {pool.url} has no finished trial {trial_id}")
    if form != "text":
        shown = row.assign(logs=row["trial_id"].map(lambda _: logs), retried_as=again) if form == "json" else row
        _print_frame(shown, form)
        return
    if not row.empty:
        _show_row(pool, row, _retries(trials, row.iloc[0], again))
    for log in logs:
        typer.echo(f"\n{log.rstrip()}")


def _show_row(pool: PoolReader, row: pd.DataFrame, retries: str) -> None:
    from nao_ray.report.text import column_text, is_missing

    is_phase = not is_missing(row["phase"].iloc[0])
    for name, column in row.items():
        if not (is_missing(column.iloc[0]) or (is_phase and name in ("phase", "genotype"))):
            typer.echo(f"{name:<18}  {column_text(column)[0]}")
    typer.echo(retries, nl=False)
    if is_phase:
        typer.echo(f"\n{_phase(json.loads(row.iloc[0]['phase']))}")
        return
    from nao_ray.report.labels import cell_text, role_label

    space = make_space(pool)
    for role, cell in space.lower(space.parse(str(row.iloc[0]["genotype"]))).cells:
        typer.echo(f"\n{role_label(role)}\n{cell_text(cell, space.op_names)}")


def _retries(trials: pd.DataFrame, row: pd.Series[Any], again: int | None) -> str:
    """Lines that say of which failed trial it is a retry, and as which it was asked for again."""
    from nao_ray.report.text import is_missing

    lines = []
    if not is_missing(row["retry_of"]):
        failed = trials[trials["trial_id"] == row["retry_of"]]
        facts = zip(failed["failure_kind"], failed["failure_message"], strict=True)
        why = "".join(f" ({kind}): {_clipped(str(message))}" for kind, message in facts)
        lines.append(f"asked for by the user after trial {row['retry_of']} had failed{why}")
    if again is not None:
        (state,) = trials["state"][trials["trial_id"] == again].tolist() or ["not finished"]
        lines.append(f"asked for again by the user as trial {again}, which is {state}")
    return "\n" + "".join(f"{line}\n" for line in lines) if lines else ""


def _phase(phase: dict[str, Any]) -> str:
    """Training of shared weights in a line; what it trained may be a thousand genotypes."""
    start = "fresh weights" if phase["source"] is None else f"weights {phase['source']}"
    epochs = f"epochs {phase['first_epoch'] + 1} to {phase['last_epoch']}"
    return (
        f"trained shared weights {phase['version']} from {start}: {epochs}, {len(phase['genotypes'])} genotypes, "
        f"sampling {phase['sampling']}"
    )


def _check(pool: PoolReader, form: str) -> None:
    problems = pool.check()
    if form == "json":
        typer.echo(json.dumps({"pool": pool.url, "problems": problems}))
    else:
        typer.echo("\n".join(problems) if problems else f"{pool.url}: sound")
    if problems:
        raise typer.Exit(1)


def _columns(form: str) -> None:
    import pandas as pd

    from nao_ray.pool import columns

    _print_frame(pd.DataFrame(columns()), form)


# -- output -------------------------------------------------------------------------------------------------


def _print_frame(frame: pd.DataFrame, form: str) -> None:
    """Rows as text, as JSON or as CSV."""
    from nao_ray.report.text import frame_text

    if form == "json":
        records = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
        typer.echo(json.dumps(records, default=str))
    elif form == "csv":
        lists = {name: frame[name].map(_list_text) for name in frame.columns if frame[name].dtype == object}
        frame.assign(**lists).to_csv(sys.stdout, index=False)
    else:
        typer.echo(frame_text(frame))


def _list_text(value: Any) -> Any:  # noqa: ANN401
    """A list as JSON; anything else as it is."""
    return json.dumps(_plain(value)) if hasattr(value, "tolist") or isinstance(value, list) else value


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A value of a frame as JSON holds it; NaN and NaT become null."""
    from nao_ray.report.text import is_missing

    if is_missing(value):
        return None
    if isinstance(value, Decimal):  # a sum of integers, in DuckDB
        return int(value) if value == value.to_integral_value() else float(value)
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
