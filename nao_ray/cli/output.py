"""Standard output that is full, closed, or read by nobody, and words that are not UTF-8."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nao_ray.errors import ConfigError

if TYPE_CHECKING:
    from nao_ray.pool import PoolReader

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object; `nao-ray schema` says of which form.")]


def tell_files(files: Sequence[object], as_json: bool) -> None:
    """Say which files were written, one a line, or as JSON."""
    names = [str(file) for file in files]
    typer.echo(json.dumps({"files": names}) if as_json else "\n".join(names))


def tell_searched(pool: PoolReader, report: str | None) -> None:
    """Say as JSON how a search stands at its end."""
    counts = asdict(pool.counts())
    names = ("asked", "completed", "failed", "best_score", "best_trial_id")
    typer.echo(json.dumps({"pool": pool.url, "report": report, **{name: counts[name] for name in names}}))


def open_closed() -> None:
    """Where the program was started with a closed output, what is said goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the program runs


def abandon() -> None:
    """Nothing more is written to standard output, also not what is still on its way when the program ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def result_of_done_work(where: str) -> Iterator[None]:
    """A block that prints what came of work that is done, and done whether it can be printed or not.

    Args:
        where: the result is kept.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        abandon()
        if not isinstance(error, BrokenPipeError):  # a reader that has left, such as `head`, has read enough
            typer.echo(f"nao-ray: cannot print the result, which is in {where}: {error.strerror or error}", err=True)


def refuse_other_than_text(words: Sequence[str]) -> None:
    """Refuse words of a command line that are not UTF-8: their paths could be neither recorded nor shown.

    Raises:
        ConfigError: one is not; shows its bytes.
    """
    for word in (*words, os.getcwd()):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"not UTF-8: {os.fsencode(word)!r}; rename it, and give its new name") from None
