"""A client of QEMU's monitor: connect, ask, close at once, since it serves one client at a time."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from proxmox_cpu_affinity.sim.faults import Fault

TIMEOUT_S = 5.0


class QmpError(Fault):
    """The monitor does not answer, or answers with an error."""


class Monitor:
    """One conversation; the names of events between the answers are kept."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT_S) -> None:
        self._events: set[str] = set()
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self._read()  # the greeting
            self.ask("qmp_capabilities")
        except (OSError, QmpError) as error:
            self._socket.close()
            raise QmpError(f"{path.name}: {error}") from error

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run one command and return its answer. QmpError."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self._read()
                self._note(answer)
                if "error" in answer:
                    raise QmpError(f"{command}: {_description(answer['error'])}")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error

    def saw(self, *events: str, seconds: float) -> bool:
        """Whether one of these events has come, or comes within so many seconds."""
        before = self._socket.gettimeout()
        self._socket.settimeout(seconds)
        try:
            while self._events.isdisjoint(events):
                self._note(self._read())
        except (OSError, QmpError):
            return False
        finally:
            self._socket.settimeout(before)
        return True

    def _note(self, message: Mapping[str, object]) -> None:
        if "event" in message:
            self._events.add(str(message["event"]))

    def _read(self) -> dict[str, object]:
        while b"\n" not in self._received:
            piece = self._socket.recv(65536)
            if not piece:
                raise QmpError("the monitor closed the connection")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        try:
            message: object = json.loads(line)
        except ValueError as error:
            raise QmpError(f"the monitor sent no JSON: {error}") from error
        if not isinstance(message, dict):
            raise QmpError("the monitor sent no object")
        return message


def ask(path: Path, command: str, *, timeout: float = TIMEOUT_S) -> object:
    """Connect, run one command without arguments, close. QmpError."""
    with Monitor(path, timeout=timeout) as monitor:
        return monitor.ask(command)


def run_state(path: Path) -> str:
    """QEMU's run state, like `running`, `paused` or `shutdown`. QmpError."""
    answer = ask(path, "query-status")
    return str(answer.get("status", "")) if isinstance(answer, dict) else ""


def _description(error: object) -> str:
    return str(error.get("desc", error)) if isinstance(error, dict) else str(error)
