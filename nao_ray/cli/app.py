"""The command line. Exit codes: 0 done, 1 the run failed, 2 the user's input is at fault, 130 interrupted.

Every error is one line on stderr; ``--debug`` shows the trace instead. torch, ray and the components are imported
inside the command that needs them, so help is quick.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from nao_ray import __version__
from nao_ray.cli import (
    ask,
    describe,
    export,
    jobs,
    output,
    page,
    pool,
    pool_import,
    recipes,
    schema,
    table,
    train,
    watch,
)
from nao_ray.cli.handed import INTERRUPTED
from nao_ray.errors import ConfigError, Drained, InputError, NaoRayError, RunError

if TYPE_CHECKING:
    from nao_ray.config import RunConfig
    from nao_ray.pool import PoolReader


app = typer.Typer(
    name="nao-ray",
    help="Neural architecture search with NAO on a Ray cluster.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Pool = Annotated[str, typer.Argument(help="Folder or URL of the pool.", metavar="POOL")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting of the config; may be given often.", metavar="SECTION.KEY=VALUE"),
]

RETRY_FAILED = "--retry-failed"

InProcess = Annotated[
    bool, typer.Option("--in-process", help="Without Ray: one trial at a time, in this process; to debug.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nao-ray {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del debug, version  # `main` reads the first, wherever it stands in the line


@app.command()
def search(
    config: Annotated[str, typer.Argument(help="Path of a YAML config, or the name of a preset.", metavar="CONFIG")],
    pool: Annotated[
        str | None, typer.Option("--pool", help="Folder or URL of the pool; default pools/<name of the config>.")
    ] = None,
    settings: Settings = None,
    in_process: InProcess = False,
    wait: Annotated[
        float,
        typer.Option(help="Wait this long for another driver of the pool to end or to fall silent.", metavar="SECONDS"),
    ] = 0.0,
    detach: Annotated[
        bool, typer.Option("--detach", help="On a cluster: the search outlives this driver, which only watches.")
    ] = False,
    made_as: Annotated[str | None, typer.Option("--made-as", hidden=True)] = None,
    marked_by: Annotated[str | None, typer.Option("--marked-by", hidden=True)] = None,
    as_json: output.AsJson = False,
) -> None:
    """Start a search; on a pool that exists already, go on with it."""
    from nao_ray.cli.progress import Progress
    from nao_ray.service.given import pool_of, read_config
    from nao_ray.service.hosting.run import Takeover, run

    if detach and in_process:
        raise ConfigError("choose one of --detach and --in-process")
    run_config, _ = read_config(config, settings or ())
    url = pool_of(pool, run_config.name)
    if marked_by is not None:
        from nao_ray.service.jobs.marks import refuse_elsewhere

        refuse_elsewhere(url, marked_by)
    if detach:
        _watch(run_config, url, wait, made_as)
    else:
        with _interruptible(url), Progress(run_config.name) as progress:
            run(run_config, url, listener=progress, in_process=in_process, takeover=Takeover(wait, made_as))
    _conclude(url, as_json)


@app.command()
def resume(
    pool: Pool,
    settings: Settings = None,
    in_process: InProcess = False,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            RETRY_FAILED,
            help="First ask for failed trials again: of the KIND that `nao-ray pool POOL` lists, or all but those that "
            "were cancelled. Each becomes a trial of its own, which does not count against budget.trials.",
            metavar="[KIND]",
        ),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Go on with the search of a pool.

    Only budget, workers and loggers may be set anew, and where the data are (task.path), if they are the same.
    """
    from nao_ray.cli.progress import Progress
    from nao_ray.service.hosting.run import resume as resume_run

    with _interruptible(pool), Progress(pool) as progress:
        summary = resume_run(
            pool, tuple(settings or ()), listener=progress, in_process=in_process, retry_failed=retry_failed
        )
    if summary is not None:
        _conclude(pool, as_json)


def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="What to measure; `all` for everything.", metavar="NAME", show_default=False)
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(help="Settings of the measurement.", metavar="[KEY=VALUE]...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with the single figures.")] = False,
    settings: Annotated[
        bool, typer.Option("--help", help="Show this message; with a NAME, the settings of that measurement.")
    ] = False,
) -> None:
    """Measure: the figures of docs/measurements.md."""
    from nao_ray.cli import bench as measurements

    if name is None:
        typer.echo(context.get_help() + "\n\n" + measurements.summary())
        raise typer.Exit(0 if settings else 2)
    if settings and name != "all":
        typer.echo(measurements.manual(name))
    elif name == "all":
        measurements.run_all(as_json)
    else:
        measurements.run(name, options or [], as_json)


def _watch(config: RunConfig, pool: str, wait: float, made_as: str | None) -> None:
    """Watch a detached search to its end."""
    from nao_ray.cli.progress import Progress
    from nao_ray.service.hosting.detached import watch

    try:
        with Progress(config.name) as progress:
            how = watch(config, pool, progress, wait=wait, made_as=made_as)
    except KeyboardInterrupt:
        typer.echo(f"nao-ray: no longer watching; the search of {pool} goes on in the cluster", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if how != "done":
        typer.echo(f"nao-ray: {how}; nao-ray resume {pool} goes on", err=True)
        raise typer.Exit(INTERRUPTED)


class _interruptible:  # noqa: N801 - reads as a word of the language
    """Says how to go on when the user interrupts the block."""

    def __init__(self, pool: str) -> None:
        self.pool = pool

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            from nao_ray.pool import PoolReader

            what = (
                f"; nao-ray resume {self.pool} goes on" if PoolReader.exists(self.pool) else " before the search began"
            )
            how = "drained: nothing further was begun" if issubclass(kind, Drained) else "interrupted"
            typer.echo(f"nao-ray: {how}{what}", err=True)
            raise typer.Exit(INTERRUPTED)


def _conclude(url: str, as_json: bool) -> None:
    """After a search: the best architectures, and where pool and report are.

    Raises:
        RunError: not one trial was completed.
    """
    from nao_ray.cli.pool import make_space
    from nao_ray.page.bundle import write_report
    from nao_ray.pool import PoolReader
    from nao_ray.report.text import best_text

    pool = PoolReader.open(url)
    report = write_report(pool, make_space(pool))
    is_empty = not len(pool.best(1))
    text = "" if is_empty else best_text(pool, 10) + "\n"
    with output.result_of_done_work(url):
        if as_json:
            output.tell_searched(pool, report)
        else:
            typer.echo(f"{text}pool    {url}\nreport  {report}")
    if is_empty:
        raise RunError(_why_nothing_is_there(pool))


def _why_nothing_is_there(pool: PoolReader) -> str:
    """Of a search that has ended without a completed trial: what is true of it."""
    counts = pool.counts()
    if counts.failed:
        return f"no trial of {pool.url} was completed; nao-ray pool {pool.url} lists what went wrong"
    if counts.finished and not counts.running:
        return (
            f"budget.trials of {pool.url} was used up by the training of shared weights before an architecture was "
            f"measured: nao-ray resume {pool.url} --set budget.trials=... goes on"
        )
    return (
        f"budget.hours of {pool.url} was used up before a trial was completed, {counts.running} are open: "
        f"nao-ray resume {pool.url} --set budget.hours=... goes on with them"
    )


# -- entry --------------------------------------------------------------------------------------------------


for part in (watch, page, pool, pool_import, describe, train, recipes, export, jobs, ask):  # in the order of the help
    part.register(app)
app.command(context_settings={"help_option_names": []})(bench)
table.register(app)
schema.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    # Read as Arrow is loaded. Its own allocators keep memory for each of their threads, 17 MB more after each merge of
    # a driver's parts; the C library's is given back.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    gc.set_threshold(10_000, 20, 50)  # what torch loads stays: looking through it again and again took a fifth as long
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    output.open_closed()
    try:
        words = pool_import.joined(_with_kinds(words))
        output.refuse_other_than_text(words)
        code = _call([word for word in words if word != "--debug"])
    except BrokenPipeError:  # the reader of a pipe, e.g. `head`, has left
        output.abandon()
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # the last line of defence: one line instead of a trace
        if debug:
            traceback.print_exc()
        code = _explain(error, "--json" in words)
    sys.exit(code)


def _with_kinds(words: Sequence[str]) -> list[str]:
    """The words of a command line, in which `--retry-failed` has a kind: Typer knows no option that may lack its value.

    What follows it is a kind if there is one of that name, or if another word is the pool; else it is the pool.

    Raises:
        ConfigError: no word is left for the pool.
    """
    if RETRY_FAILED not in words:
        return list(words)
    from nao_ray.search.retries import ALL, KINDS

    at = words.index(RETRY_FAILED)
    following = words[at + 1] if at + 1 < len(words) else "-"
    others = [word for k, word in enumerate(words) if k != at + 1 and word[:1] != "-" and words[k - 1] != "--set"]
    has_pool = len(others) > 1  # beside the command
    if following[:1] == "-" or (not has_pool and following not in KINDS):
        return [*words[:at], f"{RETRY_FAILED}={ALL}", *words[at + 1 :]]
    if not has_pool:
        raise ConfigError(
            f"{RETRY_FAILED} {following}: {following!r} was taken for a kind of failure, and no word is left for the "
            f"POOL; name it, or for a pool of that name give ./{following}"
        )
    return [*words[:at], f"{RETRY_FAILED}={following}", *words[at + 2 :]]


def _call(words: list[str]) -> int:
    result = app(args=words, prog_name="nao-ray", standalone_mode=False)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        output.abandon()
        raise RunError(f"cannot write to standard output: {error.strerror or error}") from None
    return result if isinstance(result, int) else 0


def _explain(error: Exception, as_json: bool) -> int:
    """One line on stderr; returns the exit code."""
    kind = type(error).__name__
    if isinstance(error, typer.TyperException):
        usage = getattr(error, "ctx", None)
        hint = f" (see {usage.command_path} --help)" if usage is not None else ""
        kind, message, code = "UsageError", f"{error.format_message()}{hint}", error.exit_code
        if not error.format_message():  # no command at all: help has been shown
            return code
    elif isinstance(error, NaoRayError):
        message, code = str(error), 2 if isinstance(error, InputError) else 1
    else:
        message, code = f"{type(error).__name__}: {error} (--debug shows the trace)", 1
    line = " ".join(message.split())
    with suppress(OSError):  # of a full disk the exit code alone tells
        told = json.dumps({"error": kind, "message": line, "exit_code": code}) if as_json else f"nao-ray: {line}"
        typer.echo(told, err=True)
    return code
