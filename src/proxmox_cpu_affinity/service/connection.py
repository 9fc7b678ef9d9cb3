"""One connection to either listener, bounded: aiohttp answers it, this says when it is too much.

aiohttp waits for ever for a request to begin, to go on, or to be read, and keeps whatever comes
before it is answered; it says each broken request to the log with a traceback. Any local user can
send such over TCP. Out of scope: what a whole request gets (http).
"""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from proxmox_cpu_affinity.service.log import log

PATIENCE = 20.0  # seconds in which a connection must begin a request, or take some of its answer
WAITING_MOST = 32  # requests sent ahead of their answers
TAKEN_MOST = 1 << 20  # bytes that come before an answer; the largest request has a tenth of that
TCP_MOST = 2048  # connections over TCP; the Unix socket is root's and has its room in any case
_FILES = 8192  # files that the service may have open, where the host allows as many

Refusal = Callable[[int, str], web.Response]


def room() -> int:
    """Allow this process more open files than a service has at first (1024; systemd.exec(5),
    LimitNOFILE=); how many TCP connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return TCP_MOST if soft == resource.RLIM_INFINITY else min(TCP_MOST, soft // 2)


class Gate:
    """How many connections a listener has, and may have; None: as many as come."""

    __slots__ = ("most", "open")

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.open = 0

    @property
    def full(self) -> bool:
        return self.most is not None and self.open >= self.most


class Connection(web.RequestHandler):
    """aiohttp's side of a connection, with bounds on what it waits for and keeps."""

    __slots__ = (
        *("_answering", "_check", "_gate", "_let_in", "_refusal", "_seen", "_sent"),
        *("_taken", "_unsent"),
    )

    def __init__(self, server: web.Server, *, gate: Gate, refusal: Refusal, keep: float) -> None:
        # Bodies are JSON as it is: decompressing aiohttp would make megabytes of a small one.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp's own way to say: none
            logger=log,
            keepalive_timeout=keep,
            auto_decompress=False,
        )
        self._gate = gate
        self._refusal = refusal
        self._let_in = False
        self._check: asyncio.TimerHandle | None = None
        self._seen = self._sent = self._taken = self._unsent = 0
        self._answering: web.BaseRequest | None = None  # at the last look

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._gate.full:
            self._abort()
            return
        self._let_in = True
        self._gate.open += 1
        self._check = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._check is not None:
            self._check.cancel()
        self._answering = None
        if self._let_in:
            self._let_in = False
            self._gate.open -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._taken += len(data)
        if self._taken > TAKEN_MOST or len(self._messages) > WAITING_MOST:
            self._abort()

    def answered(self) -> None:
        """A request got its answer: what comes from now on belongs to others."""
        self._taken = 0

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request: no more than a debug line, whoever sends it."""
        if isinstance(exc, ConnectionError):  # the other end went away
            raise exc
        if status == 500:
            log.error("an answer failed", exc_info=exc)
        else:
            log.debug("no request: %s", message)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        first = (message or "").partition("\n")[0].rstrip(":")
        answer = self._refusal(status, first)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # Where the other end is gone, what goes wrong is aiohttp's own and harms nobody.
        if self.transport is not None and not isinstance(kw.get("exc_info"), ConnectionError):
            super().log_exception(*args, **kw)

    def _look(self) -> None:
        """Every PATIENCE: end a connection that asks nothing, or takes nothing of its answer."""
        transport = self.transport
        if transport is None:
            return
        request, unsent = self._current_request, transport.get_write_buffer_size()
        # What is written piece by piece is as much again at each look, however much was taken.
        sent = 0 if request is None else request.writer.output_size - unsent
        took = request is not None and request is self._answering and sent > self._sent
        stuck = 0 < self._unsent <= unsent and not took
        idle = request is None and self._seen == self._request_count and not unsent
        if stuck or idle:
            self._abort()
            return
        self._seen, self._unsent = self._request_count, unsent
        self._answering, self._sent = request, sent
        self._check = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def _abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
