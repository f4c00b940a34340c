"""``nao-ray budget`` and ``nao-ray cancel``: what is asked of a running search, wherever its pool is seen."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from nao_ray.errors import ConfigError, PoolError, RunError

ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_LOOKS = 6  # for an answer, between two for a driver
_REFUSED = "refused: "

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
    request: dict[str, Any] = {"what": "budget"}
    for limit in limits:
        name, _, text = limit.partition("=")
        if name not in ("trials", "hours"):
            raise ConfigError(f"budget {limit}: expected trials=N or hours=N")
        try:
            number = int(text) if name == "trials" else float(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e9:
            raise ConfigError(f"budget {limit}: expected a {'whole ' if name == 'trials' else ''}number above 0")
        request |= {"trials": number} if name == "trials" else {"seconds": number * 3600}
    where = shlex.quote(pool)
    typer.echo(ask(pool, request, f"nao-ray resume {where} --set budget.{limits[0]} goes on with another budget"))


def cancel(
    pool: Pool,
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="ID", min=0)],
) -> None:
    """Give up one trial of a running search, waiting or begun.

    It is FAILED as `cancelled`, and the strategy is told.
    """
    typer.echo(ask(pool, {"what": "cancel", "trial_id": trial}, f"nao-ray resume {shlex.quote(pool)} goes on"))


def drain(pool: str, seconds: float | None) -> str:
    """Let what runs end, and begin nothing further; the search then ends, resumable."""
    return ask(pool, {"what": "drain", "seconds": seconds}, "there is nothing to end")


def ask(
    pool: str,
    request: Mapping[str, Any],
    otherwise: str,
    *,
    patience: float = ANSWER_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask the driver of a pool; returns its answer.

    Args:
        pool: folder or URL.
        request: as `nao_ray.search.requests.Request`.
        otherwise: what to do where there is no driver.
        patience: seconds to wait for an answer.
        sleep: lets seconds go by.

    Raises:
        PoolError: there is no such pool, nobody searches it, or the driver refuses.
        RunError: no answer has come; nothing was changed.
    """
    from nao_ray.pool import PoolReader, Watch

    mailbox, watch = PoolReader.open(pool).mailbox, Watch(pool)
    is_there = watch.look().driver.state != "none"
    name = mailbox.ask(request) if is_there else ""
    answer, looks = None, max(1, round(patience / _LOOK_SECONDS))
    try:
        while answer is None and is_there and looks:
            sleep(_LOOK_SECONDS)
            answer, looks = mailbox.take_answer(name), looks - 1
            if looks % _LOOKS == 0:
                is_there = watch.look().driver.state != "none"
    finally:
        if answer is None and name:
            mailbox.take_back(name)
            answer = mailbox.take_answer(name)
    if answer is None and not is_there:
        raise PoolError(f"no search runs on {pool}: {otherwise}")
    if answer is None:
        raise RunError(
            f"the driver of {pool} gave no answer within {patience:g} s and is asked no longer: it may be dead, or "
            "evaluate in its own process, where it can answer between two trials only"
        )
    if answer.startswith(_REFUSED):
        raise PoolError(f"{pool}: {answer.removeprefix(_REFUSED)}")
    return answer
