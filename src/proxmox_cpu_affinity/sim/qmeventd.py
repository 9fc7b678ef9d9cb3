"""A stand-in of qmeventd: the daemon to whose socket every guest's QEMU keeps a connection.

It ends a QEMU whose guest has shut down, and starts `qm cleanup` when a connection closes, so also
after a crash. After qemu-server's qmeventd.c. Out of scope: vzdump's and restore's clients.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from proxmox_cpu_affinity.model.ids import vmid_of
from proxmox_cpu_affinity.sim.processes import arguments, option
from proxmox_cpu_affinity.sim.tree import Tree

_KILL_AFTER_S = 60.0
_LAST_CLEANUPS_S = 1.0
_STAYS = frozenset(("running", "paused", "suspended", "prelaunch"))


@dataclass(slots=True)
class Guest:
    """A connected QEMU."""

    peer: socket.socket
    pid: int
    vmid: int
    clean: bool = False  # a SHUTDOWN event was seen
    by_guest: bool = False  # which said that the guest did it
    kill_at: float | None = None
    buffer: bytes = field(default=b"", repr=False)

    def send(self, command: str, *, tag: str = "") -> None:
        request = {"execute": command} | ({"id": tag} if tag else {})
        with contextlib.suppress(OSError):  # reading from it will tell
            self.peer.sendall(json.dumps(request).encode() + b"\n")


class Daemon:
    """The loop: new connections, their messages, and the cleanups that were started."""

    def __init__(self, tree: Tree, server: socket.socket) -> None:
        self.tree = tree
        self.server = server
        self.stopped = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(server, selectors.EVENT_READ)
        self.cleanups: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Serve until SIGTERM, then end the cleanups under way."""
        wake, wakeup = socket.socketpair()
        wakeup.settimeout(0)
        signal.set_wakeup_fd(wakeup.fileno())
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake up
        self.selector.register(wake, selectors.EVENT_READ)
        while not self.stopped:
            for key, _ in self.selector.select(self._timeout()):
                if key.fileobj is self.server:
                    self._accept()
                elif key.fileobj is wake:
                    wake.recv(4096)
                else:
                    self._read(key.data)
            self._kill_late()
            self.cleanups = [process for process in self.cleanups if process.poll() is None]
        self._end_cleanups()

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def _guests(self) -> list[Guest]:
        return [key.data for key in self.selector.get_map().values() if key.data is not None]

    def _timeout(self) -> float | None:
        due = [guest.kill_at for guest in self._guests() if guest.kill_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self) -> None:
        peer, _ = self.server.accept()
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack(
            "3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        # The guest's number is in the -pidfile argument of the process at the other end.
        vmid = vmid_of(Path(option(arguments(pid), "-pidfile")).stem)
        if vmid is None:
            peer.close()
            return
        guest = Guest(peer, pid, vmid)
        self.selector.register(peer, selectors.EVENT_READ, guest)
        guest.send("qmp_capabilities")

    def _read(self, guest: Guest) -> None:
        try:
            data = guest.peer.recv(65536)
        except OSError:
            data = b""
        guest.buffer += data
        *lines, guest.buffer = guest.buffer.split(b"\n")
        for line in lines:
            if line.strip():
                self._message(guest, json.loads(line))
        if not data:
            self.selector.unregister(guest.peer)
            guest.peer.close()
            self._cleanup(guest)

    def _message(self, guest: Guest, message: dict[str, object]) -> None:
        result = message.get("return")
        if message.get("event") == "SHUTDOWN":
            data = message.get("data")
            guest.clean = True
            guest.by_guest = isinstance(data, dict) and data.get("guest") is True
            guest.send("query-status", tag="status")
        elif message.get("id") == "status" and _has_ended(result):
            guest.send("quit")
            guest.kill_at = time.monotonic() + _KILL_AFTER_S

    def _kill_late(self) -> None:
        for guest in self._guests():
            if guest.kill_at is not None and guest.kill_at <= time.monotonic():
                guest.kill_at = None
                if vmid_of(Path(option(arguments(guest.pid), "-pidfile")).stem) == guest.vmid:
                    os.kill(guest.pid, signal.SIGKILL)

    def _cleanup(self, guest: Guest) -> None:
        qm = str(self.tree.root / "usr/sbin/qm")
        flags = (str(int(guest.clean)), str(int(guest.by_guest)))
        argv = [qm, "cleanup", str(guest.vmid), *flags]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        self.cleanups.append(process)

    def _end_cleanups(self) -> None:
        """End them with their hooks, as the end of the machine would."""
        for process in self.cleanups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.cleanups:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_CLEANUPS_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _has_ended(status: object) -> bool:
    return isinstance(status, dict) and status.get("status") not in _STAYS


def serve(tree: Tree) -> None:
    """Open the socket, go to the background once it listens, and serve. OSError."""
    path = tree.qmeventd_socket
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)
    server.listen(64)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    log = os.open(tree.root / "var/log/qmeventd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    tree.qmeventd_pid.write_text(f"{os.getpid()}\n")
    try:
        Daemon(tree, server).run()
    finally:
        tree.qmeventd_pid.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def is_ours(tree: Tree, argv: list[str]) -> bool:
    """Whether these are the arguments of this node's qmeventd."""
    return argv[-2:] == ["qmeventd", str(tree.root)]
