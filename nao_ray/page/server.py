"""The page's server: the contract of the page with it, in one place. It reads; notes alone are written."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from nao_ray import __version__
from nao_ray.errors import NaoRayError, PoolReadError, PoolWriteError
from nao_ray.page import exports, guard, trial
from nao_ray.page.guard import Guard
from nao_ray.page.live import TEXTS, LivePool
from nao_ray.page.static_files import static_files

REFRESH_SECONDS = 3
"""Between two looks of the page."""
_LARGEST = 32 * 2**20  # bytes of a request: the numbers of a million trials
_QUERIES = 2
"""SQL at once."""
_EVERYWHERE = ("0.0.0.0", "::")
_BINARY = "application/octet-stream"

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RequestError(NaoRayError):
    """What was asked makes no sense, or there is no such thing."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def make_app(pools: Sequence[LivePool], gate: Guard) -> web.Application:
    """The server of some pools, each by its place among them.

    Args:
        pools: to show.
        gate: who may ask.
    """
    app = web.Application(middlewares=[_guarded(gate), _told], client_max_size=_LARGEST)
    routes = _Routes(pools)
    get, pool = app.router.add_get, "/api/pools/{pool:[0-9]{1,3}}"
    get("/", routes.index)
    get("/static/{name}", routes.static)
    get("/film/{pool:[0-9]{1,3}}", routes.film)
    get("/api/pools", routes.pools)
    for name in ("columns", "map", "status", "report", "texts", "notes"):
        get(f"{pool}/{name}", getattr(routes, name))
    get(f"{pool}/trials/{{trial:[0-9]{{1,10}}}}", routes.trial)
    get("/api/compare", routes.compare)
    app.router.add_post(f"{pool}/sql", routes.sql)
    app.router.add_post(f"{pool}/download", routes.download)
    app.router.add_put(f"{pool}/notes/{{trial:[0-9]{{1,10}}}}", routes.put_note)
    return app


# -- around every request -----------------------------------------------------------------------------------


def _guarded(gate: Guard) -> Any:  # noqa: ANN401 - aiohttp's kind of a middleware
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        offered = request.query.get("token")
        refusal = gate.refuses(request.method, request.headers, request.cookies)
        if request.path == "/" and gate.knows(offered):
            answer: web.StreamResponse = web.Response(status=303, headers={"Location": "./"})  # out of the address
            answer.set_cookie(gate.cookie, str(offered), httponly=True, samesite="Lax", path="/")
        elif refusal is not None:
            answer = _failed(refusal.status, refusal.why)
        else:
            answer = await handler(request)
        if not answer.prepared:  # else it has them: a file that is sent while it is made
            _with_headers(answer)
        return answer

    return middleware


def _with_headers(answer: web.StreamResponse) -> None:
    for name, value in {**guard.HEADERS, "Content-Security-Policy": guard.CONTENT_POLICY}.items():
        answer.headers.setdefault(name, value)


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as the page shows them."""
    try:
        return await handler(request)
    except RequestError as error:
        return _failed(error.status, str(error))
    except PoolReadError as error:
        return _failed(503, str(error))
    except PoolWriteError as error:
        return _failed(403, str(error))
    except trial.UnknownTrialError as error:
        return _failed(404, str(error))
    except NaoRayError as error:
        return _failed(400, str(error))
    except web.HTTPException as error:
        return _failed(error.status, f"{request.method} {request.path}: {error.reason.lower()}")
    except Exception:
        _log.exception("%s %s", request.method, request.path)
        return _failed(500, "the server failed at this; its log says how")


def _failed(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _json(value: object) -> web.Response:
    return web.json_response(value, dumps=lambda what: json.dumps(what, allow_nan=False, default=str))


# -- what is asked ------------------------------------------------------------------------------------------


class _Routes:
    """A method for each path."""

    def __init__(self, pools: Sequence[LivePool]) -> None:
        self._pools = pools
        self._static = static_files()
        self._queries = asyncio.Semaphore(_QUERIES)

    def _pool(self, request: web.Request) -> LivePool:
        return self._numbered(request.match_info["pool"])

    def _numbered(self, number: str) -> LivePool:
        if not number.isdecimal() or int(number) >= len(self._pools):
            raise RequestError(f"there is no pool {number}; there are {len(self._pools)}", 404)
        return self._pools[int(number)]

    async def index(self, request: web.Request) -> web.Response:
        del request
        return self._file("index.html")

    async def static(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        found = self._static.get(name)
        if found is None:
            raise RequestError(f"there is no file {name}", 404)
        kind, data = found
        return web.Response(body=data, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    async def pools(self, request: web.Request) -> web.Response:
        del request
        found = [
            {"id": str(number), **await asyncio.to_thread(pool.described)} for number, pool in enumerate(self._pools)
        ]
        return _json({"version": __version__, "live": True, "refresh_seconds": REFRESH_SECONDS, "pools": found})

    async def columns(self, request: web.Request) -> web.Response:
        since = _integer(request.query.get("since", "0"), "since")
        data = await asyncio.to_thread(self._pool(request).columns, since, request.query.get("series", ""))
        return web.Response(body=data, content_type=_BINARY)

    async def map(self, request: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(self._pool(request).map), content_type=_BINARY)

    async def status(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._pool(request).status))

    async def report(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._pool(request).report)
        return _json({**found, "film": f"film/{request.match_info['pool']}" if found["film"] else None})

    async def film(self, request: web.Request) -> web.Response:
        page = await asyncio.to_thread(self._pool(request).film)
        if page is None:
            raise RequestError("nothing moves in this search yet: it has no film", 404)
        policy = {"Content-Security-Policy": guard.FILM_POLICY}
        return web.Response(text=page, content_type="text/html", headers=policy)

    async def texts(self, request: web.Request) -> web.Response:
        ids = [_integer(word, "ids") for word in request.query.get("ids", "").split(",") if word]
        if len(ids) > TEXTS:
            raise RequestError(f"{len(ids)} ids: {TEXTS} at most")
        return _json(await asyncio.to_thread(self._pool(request).texts, ids) if ids else {})

    async def trial(self, request: web.Request) -> web.Response:
        (found,) = await asyncio.to_thread(self._pool(request).trials, [int(request.match_info["trial"])])
        return _json(found)

    async def compare(self, request: web.Request) -> web.Response:
        sides: list[trial.Json] = []
        for side in ("a", "b"):
            pool, colon, number = request.query.get(side, "").partition(":")
            if not colon:
                raise RequestError(f"{side}: expected POOL:TRIAL, such as 0:17")
            found = self._numbered(pool)
            sides += await asyncio.to_thread(found.trials, [_integer(number, side)], with_logs=False)
        return _json(trial.comparison(*sides))

    async def sql(self, request: web.Request) -> web.Response:
        query = (await _body(request)).get("query")
        if not isinstance(query, str):
            raise RequestError("query: expected a text")
        pool = self._pool(request)
        async with self._queries:
            return _json(await asyncio.to_thread(pool.sql, query))

    async def notes(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._pool(request).notes))

    async def put_note(self, request: web.Request) -> web.Response:
        body = await _body(request)
        star, text = body.get("star", False), body.get("text", "")
        if not isinstance(star, bool) or not isinstance(text, str):
            raise RequestError("expected star: true or false, and text")
        pool, number = self._pool(request), int(request.match_info["trial"])
        return _json(await asyncio.to_thread(pool.put_note, number, star, text))

    async def download(self, request: web.Request) -> web.StreamResponse:
        body, pool = await _body(request), self._pool(request)
        form, ids = body.get("format"), body.get("ids")
        if form not in exports.TYPES:
            raise RequestError(f"format {form!r}: expected {' or '.join(exports.TYPES)}")
        if ids is not None and not (isinstance(ids, list) and all(type(number) is int for number in ids)):
            raise RequestError("ids: expected numbers of trials, or null")
        pieces = exports.export(pool.stream(ids), form)
        piece = await asyncio.to_thread(
            next, pieces, None
        )  # what is wrong with the pool is said before anything is sent
        headers = {
            "Content-Type": exports.TYPES[form],
            "Content-Disposition": f'attachment; filename="trials.{form}"',
        }
        answer = web.StreamResponse(headers=headers)
        _with_headers(answer)
        await answer.prepare(request)
        while piece is not None:
            await answer.write(piece)
            piece = await asyncio.to_thread(next, pieces, None)
        await answer.write_eof()
        return answer


async def _body(request: web.Request) -> Mapping[str, Any]:
    if request.content_type != "application/json":
        raise RequestError(f"the body is {request.content_type}: expected application/json", 415)
    try:
        body = json.loads(await request.text())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise RequestError("the body is no JSON object")
    return body


def _integer(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise RequestError(f"{name}: expected a number, got {text[:40]!r}")
    return int(text)


# -- serving ------------------------------------------------------------------------------------------------


async def serve(pools: Sequence[LivePool], gate: Guard, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until it is cancelled.

    Args:
        pools: to show.
        gate: who may ask; without a token `host` must be loopback.
        host: to listen on.
        port: 0 takes a free one.
        ready: is told the address, with the token.

    Raises:
        OSError: the port is taken, or the host is none of this machine's.
        ValueError: the host is not loopback, and there is no token.
    """
    if gate.token is None and not guard.is_loopback(host):
        raise ValueError(f"host {host} is seen by others: a token is needed")
    runner = web.AppRunner(make_app(pools, replace(gate, cookie=f"{gate.cookie}_{port}")), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name = socket.gethostname() if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
        path = "" if gate.token is None else f"?token={gate.token}"
        ready(f"http://{name}:{runner.addresses[0][1]}/{path}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
