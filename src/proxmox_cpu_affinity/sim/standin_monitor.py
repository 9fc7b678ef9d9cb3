"""The stand-in's main thread: its QMP sockets, and what comes over them.

Standard library only. Out of scope: what commands mean (standin_machine).
"""

import contextlib
import json
import os
import selectors
import socket
import time

from proxmox_cpu_affinity.sim.standin_machine import Incoming, Machine, Refused

RECONNECT_S = 5.0


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
        try:
            if not self.capable:
                raise Refused("Expecting capabilities negotiation", kind="CommandNotFound")
            result = self.machine.answer(command, request.get("arguments", {}))
        except Refused as refused:
            return self._error(refused.kind, refused.text)
        return self.send({"return": result} | tag)

    def _error(self, kind: str, text: str) -> None:
        self.send({"error": {"class": kind, "desc": text}})


class Loop:
    """The main thread: one client at a time on the server socket, one connection to qmeventd."""

    def __init__(
        self, machine: Machine, *, server: str, events: str, incoming: Incoming | None
    ) -> None:
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
        if incoming:
            self.selector.register(incoming, selectors.EVENT_READ)

    def wake_by(self, signals: socket.socket) -> None:
        """Watch the socket that gets a byte for each signal: all of them end the machine."""
        self.selector.register(signals, selectors.EVENT_READ)

    def run(self) -> None:
        while not self.machine.ended:
            self._connect()
            for key, _ in self.selector.select(self._timeout()):
                self._ready(key.fileobj)
            self.machine.tick()
            self._send_events()
        with contextlib.suppress(FileNotFoundError):
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
        elif isinstance(source, Incoming):
            self.selector.unregister(source)
            self.machine.arrived(source.read())
        elif isinstance(source, socket.socket) and source.recv(16):
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
