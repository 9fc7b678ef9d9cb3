"""Bounds of one connection, with patiences of a test's own."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from proxmox_cpu_affinity.service import connection
from proxmox_cpu_affinity.service.connection import Connection, Gate
from proxmox_cpu_affinity.service.http import in_pieces

PIECE, PIECES = b"x" * 16384, 500


@contextlib.asynccontextmanager
async def asked(path: Path) -> AsyncIterator[socket.socket]:
    """A connection that has asked for a long answer, which is written piece by piece."""

    async def answer(request: web.Request) -> web.StreamResponse:
        made = web.StreamResponse()
        await made.prepare(request)
        for _ in range(PIECES):
            await made.write(PIECE)
        return made

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    gate = Gate(None)
    made = partial(
        Connection,
        runner.server,
        gate=gate,
        refusal=lambda status, text: web.Response(status=status, text=text),
        keep=15.0,
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(made, str(path))
    there = socket.socket(socket.AF_UNIX)
    there.settimeout(0)
    try:
        await loop.sock_connect(there, str(path))
        await loop.sock_sendall(there, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        yield there
    finally:
        there.close()
        server.close()
        await runner.cleanup()
        assert gate.open == 0


async def read(there: socket.socket, *, pause: float) -> int:
    """How much comes until the other end closes; slowly."""
    loop, size = asyncio.get_running_loop(), 0
    with contextlib.suppress(ConnectionError):
        while piece := await loop.sock_recv(there, 32768):
            size += len(piece)
            await asyncio.sleep(pause)
    return size


def test_who_takes_a_long_answer_slowly_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was ended as soon as two looks found as much that was not sent yet."""
    monkeypatch.setattr(connection, "PATIENCE", 0.2)

    async def story() -> None:
        async with asked(tmp_path / "s") as there:
            assert await read(there, pause=0.01) > len(PIECE) * PIECES

    asyncio.run(story())


def test_who_takes_nothing_of_an_answer_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)

    async def story() -> None:
        async with asked(tmp_path / "s") as there:
            await asyncio.sleep(1)
            assert await read(there, pause=0) < len(PIECE) * PIECES

    asyncio.run(story())


def test_however_many_lists_are_asked_for_one_entry_is_made_at_a_time() -> None:
    """Once each list had an entry made in every round of the event loop; a hook waits rounds."""
    made = 0

    def entries() -> Iterator[object]:
        nonlocal made
        for number in range(50):
            made += 1
            yield [number]

    async def story() -> None:
        turn = asyncio.Lock()
        app = web.Application()

        async def answer(request: web.Request) -> web.StreamResponse:
            return await in_pieces(request, entries(), turn)

        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
            told = await reader.read()
            writer.close()
            return told.partition(b"\r\n\r\n")[2]

        asking = [asyncio.create_task(ask()) for _ in range(40)]
        most = 0
        while not all(task.done() for task in asking):
            before = made
            await asyncio.sleep(0)
            most = max(most, made - before)
        assert most == 1
        assert [json.loads(task.result()) for task in asking] == [[[i] for i in range(50)]] * 40
        server.close()
        await runner.cleanup()

    asyncio.run(story())
