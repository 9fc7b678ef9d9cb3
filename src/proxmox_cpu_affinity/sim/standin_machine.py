"""The stand-in's machine: its run state, its vCPU threads, and its answers to QMP commands.

Standard library only, like the script that runs it (standin). Out of scope: sockets, and a guest:
what the guest does of itself is to shut down at the power button, to reboot on an NMI and to let an
unplugged vCPU go, all unless ACPI is off.
"""

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

GUEST_SHUTDOWN_S = 0.05

Values = dict[str, object]


def fields(value: str) -> dict[str, str]:
    """The `key=value` parts of an option's value."""
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


class Refused(Exception):
    """A QMP command that fails: the class and the text of the error."""

    def __init__(self, text: str, *, kind: str = "GenericError") -> None:
        super().__init__(text)
        self.text = text
        self.kind = kind


@dataclass(slots=True)
class Vcpu:
    """A vCPU: its thread ends when the event is set."""

    tid: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class Machine:
    """The state of the guest that is not there, and the answers about it."""

    def __init__(self, opts: dict[str, list[str]]) -> None:
        smp = opts.get("smp", ["1"])[0]
        topology = fields(smp)
        self.cores = int(topology.get("cores", "1"))
        self.most = int(topology.get("maxcpus", "1"))
        self.boots_with = int(topology.get("cpus", smp.split(",")[0]))
        self.devices = opts.get("device", [])
        self.stays = "no-shutdown" in opts
        self.reboots = "no-reboot" not in opts
        self.acpi = "acpi=off" not in opts.get("machine", [""])[0]
        self.names_threads = "debug-threads=on" in opts.get("name", [""])[0]
        self.paused = "S" in opts
        self.status = "prelaunch" if self.paused else "running"
        if "incoming" in opts:
            self.status = "inmigrate"
        self.migration = ""
        self.vcpus: dict[int, Vcpu] = {}
        self.plugged: dict[str, int] = {}  # index by the id of its device
        self.powerdown_at: float | None = None
        self.ended = False
        self.events: list[Values] = []

    # -- threads ---------------------------------------------------------------------------------

    def start_threads(self) -> None:
        """QEMU's threads by their names; an iothread's name is too long, so it stays `kvm`."""
        threading.stack_size(64 * 1024)
        for name in ("call_rcu", "IO mon_iothread"):
            self._thread(name, threading.Event())
        for index in range(self.boots_with):
            self._start_vcpu(index)
        for device in self.devices:
            driver = device.split(",", 1)[0]
            self._plug({"driver": driver, **fields(device)})
        self._thread("kvm", threading.Event())

    def _start_vcpu(self, index: int) -> None:
        vcpu = self.vcpus[index] = Vcpu()
        vcpu.tid = self._thread(f"CPU {index}/KVM", vcpu.ended)

    def _thread(self, name: str, ended: threading.Event) -> int:
        ready = threading.Event()
        thread = threading.Thread(target=self._sleep, args=(name, ready, ended), daemon=True)
        thread.start()
        ready.wait()
        assert thread.native_id is not None
        return thread.native_id

    def _sleep(self, name: str, ready: threading.Event, ended: threading.Event) -> None:
        if self.names_threads:
            with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
                file.write(name)
        ready.set()
        ended.wait()

    # -- what happens ----------------------------------------------------------------------------

    def emit(self, name: str, **data: object) -> None:
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        event: Values = {"timestamp": stamp, "event": name}
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

    def arrived(self, state: bytes) -> None:
        """A migration's stream has come, or broken off."""
        if not state:
            self.ended = True
            return
        was_running = state == b"running"
        self.status = "running" if was_running and not self.paused else "paused"

    # -- commands --------------------------------------------------------------------------------

    def answer(self, command: str, arguments: Values) -> object:
        """The answer to a command. Refused."""
        if command not in _COMMANDS:
            raise Refused(f"The command {command} has not been found", kind="CommandNotFound")
        result = _COMMANDS[command](self, arguments)
        return {} if result is None else result

    def _query_status(self, _arguments: Values) -> object:
        return {"status": self.status, "running": self.status == "running"}

    def _query_cpus(self, _arguments: Values) -> object:
        return [
            {
                "thread-id": vcpu.tid,
                "cpu-index": index,
                "qom-path": f"/machine/unattached/device[{index}]",
                "target": "x86_64",
                "props": {
                    "socket-id": index // self.cores,
                    "core-id": index % self.cores,
                    "thread-id": 0,
                },
            }
            for index, vcpu in sorted(self.vcpus.items())
        ]

    def _powerdown(self, _arguments: Values) -> None:
        self.emit("POWERDOWN")
        if self.acpi and self.status == "running":
            self.powerdown_at = time.monotonic() + GUEST_SHUTDOWN_S

    def _reset(self, *, by_guest: bool, reason: str) -> None:
        if self.reboots:
            self.emit("RESET", guest=by_guest, reason=reason)
        else:
            self.shut_down(by_guest=by_guest, reason=reason)

    def _host_reset(self, _arguments: Values) -> None:
        self._reset(by_guest=False, reason="host-qmp-system-reset")

    def _nmi(self, _arguments: Values) -> None:
        if self.status == "running":
            self._reset(by_guest=True, reason="guest-reset")

    def _stop(self, _arguments: Values) -> None:
        if self.status == "running":
            self.status = "paused"
            self.emit("STOP")

    def _cont(self, _arguments: Values) -> None:
        if self.status in {"paused", "prelaunch", "postmigrate"}:
            self.status = "running"
            self.emit("RESUME")

    def _quit(self, _arguments: Values) -> None:
        self.shut_down(by_guest=False, reason="host-qmp-quit")

    def _plug(self, arguments: Values) -> None:
        driver, name = str(arguments.get("driver")), str(arguments.get("id"))
        if not driver.endswith("-x86_64-cpu"):
            return
        index = int(str(arguments["socket-id"])) * self.cores + int(str(arguments["core-id"]))
        if name in self.plugged:
            raise Refused(f"Duplicate device ID '{name}'")
        if index in self.vcpus or index >= self.most:
            raise Refused(f"CPU[{index}] exists, or is more than the machine can have")
        self._start_vcpu(index)  # by the main thread, whose mask it inherits
        self.plugged[name] = index

    def _unplug(self, arguments: Values) -> None:
        name = str(arguments.get("id"))
        if name not in self.plugged:
            raise Refused(f"Device '{name}' not found")
        if self.acpi and self.status == "running":
            self.vcpus.pop(self.plugged.pop(name)).ended.set()
            self.emit("DEVICE_DELETED", device=name, path=f"/machine/peripheral/{name}")

    def _migrate(self, arguments: Values) -> None:
        """Send all there is of the guest: whether it runs."""
        kind, _, target = str(arguments.get("uri")).partition(":")
        state = self.status.encode()
        self.migration = "failed"
        if kind == "exec":
            if subprocess.run(["/bin/sh", "-c", target], input=state, check=False).returncode:
                return
        elif kind == "unix":
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(target)
                peer.sendall(state)
        else:
            raise Refused(f"unknown migration protocol: {kind}")
        self.migration, self.status = "completed", "postmigrate"

    def _query_migrate(self, _arguments: Values) -> object:
        return {"status": self.migration} if self.migration else {}


_COMMANDS: dict[str, Callable[[Machine, Values], object]] = {
    "cont": Machine._cont,
    "device_add": Machine._plug,
    "device_del": Machine._unplug,
    "inject-nmi": Machine._nmi,
    "migrate": Machine._migrate,
    "query-cpus-fast": Machine._query_cpus,
    "query-migrate": Machine._query_migrate,
    "query-status": Machine._query_status,
    "quit": Machine._quit,
    "stop": Machine._stop,
    "system_powerdown": Machine._powerdown,
    "system_reset": Machine._host_reset,
}


class Incoming:
    """Where a migration's stream comes from: readable once it comes, then read in one go."""

    def __init__(self, uri: str) -> None:
        kind, _, source = uri.partition(":")
        self._child: subprocess.Popen[bytes] | None = None
        self._server: socket.socket | None = None
        if kind == "exec":
            self._child = subprocess.Popen(["/bin/sh", "-c", source], stdout=subprocess.PIPE)
        else:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(source)
            self._server.listen(1)

    def fileno(self) -> int:
        if self._server:
            return self._server.fileno()
        assert self._child
        assert self._child.stdout
        return self._child.stdout.fileno()

    def read(self) -> bytes:
        """All of it, up to its end."""
        if self._child:
            return self._child.communicate()[0]
        assert self._server
        with self._server, self._server.accept()[0] as peer:
            return b"".join(iter(lambda: peer.recv(4096), b""))
