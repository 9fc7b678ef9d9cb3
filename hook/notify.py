"""Tells the service that a guest reached a phase of its life and prints the one line it answers.

Run by the hookscript: python3 -I -S notify.py VMID PHASE [DESCRIPTOR]; the line goes to that
descriptor, by default to standard output. Whatever happens is said in that line and the exit status
is 0; never a traceback, never beyond the budget. Out of scope: deciding anything, trying again
(the service finds a guest it was not told of by itself).

Every guest's start waits for this program, so it imports only what the interpreter has at hand:
json alone costs as much again as starting Python, http.client four times that (bench/README.md).
Linux and CPython 3.11 or newer are taken for granted.
"""

import posix
import sys
import time
from _json import encode_basestring_ascii, make_scanner
from _socket import AF_UNIX, SOCK_STREAM, socket

NAME = "proxmox-cpu-affinity"
SOCKET_FILE = b"/run/proxmox-cpu-affinity/api.sock"
BUDGET_S = 1.5
ANSWER_LIMIT = 65536  # bytes, head and body
LINE_LIMIT = 300  # characters
DOWN = f"the service does not run (systemctl start {NAME})"


class RubbishError(Exception):
    """The answer is not what the API of the service gives."""


class Rules:
    """How the JSON scanner of the interpreter makes values: as the json module has it do."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def number(digits: bytes, base: int = 10) -> int:
    """A status or a length. RubbishError."""
    try:
        value = int(digits, base)
    except ValueError:
        value = -1
    if value < 0:
        raise RubbishError("a number in its head is none")
    return value


class Exchange:
    """One connection under one deadline, for connecting, sending and receiving together."""

    def __init__(self) -> None:
        self.end = time.monotonic() + BUDGET_S
        self.socket = socket(AF_UNIX, SOCK_STREAM)
        self.received = b""

    def _limit(self) -> None:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)

    def connect(self, path: bytes) -> None:
        while True:
            self._limit()
            try:
                return self.socket.connect(path)
            except BlockingIOError:  # unix(7): the queue of the listener is full
                time.sleep(0.01)

    def send(self, data: bytes) -> None:
        self._limit()
        self.socket.sendall(data)

    def receive(self) -> None:
        """Append what has come to `received`. RubbishError at its end and above the limit."""
        self._limit()
        piece = self.socket.recv(ANSWER_LIMIT)
        if not piece:
            raise RubbishError("it ends early" if self.received else "it is empty")
        self.received += piece
        if len(self.received) > ANSWER_LIMIT:
            raise RubbishError("it is too long")

    def until(self, mark: bytes, start: int) -> int:
        """Where `mark` begins, at `start` or behind it."""
        while (found := self.received.find(mark, start)) < 0:
            self.receive()
        return found

    def body(self, start: int, length: int) -> bytes:
        while len(self.received) < start + length:
            self.receive()
        return self.received[start : start + length]

    def chunks(self, start: int) -> bytes:
        """A body in chunks (RFC 9112, 7.1); trailers are left unread."""
        whole = b""
        while True:
            line = self.until(b"\r\n", start)
            size = number(self.received[start:line].partition(b";")[0], 16)
            if size == 0:
                return whole
            whole += self.body(line + 2, size)
            start = line + 2 + size + 2

    def answer(self) -> tuple[int, bytes]:
        """Status and body. RubbishError."""
        start = self.until(b"\r\n\r\n", 0)
        first, *rest = self.received[:start].split(b"\r\n")
        if not first.startswith(b"HTTP/1."):
            raise RubbishError("it is not HTTP")
        fields = {}
        for field in rest:
            name, _, value = field.partition(b":")
            fields[name.lower()] = value.strip().lower()
        status = number(first[9:12])
        if fields.get(b"transfer-encoding") == b"chunked":
            return status, self.chunks(start + 4)
        if b"content-length" in fields:
            return status, self.body(start + 4, number(fields[b"content-length"]))
        raise RubbishError("its length is not told")


def request(vmid: str, phase: str, source: str) -> bytes:
    """The HTTP request; `source` is the node a migration comes from, empty without one."""
    body = f'{{"migrated_from": {encode_basestring_ascii(source)}}}' if source else "{}"
    return (
        f"POST /api/v1/guests/{vmid}/{phase} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    ).encode()


def meaning(status: int, body: bytes) -> str:
    """The line in an answer: its own, or the detail of an error (RFC 9457)."""
    try:
        text = body.decode().strip()
        value, end = make_scanner(Rules)(text, 0)  # type: ignore[arg-type]  # reads attributes only
    except (ValueError, StopIteration, RecursionError, SystemError):
        # SystemError: in 3.11 the scanner finds its own error only in a loaded json.decoder.
        raise RubbishError("it is not JSON") from None
    if end != len(text) or not isinstance(value, dict):
        raise RubbishError("it is not one JSON object")
    name = "line" if status == 200 else "detail"
    line = value.get(name)
    if not isinstance(line, str):
        raise RubbishError(f"status {status} without a text as {name!r}")
    return line


def ask(vmid: str, phase: str) -> str:
    """The service's line."""
    exchange = Exchange()
    source = posix.environ.get(b"PVE_MIGRATED_FROM", b"").decode(errors="replace")
    try:
        exchange.connect(posix.environ.get(b"PCA_SOCKET_FILE") or SOCKET_FILE)
        exchange.send(request(vmid, phase, source))
        return meaning(*exchange.answer())
    finally:
        exchange.socket.close()


def trouble(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return DOWN
    if isinstance(error, PermissionError):
        return "not permitted to talk to the service (only root is)"
    if isinstance(error, TimeoutError):
        return f"the service was too slow (no answer within {BUDGET_S} s)"
    if isinstance(error, OSError):
        return f"the connection to the service broke ({error})"
    if isinstance(error, RubbishError):
        return f"the service answered rubbish ({error})"
    return f"the hook met with what nobody foresaw ({type(error).__name__})"


def outcome(arguments: list[str]) -> str:
    """The line to print; empty where the service has nothing to say."""
    if len(arguments) < 2:
        return "needs a VMID and a phase"
    vmid, phase = arguments[:2]
    if not (vmid.isascii() and vmid.isdigit() and len(vmid) < 10):
        return f"{vmid!r} is no VMID"
    if phase not in {"pre-start", "post-start", "pre-stop", "post-stop"}:
        return f"nothing to do in the phase {phase!r} of guest {vmid}"
    try:
        return ask(vmid, phase)
    except Exception as error:  # a start must not fail for want of foresight
        return f"{trouble(error)}; guest {vmid} {phase.partition('-')[2]}s without it"


def say(line: str, descriptor: str) -> None:
    shown = "".join(sign if sign.isprintable() else " " for sign in f"{NAME}: {line}")
    try:  # noqa: SIM105  # contextlib costs more than all the imports above
        posix.write(int(descriptor), shown[:LINE_LIMIT].encode() + b"\n")
    except (OSError, ValueError, OverflowError):
        pass  # nobody is there to read it


def main(arguments: list[str]) -> None:
    if line := outcome(arguments):
        say(line, arguments[2] if len(arguments) > 2 else "1")
    posix._exit(0)  # at once: taking the interpreter down costs a sixth of its whole time


if __name__ == "__main__":
    main(sys.argv[1:])
