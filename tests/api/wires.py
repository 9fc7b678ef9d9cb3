"""Requests as bytes on a connection: what comes back, and how it ends."""

import re
import socket
import time

from tests.integration.running import PATIENCE, Running

HOST = b"Host: localhost\r\n"
PLAN = b"POST /api/v1/plan HTTP/1.1\r\n" + HOST
BODY = b'{"guests":[]}'


def connected(service: Running, *, tcp: bool) -> socket.socket:
    there = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
    there.settimeout(PATIENCE)
    there.connect(("127.0.0.1", service.port) if tcp else str(service.socket))
    return there


def said(service: Running, request: bytes, *, tcp: bool) -> bytes:
    """All that the service says to these bytes. `Connection: close` or an error must end it."""
    with connected(service, tcp=tcp) as there:
        there.sendall(request)
        return rest(there)


def rest(there: socket.socket) -> bytes:
    """What comes until the other end closes or resets."""
    answer = bytearray()
    try:
        while piece := there.recv(1 << 16):
            answer += piece
    except ConnectionResetError:
        pass
    return bytes(answer)


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answer, re.MULTILINE)]


def memory_kib(service: Running) -> int:
    """Resident memory of the service's process."""
    with open(f"/proc/{service.process.pid}/status", encoding="ascii") as file:
        return int(re.findall(r"VmRSS:\s+(\d+) kB", file.read())[0])


def closed(there: socket.socket, *, within: float) -> bool:
    """Whether the other end closes by itself."""
    there.settimeout(0.2)
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if not there.recv(1 << 16):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def ended_by(there: socket.socket, data: bytes, *, times: int = 10_000, pause: float = 0) -> bool:
    """Whether the other end ends the connection while it is sent this again and again."""
    there.settimeout(5)
    try:
        for _ in range(times):
            there.sendall(data)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False
