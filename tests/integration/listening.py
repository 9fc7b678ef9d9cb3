"""A reader of a service's events: reads what it is told to, and no byte more."""

import json
import socket
import time
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse

from tests.integration.running import PATIENCE, Running


@dataclass(frozen=True, slots=True)
class Told:
    """One event. `number` is None where it has no id."""

    name: str
    data: dict[str, object]
    number: int | None


class Listener:
    """One connection to the stream."""

    def __init__(self, service: Running, last: object = None, *, buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(service.socket))
        head = "" if last is None else f"Last-Event-ID: {last}\r\n"
        request = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{head}\r\n"
        self.socket.sendall(request.encode())
        self._response: HTTPResponse | None = None

    @property
    def response(self) -> HTTPResponse:
        if self._response is None:
            self._response = HTTPResponse(self.socket)
            self._response.begin()
        return self._response

    @property
    def headers(self) -> HTTPMessage:
        return self.response.headers

    def line(self) -> str | None:
        """The next line of the stream; None at its end."""
        line = self.response.readline()
        return line.decode().rstrip("\n") if line else None

    def next(self) -> Told | None:
        """The next event; None at the end of the stream. Comments are passed over."""
        fields: dict[str, str] = {}
        while (line := self.line()) is not None:
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif "event" in fields:
                number = int(fields["id"]) if "id" in fields else None
                return Told(fields["event"], json.loads(fields["data"]), number)
        return None

    def until(self, name: str, **data: object) -> list[Told]:
        """All events up to the first of this name that has these data, which is the last."""
        deadline = time.monotonic() + PATIENCE
        seen: list[Told] = []
        while time.monotonic() < deadline:
            told = self.next()
            assert told is not None, f"the stream ended after {seen}"
            seen.append(told)
            if told.name == name and data.items() <= told.data.items():
                return seen
        raise AssertionError(f"no {name} with {data} in {seen}")

    def ends(self) -> None:
        """Wait for the end of the stream, whatever is told until then."""
        while self.next() is not None:
            pass

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self.socket.close()

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
