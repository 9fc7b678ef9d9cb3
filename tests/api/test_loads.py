"""Who is slow, many, or never done: others are answered, and what is kept of them is bounded."""

import asyncio
import contextlib
import socket
import time

import pytest

from proxmox_cpu_affinity.service import connection
from tests.api.wires import (
    HOST,
    PLAN,
    closed,
    connected,
    ended_by,
    memory_kib,
    rest,
    said,
    statuses,
)
from tests.integration.running import PATIENCE, Running

PING = b"GET /api/v1/ping HTTP/1.1\r\n" + HOST + b"\r\n"
CLIENTS = 1000
LONG = connection.PATIENCE * 2 + 10  # within which a connection must have been ended

both = pytest.mark.parametrize("tcp", [False, True])


@both
def test_a_thousand_clients_at_once_are_all_answered(
    unharmed: Running,
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def one(start: asyncio.Event) -> list[int]:
        if tcp:
            reader, writer = await asyncio.open_connection("127.0.0.1", unharmed.port)
        else:
            reader, writer = await asyncio.open_unix_connection(str(unharmed.socket))
        await start.wait()  # all of them are connected
        writer.write(PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await reader.read()
        writer.close()
        return statuses(answer)

    async def all_of_them() -> list[list[int]]:
        start = asyncio.Event()
        clients = [asyncio.create_task(one(start)) for _ in range(CLIENTS)]
        await asyncio.sleep(1)
        start.set()
        return await asyncio.wait_for(asyncio.gather(*clients), 4 * PATIENCE)

    connection.room()  # this process needs as many files
    assert asyncio.run(all_of_them()) == [[200]] * CLIENTS


def test_beyond_its_bound_tcp_is_full_and_the_socket_is_not(unharmed: Running) -> None:
    connection.room()
    with contextlib.ExitStack() as stack:
        for _ in range(connection.TCP_MOST + 20):
            stack.enter_context(connected(unharmed, tcp=True))
        over = stack.enter_context(connected(unharmed, tcp=True))
        # Long before anybody is ended for saying nothing.
        assert closed(over, within=connection.PATIENCE / 2)
        assert unharmed.get("/api/v1/ping").json == {"ping": "pong"}
        assert unharmed.post("/api/v1/guests/100/post-start")["outcome"] == "full"
    unharmed.wait_for(lambda: unharmed.get("/api/v1/ping", tcp=True).status == 200)


SLOW = {
    "says nothing": b"",
    "half a line": b"GET /api/v1/pi",
    "half its headers": b"GET /api/v1/ping HTTP/1.1\r\n" + HOST + b"X: ",
    "half a body": PLAN + b"Content-Length: 13\r\n\r\n{",
    "half a chunk": PLAN + b"Transfer-Encoding: chunked\r\n\r\nd\r\n{",
}


@pytest.mark.patient
def test_who_begins_and_does_not_go_on_is_ended(unharmed: Running) -> None:
    with contextlib.ExitStack() as stack:
        waiting = {}
        for name, begun in SLOW.items():
            for tcp in (False, True):
                there = stack.enter_context(connected(unharmed, tcp=tcp))
                there.sendall(begun)
                waiting[name, tcp] = there
        deadline = time.monotonic() + LONG
        for key, there in waiting.items():
            assert closed(there, within=deadline - time.monotonic()), key


def test_a_writer_of_one_byte_at_a_time_is_answered_or_ended(unharmed: Running) -> None:
    with connected(unharmed, tcp=True) as there:
        for byte in PING:
            there.sendall(bytes((byte,)))
        assert statuses(there.recv(1 << 16)) == [200]


@both
def test_who_asks_without_end_and_reads_nothing_is_ended(
    unharmed: Running,
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    before = memory_kib(unharmed)
    with connected(unharmed, tcp=tcp) as there:
        assert ended_by(there, PING * 1000)
    assert memory_kib(unharmed) - before < 32 << 10


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"X: y\r\n" * 1000, id="headers"),
        pytest.param(b"x" * 8000, id="a header"),
    ],
)
def test_headers_without_end_are_ended(unharmed: Running, more: bytes) -> None:
    before = memory_kib(unharmed)
    with connected(unharmed, tcp=True) as there:
        there.sendall(b"GET /api/v1/ping HTTP/1.1\r\n" + HOST)
        assert ended_by(there, more)
    assert memory_kib(unharmed) - before < 32 << 10


def test_what_follows_an_upgrade_is_not_kept(unharmed: Running) -> None:
    before = memory_kib(unharmed)
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    with connected(unharmed, tcp=True) as there:
        there.sendall(b"GET /api/v1/events HTTP/1.1\r\n" + HOST + upgrade)
        assert ended_by(there, b"x" * 8000)
    assert memory_kib(unharmed) - before < 32 << 10


@pytest.mark.patient
@both
def test_a_slow_reader_of_answers_is_ended(
    unharmed: Running,
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    with connected(unharmed, tcp=tcp) as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /page.js HTTP/1.1\r\n" + HOST + b"\r\n"
        with contextlib.suppress(ConnectionError, TimeoutError):
            there.settimeout(2)
            for _ in range(200):  # answers of 2 MB, none of which is read
                there.sendall(request)
                time.sleep(0.005)
        time.sleep(LONG)
        assert ended_by(there, request, times=3, pause=0.1)


@both
@pytest.mark.parametrize("request_", [b"", b"GET /api/v1/ping", PING, PLAN + b"Content-Length: 9"])
def test_a_half_closed_connection_is_closed(
    unharmed: Running,
    request_: bytes,
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    with connected(unharmed, tcp=tcp) as there:
        there.sendall(request_)
        there.shutdown(socket.SHUT_WR)
        assert set(statuses(rest(there))) <= {200, 400}


def test_a_bomb_is_not_blown_up(unharmed: Running) -> None:
    import zlib

    packed = zlib.compress(b" " * (60 << 20), 9)
    assert len(packed) < 1 << 16
    before = memory_kib(unharmed)
    head = b"Content-Encoding: deflate\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(
        packed
    )
    assert statuses(said(unharmed, PLAN + head + packed, tcp=True)) == [415]
    assert memory_kib(unharmed) - before < 8 << 10


def test_hooks_are_answered_while_large_plans_are_made(unharmed: Running) -> None:
    guests = ",".join(f'{{"vmid":{100 + i},"vcpus":8192}}' for i in range(300))
    body = f'{{"guests":[{guests}]}}'.encode()
    head = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with contextlib.ExitStack() as stack:
        askers = [stack.enter_context(connected(unharmed, tcp=True)) for _ in range(4)]
        for asker in askers:
            asker.sendall(PLAN + head + body)
        for _ in range(10):
            assert unharmed.post("/api/v1/guests/100/post-start")["outcome"] == "full"
        assert [statuses(rest(asker)) for asker in askers] == [[200]] * 4
