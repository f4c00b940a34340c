"""The job server of a Ray cluster: its address, its token, and its errors as ours."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from nao_ray.errors import ClusterError

T = TypeVar("T")

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray would prefer them to the address it is given


class UnreachableError(ClusterError):
    """The job server does not answer, for now."""


class UnknownJobError(ClusterError):
    """The cluster does not know the job any more."""


def connect(address: str | None = None) -> tuple[Any, str, Callable[[], frozenset[str]], Callable[[], list[str]]]:
    """Ray's client, its address, and two questions: which detached searches are there, and which nodes?

    Ray's own variables give the token: `RAY_AUTH_MODE`, and `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or the file
    ``~/.ray/auth_token``. Where one of the first two gives a token, the mode is `token` unless said otherwise.

    Raises:
        ClusterError: there is no job server, or it refuses the token.
    """
    where = _http(address or os.environ.get("RAY_API_SERVER_ADDRESS") or _from_ray_address() or DEFAULT_ADDRESS)
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported, which reads it once
    from ray.job_submission import JobSubmissionClient
    from ray.util.state import list_actors, list_nodes

    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)

    def searching() -> frozenset[str]:
        wanted = [("class_name", "=", "SearchActor"), ("state", "!=", "DEAD")]
        with _nothing_but(where):
            # the most that Ray tells; of a longer list a part is better than none
            actors = list_actors(address=where, filters=wanted, limit=10_000, raise_on_missing_output=False)
            return frozenset(actor.name for actor in actors if actor.name)

    def nodes() -> list[str]:
        with _nothing_but(where):
            found = list_nodes(
                address=where, filters=[("state", "=", "ALIVE")], limit=10_000, raise_on_missing_output=False
            )
            return [str(node.node_ip) for node in found]

    with _nothing_but(where):
        try:
            client = ask(lambda: JobSubmissionClient(where), where)
        except UnreachableError:
            raise ClusterError(
                f"no Ray job server at {where}: start a cluster (cluster/machine.sh up), open a tunnel to its "
                "dashboard, or give another --address"
            ) from None
    return client, where, searching, nodes


def ask(question: Callable[[], T], address: str) -> T:
    """Ask the cluster; its errors as ours.

    Raises:
        ClusterError: it cannot be reached, refuses the token or what it was asked.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError
    from ray.util.state.exception import RayStateApiException

    try:
        return question()
    except AuthenticationError:
        raise ClusterError(_token_advice(address)) from None
    except aiohttp.WSServerHandshakeError as error:
        if error.status in (401, 403):
            raise ClusterError(_token_advice(address)) from None
        if error.status == 404:
            raise UnknownJobError(f"{address} knows the job no more: its head was restarted") from None
        raise UnreachableError(f"{address} does not answer: {error.status} {error.message}") from None
    except (aiohttp.ClientError, requests.RequestException, ConnectionError, TimeoutError) as error:
        raise UnreachableError(f"{address} does not answer ({type(error).__name__})") from None
    except RayStateApiException as error:
        raise UnreachableError(f"{address} does not tell its actors: {reason(str(error))}") from None
    except RuntimeError as error:
        text = str(error)
        if "code 404" in text:
            raise UnknownJobError(f"{address} knows the job no more: its head was restarted") from None
        if "WebSocket" in text:
            raise UnreachableError(f"{address} does not answer: {reason(text)}") from None
        raise ClusterError(f"{address} refuses: {reason(text)}") from None


def _token_advice(address: str) -> str:
    mode, given = os.environ.get("RAY_AUTH_MODE", ""), os.environ.get("RAY_AUTH_TOKEN")
    source = "RAY_AUTH_TOKEN" if given else os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    if mode.lower() != "token":
        return (
            f"{address} asks for a token: set RAY_AUTH_MODE=token, and the cluster's token as RAY_AUTH_TOKEN, in the "
            "file of RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token"
        )
    return f"{address} refuses the token of {source}: it is missing, or not the one the cluster was started with"


def _http(address: str) -> str:
    """The dashboard's address with its scheme; ``host:port`` is taken for one.

    Raises:
        ClusterError: it is the address of something else.
    """
    scheme = address.partition("://")[0] if "://" in address else "http"
    if scheme not in ("http", "https"):
        raise ClusterError(f"{address} is no address of a job server: give that of the dashboard, http://HOST:8265")
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _from_ray_address() -> str | None:
    """`RAY_ADDRESS` where it is the address of a dashboard; it may also name the port of the cluster itself."""
    address = os.environ.get("RAY_ADDRESS", "")
    return address if address.startswith(("http://", "https://")) else None


@contextmanager
def _nothing_but(address: str) -> Iterator[None]:
    """Ray's client goes to the address it is given, not to the one in its variables."""
    before = {name: os.environ.pop(name, None) for name in _ADDRESS_VARIABLES}
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def reason(text: str) -> str:
    """The last sentence of what may be a trace."""
    lines = [" ".join(line.split()) for line in re.split(r"\n|\\n", text) if line.strip(' .\r"')]
    return lines[-1].rstrip(".")[:300] if lines else "no reason given"
