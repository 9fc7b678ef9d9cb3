"""A small process that passes for QEMU where QEMU is not installed or not wanted.

Run as `kvm -I -S standin.py ARGUMENTS` with PVE's arguments for QEMU; it honours -name, -pidfile,
-daemonize, -smp, -machine, -no-shutdown, -S and the two QMP sockets and ignores the rest. It is a
script of its own that imports the standard library only. Out of scope: a guest. It never computes
anything; its vCPU threads sleep.
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RECONNECT_S = 5.0
GUEST_SHUTDOWN_S = 0.05


def options(argv: list[str]) -> dict[str, list[str]]:
    """The values of each option; flags have none."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("-"):
            name = word[1:]
            found.setdefault(name, [])
        elif name:
            found[name].append(word)
    return found


def fields(value: str) -> dict[str, str]:
    """The `key=value` parts of an option's value."""
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


def write_pidfile(path: str) -> None:
    """Create, lock and fill the pidfile like QEMU; an open file description lock outlives fork."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    whole_file = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole_file)
    except OSError as error:
        sys.exit(f"kvm: cannot create PID file: Cannot lock pid file: {error.strerror}")
    os.ftruncate(file, 0)
    os.write(file, b"%d\n" % os.getpid())


def daemonize() -> int:
    """Go on in a child of init; returns the pipe on which the waiting parent is told it is up."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        # The parent's status is QEMU's: 0 once the machine is set up, 1 if it died before.
        os._exit(0 if os.read(reader, 1) == b"\0" else 1)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    return writer


def detach(writer: int) -> None:
    """The end of the set-up: leave the caller's directory and streams, then tell the parent."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    os.write(writer, b"\0")
    os.close(writer)


class Machine:
    """The state of the guest that is not there, and the answers about it."""

    def __init__(self, opts: dict[str, list[str]]) -> None:
        smp = opts.get("smp", ["1"])[0]
        topology = fields(smp)
        self.cores = int(topology.get("cores", "1"))
        self.cpus = int(topology.get("cpus", smp.split(",")[0]))
        self.stays = "no-shutdown" in opts
        self.acpi = "acpi=off" not in opts.get("machine", [""])[0]
        self.names_threads = "debug-threads=on" in opts.get("name", [""])[0]
        self.status = "prelaunch" if "S" in opts else "running"
        self.vcpus: list[int] = []
        self.powerdown_at: float | None = None
        self.ended = False
        self.events: list[dict[str, object]] = []

    def start_threads(self) -> None:
        """QEMU's threads by their names; an iothread's name is too long, so it stays `kvm`."""
        threading.stack_size(64 * 1024)
        for name in ("call_rcu", "IO mon_iothread"):
            self._thread(name)
        self.vcpus = [self._thread(f"CPU {index}/KVM") for index in range(self.cpus)]
        self._thread("kvm")

    def _thread(self, name: str) -> int:
        ready = threading.Event()
        thread = threading.Thread(target=self._sleep, args=(name, ready), daemon=True)
        thread.start()
        ready.wait()
        assert thread.native_id is not None
        return thread.native_id

    def _sleep(self, name: str, ready: threading.Event) -> None:
        if self.names_threads:
            with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
                file.write(name)
        ready.set()
        threading.Event().wait()

    def emit(self, name: str, **data: object) -> None:
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        event: dict[str, object] = {"timestamp": stamp, "event": name}
        self.events.append(event | {"data": data} if data else event)

    def shut_down(self, *, by_guest: bool, reason: str) -> None:
        self.powerdown_at = None
        self.emit("SHUTDOWN", guest=by_guest, reason=reason)
        self.status = "shutdown"
        if by_guest and self.stays:
            self.emit("STOP")
        else:
            self.ended = True

    def tick(self) -> None:
        """The guest's own doing: it shuts down a moment after the power button."""
        if self.powerdown_at is not None and time.monotonic() >= self.powerdown_at:
            self.shut_down(by_guest=True, reason="guest-shutdown")

    def answer(self, command: str) -> object:
        """The answer to a command; None for one that it does not know."""
        commands: dict[str, Callable[[], object]] = {
            "query-status": lambda: {"status": self.status, "running": self.status == "running"},
            "query-cpus-fast": self._query_cpus,
            "system_powerdown": self._powerdown,
            "system_reset": lambda: self.emit("RESET", guest=False, reason="host-qmp-system-reset"),
            "stop": lambda: self._go("running", "paused", "STOP"),
            "cont": lambda: self._go("paused", "running", "RESUME"),
            "quit": lambda: self.shut_down(by_guest=False, reason="host-qmp-quit"),
        }
        if command not in commands:
            return None
        result = commands[command]()
        return {} if result is None else result

    def _query_cpus(self) -> object:
        return [
            {
                "thread-id": tid,
                "cpu-index": index,
                "qom-path": f"/machine/unattached/device[{index}]",
                "target": "x86_64",
                "props": {
                    "socket-id": index // self.cores,
                    "core-id": index % self.cores,
                    "thread-id": 0,
                },
            }
            for index, tid in enumerate(self.vcpus)
        ]

    def _powerdown(self) -> None:
        self.emit("POWERDOWN")
        if self.acpi and self.status == "running":
            self.powerdown_at = time.monotonic() + GUEST_SHUTDOWN_S

    def _go(self, before: str, after: str, event: str) -> None:
        if self.status in {before, "prelaunch"}:
            self.status = after
            self.emit(event)


class Conversation:
    """One QMP peer: greeting, capabilities, then commands; events are sent to it as they come."""

    def __init__(self, peer: socket.socket, machine: Machine) -> None:
        self.peer = peer
        self.machine = machine
        self.capable = False
        self.buffer = b""
        version = {"major": 7, "minor": 2, "micro": 0}
        self.send(
            {"QMP": {"version": {"qemu": version, "package": "stand-in"}, "capabilities": []}}
        )

    def send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the peer went away; reading will tell
            self.peer.sendall(json.dumps(message).encode() + b"\r\n")

    def read(self) -> bool:
        """Answer what has come; False once the peer is gone."""
        try:
            data = self.peer.recv(65536)
        except OSError:
            return False
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            if line.strip():
                self._command(line)
        return bool(data)

    def _command(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            command = str(request["execute"])
        except (ValueError, KeyError, TypeError):
            return self._error("GenericError", "QMP input must be a JSON object with 'execute'")
        tag = {"id": request["id"]} if "id" in request else {}
        if command == "qmp_capabilities":
            self.capable = True
            return self.send({"return": {}} | tag)
        result = self.machine.answer(command) if self.capable else None
        if result is None:
            return self._error("CommandNotFound", f"The command {command} has not been found")
        return self.send({"return": result} | tag)

    def _error(self, kind: str, text: str) -> None:
        self.send({"error": {"class": kind, "desc": text}})


class Loop:
    """The main thread: one client at a time on the server socket, one connection to qmeventd."""

    def __init__(self, machine: Machine, *, server: str, events: str) -> None:
        self.machine = machine
        self.events_path = events
        self.server_path = server
        self.selector = selectors.DefaultSelector()
        self.server = socket.socket(socket.AF_UNIX)
        if os.path.exists(server):
            os.unlink(server)
        self.server.bind(server)
        self.server.listen(1)
        self.client: Conversation | None = None
        self.upstream: Conversation | None = None
        self.reconnect_at = time.monotonic()
        self.selector.register(self.server, selectors.EVENT_READ)

    def run(self) -> None:
        while not self.machine.ended:
            self._connect()
            for key, _ in self.selector.select(self._timeout()):
                self._ready(key.fileobj)
            self.machine.tick()
            self._send_events()
        os.unlink(self.server_path)

    def _timeout(self) -> float | None:
        reconnect = self.reconnect_at if self.events_path and not self.upstream else None
        due = [at for at in (self.machine.powerdown_at, reconnect) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _connect(self) -> None:
        if self.upstream or not self.events_path or time.monotonic() < self.reconnect_at:
            return
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(self.events_path)
        except OSError:
            peer.close()
            self.reconnect_at = time.monotonic() + RECONNECT_S
            return
        self.upstream = Conversation(peer, self.machine)
        self.selector.register(peer, selectors.EVENT_READ)

    def _ready(self, source: object) -> None:
        if source is self.server:
            peer, _ = self.server.accept()
            self.client = Conversation(peer, self.machine)
            # The next client waits in the backlog without a greeting until this one is gone.
            self.selector.unregister(self.server)
            self.selector.register(peer, selectors.EVENT_READ)
        elif self.client and source is self.client.peer:
            if not self.client.read():
                self._drop(self.client)
                self.client = None
                self.selector.register(self.server, selectors.EVENT_READ)
        elif self.upstream and source is self.upstream.peer:
            if not self.upstream.read():
                self._drop(self.upstream)
                self.upstream = None
                self.reconnect_at = time.monotonic() + RECONNECT_S
        elif isinstance(source, socket.socket) and source.recv(16):  # a signal: see main
            self.machine.shut_down(by_guest=False, reason="host-signal")

    def _drop(self, conversation: Conversation) -> None:
        self.selector.unregister(conversation.peer)
        conversation.peer.close()

    def _send_events(self) -> None:
        for event in self.machine.events:
            for conversation in (self.client, self.upstream):
                if conversation and conversation.capable:
                    conversation.send(event)
        self.machine.events.clear()


def monitors(opts: dict[str, list[str]]) -> tuple[str, str]:
    """The paths of the server socket and of qmeventd's, from the -chardev options."""
    server = upstream = ""
    for value in opts.get("chardev", []):
        path = fields(value).get("path", "")
        if "server=on" in value:
            server = path
        else:
            upstream = path
    return server, upstream


def main(argv: list[str]) -> int:
    opts = options(argv)
    pidfile = opts.get("pidfile", [""])[0]
    writer = daemonize() if "daemonize" in opts else None
    if pidfile:
        write_pidfile(pidfile)
    machine = Machine(opts)
    server, upstream = monitors(opts)
    loop = Loop(machine, server=server, events=upstream)
    wake, wakeup = socket.socketpair()
    wakeup.settimeout(0)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    loop.selector.register(wake, selectors.EVENT_READ)
    machine.start_threads()
    if writer is not None:
        detach(writer)
    loop.run()
    if pidfile:
        os.unlink(pidfile)
    os._exit(0)  # the threads sleep for ever


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
