"""``nao-ray page``: pools in the browser, while they grow and after."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from nao_ray.errors import ConfigError, RunError

if TYPE_CHECKING:
    from nao_ray.page.guard import Guard
    from nao_ray.page.live import LivePool

PORT = 8270
TOKEN = "NAO_RAY_PAGE_TOKEN"
_SHORTEST = 16


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(page)


def page(
    urls: Annotated[list[str], typer.Argument(help="Folders or URLs of pools.", metavar="POOL [POOL...]")],
    port: Annotated[int, typer.Option(help="To listen on; 0 takes a free one.", min=0, max=65535)] = PORT,
    host: Annotated[
        str, typer.Option(help="To listen on; where it is not this machine's own loopback, a token is made.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            help="Ask for this token; of at least 16 characters. Others on this machine see it here: give it in "
            f"{TOKEN} instead. `new` makes one.",
        ),
    ] = None,
) -> None:
    """Show pools in the browser, while their searches run and after.

    It reads; notes and stars alone are written, into notes.json of the pool. Ctrl-C ends it.
    """
    import asyncio

    from nao_ray.cli.pool import make_space
    from nao_ray.page.guard import Guard, is_loopback
    from nao_ray.page.live import LivePool

    chosen = _token(token or os.environ.get(TOKEN), is_loopback(host))
    pools = [LivePool(url, make_space) for url in dict.fromkeys(urls)]
    try:
        asyncio.run(_serve(pools, Guard(chosen), host, port))
    except KeyboardInterrupt:
        return
    except OSError as error:
        raise RunError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port (0: a free one)"
        ) from None


async def _serve(pools: list[LivePool], gate: Guard, host: str, port: int) -> None:
    from nao_ray.page.server import serve

    await serve(pools, gate, host, port, lambda address: typer.echo(f"{address}\nCtrl-C ends the page"))


def _token(given: str | None, is_loopback: bool) -> str | None:
    """The token that is asked for; None: nobody else can reach the page.

    Raises:
        ConfigError: it is too short.
    """
    if given is None and is_loopback:
        return None
    if given in (None, "new"):
        return secrets.token_urlsafe(24)
    if given is not None and len(given) < _SHORTEST:
        raise ConfigError(f"--token of {len(given)} characters: {_SHORTEST} at least, or `new`")
    return given
