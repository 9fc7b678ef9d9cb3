"""HTTP on both listeners: routes from the endpoint table, access, errors as RFC 9457.

Out of scope: what an endpoint does (api), who may call it (access), what is in it (wire).
"""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.formats import endpoints, jsonvalue, openapi, wire, wire_bodies
from proxmox_cpu_affinity.formats.wire_query import checked
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
)
from proxmox_cpu_affinity.service import assets
from proxmox_cpu_affinity.service.access import Access
from proxmox_cpu_affinity.service.api import Api, Call, Handler
from proxmox_cpu_affinity.service.connection import Connection, Gate, room
from proxmox_cpu_affinity.service.log import log
from proxmox_cpu_affinity.service.sse import tell
from proxmox_cpu_affinity.service.stream import Stream

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
_LAST = 2.0  # seconds that answers may take when the service ends: hooks have given up by then
_BACKLOG = 1024  # connections that wait to be taken
_KEEP = 15.0  # seconds that a connection is kept for a further request
_BODY_PATIENCE = 10.0  # seconds in which a body must have come
_PATH_SHOWN = 200  # characters of a path in an error
_Timed = Callable[[str], AbstractContextManager[None]]
T = TypeVar("T")
_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MethodError(AffinityError):
    """The path exists, the method does not."""

    code = "method-not-allowed"
    http_status = 405


class EncodingError(AffinityError):
    """A body that is compressed."""

    code = "unsupported-encoding"
    http_status = 415


class TooSlowError(AffinityError):
    """A body that does not come."""

    code = "too-slow"
    http_status = 408


def application(api: Api, access: Access) -> web.Application:
    """Routes for every endpoint; fails here, not at a request, where a handler is missing."""
    handlers, turn = api.handlers(), asyncio.Lock()

    @web.middleware
    async def guarded(request: web.Request, handler: _Next) -> web.StreamResponse:
        try:
            if not request.raw_path.startswith("/"):
                raise BadRequestError("the target of a request is a path of this service")
            access.check_host(request.headers.getall("Host", []))
            access.check_origin(request.headers.getall("Origin", []))
            answer = await handler(request)
        except AffinityError as error:
            answer = _problem(request, error)
        except web.HTTPException as error:
            answer = _problem(request, _from_aiohttp(error, request.path[:_PATH_SHOWN]))
            answer.headers.update({k: v for k, v in error.headers.items() if k == "Allow"})
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            answer = _problem(request, AffinityError("internal error", hint="see the log"))
        finally:
            if isinstance(request.protocol, Connection):
                request.protocol.answered()
        return answer

    app = web.Application(middlewares=[guarded], client_max_size=wire_bodies.BODY_LIMIT)
    for endpoint in endpoints.ENDPOINTS:
        path = endpoint.path.replace("{vmid}", "{vmid:[^/]+}")
        app.router.add_route(
            endpoint.method,
            path,
            _route(endpoint, handlers[endpoint.name], access, api.timed, turn=turn),
        )
    # aiohttp 3.8 declares the list of these as one of decorators.
    app.on_response_prepare.append(_secured)  # type: ignore[arg-type]
    app.router.add_get("/openapi.json", _answering(_json, openapi.document(__version__)))
    app.router.add_get("/healthz", _answering(lambda text: web.Response(text=text), "ok\n"))
    for path, file in assets.found():
        app.router.add_get(path, assets.index(api.page) if path == "/" else assets.handler(file))
    return app


async def _secured(request: web.Request, answer: web.StreamResponse) -> None:
    """The headers of every answer, those of a stream too."""
    del request
    for name, value in _SECURITY.items():
        answer.headers.setdefault(name, value)


def _answering(make: Callable[[T], web.Response], value: T) -> _Next:
    """A handler that says the same to everybody."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return make(value)

    return answer


def _route(
    endpoint: endpoints.Endpoint,
    handler: Handler,
    access: Access,
    timed: _Timed,
    *,
    turn: asyncio.Lock,
) -> _Next:
    async def answer(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        access.check_write(
            endpoint,
            peer=None if transport is None else transport.get_extra_info("socket"),
            authorization=request.headers.get("Authorization"),
        )
        body = await _body(request) if endpoint.body is not None else {}
        query = checked(request.query, endpoint.query) if endpoint.query else request.query
        call = Call(request.match_info.get("vmid", ""), query, body)
        with timed(endpoint.name):
            result = await handler(call)
        if isinstance(result, Stream):
            return await tell(request, result)
        if isinstance(result, Iterator):
            return await in_pieces(request, result, turn)
        if endpoint.media == endpoints.PLAIN:
            return web.Response(text=str(result), headers={"Content-Type": _METRICS})
        if endpoint.media != "application/json":
            # The picture's own style sheet tells dark from light; it can load nothing.
            headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
            return web.Response(text=str(result), content_type=endpoint.media, headers=headers)
        return _json(jsonvalue.plain(result))

    return answer


async def _body(request: web.Request) -> Mapping[str, object]:
    """The body as a JSON object, of a bounded size; the rest of a larger one is not read."""
    if (request.content_length or 0) > wire_bodies.BODY_LIMIT:
        raise TooLargeError(f"the body may have {wire_bodies.BODY_LIMIT} bytes at most")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise EncodingError("the body must not be compressed")
    try:
        async with asyncio.timeout(_BODY_PATIENCE):
            return jsonvalue.json_object(await request.read())
    except TimeoutError:
        raise TooSlowError("the body did not come in time") from None


async def in_pieces(
    request: web.Request, entries: Iterator[object], turn: asyncio.Lock
) -> web.StreamResponse:
    """A list that is long on large hosts: hooks are answered between two entries, and however many
    lists are asked for, only one `turn` at a time has an entry made."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
    await answer.prepare(request)
    before = "["
    while True:
        async with turn:
            text = next((_text(jsonvalue.plain(entry)) for entry in entries), None)
            await asyncio.sleep(0)
        if text is None:
            break
        await answer.write(f"{before}{text}".encode())
        before = ","
    await answer.write(b"]" if before == "," else b"[]")
    await answer.write_eof()
    return answer


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json(value: object, *, status: int = 200, media: str = "application/json") -> web.Response:
    return web.Response(text=_text(value), status=status, content_type=media)


def _problem(request: web.Request, error: AffinityError) -> web.Response:
    """RFC 9457; the routes of the Go project keep their own form."""
    if endpoints.is_old(request.path):
        told = jsonvalue.plain(wire.OldProblem(error.text))
        answer = _json(told, status=error.http_status)
    else:
        told = jsonvalue.plain(wire.problem(error))
        answer = _json(told, status=error.http_status, media="application/problem+json")
    if error.http_status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _refusal(status: int, text: str) -> web.Response:
    """The answer to what is no HTTP."""
    error = BadRequestError(text or "this is no request")
    told = wire.problem(error)
    answer = _json(jsonvalue.plain(told), status=status, media="application/problem+json")
    answer.headers.update(_SECURITY)
    return answer


def _from_aiohttp(error: web.HTTPException, path: str) -> AffinityError:
    """aiohttp's own refusals, as members of the family."""
    match error.status:
        case 404:
            return NotFoundError(f"there is no path {path}", hint="see /openapi.json")
        case 405:
            return MethodError(f"{path} takes another method", hint="see /openapi.json")
        case 413:
            return TooLargeError(f"the body may have {wire_bodies.BODY_LIMIT} bytes at most")
        case 403:
            return ForbiddenError("forbidden")
        case _:
            return BadRequestError(error.reason or "not understood")


class Listeners:
    """The open listeners of one application."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, logger=log)
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._tcp, self._unix = Gate(room()), Gate(None)

    async def open(self) -> None:
        await self._runner.setup()

    async def tcp(self, host: str, port: int) -> int:
        """Listen; the port that it became. OSError where it is taken, or no socket can be had."""
        server = await asyncio.get_running_loop().create_server(
            self._connections(self._tcp), host, port, reuse_address=True, backlog=_BACKLOG
        )
        if not server.sockets:
            # asyncio takes each refusal of socket(2) for a family that is not there, and goes on.
            raise OSError("the kernel gives no socket for this address")
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def unix(self, path: Path) -> None:
        """Listen on a socket for root alone. A socket that somebody answers on stays theirs."""
        if _is_socket(path):
            if _answers(path):
                raise FileExistsError(f"{path.name} is in use: another service runs")
            path.unlink()
        before = os.umask(0o177)
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                self._connections(self._unix), str(path), backlog=_BACKLOG
            )
        finally:
            os.umask(before)
        self._servers.append(server)
        self._paths.append(path)

    def _connections(self, gate: Gate) -> Callable[[], Connection]:
        server = self._runner.server
        assert server is not None, "open() comes first"
        return partial(Connection, server, gate=gate, refusal=_refusal, keep=_KEEP)

    async def close(self) -> None:
        """Take nothing more, and let what is being answered be taken for a while."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        for server in self._servers:
            server.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._runner.cleanup(), _LAST)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(0.5)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
