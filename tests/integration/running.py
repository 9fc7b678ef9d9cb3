"""A real service process for tests: started on a node, asked over its listeners, ended by pid."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node

PATIENCE = 20.0  # seconds: no test asserts a time, but none may wait for ever


class Over(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.body = reply.read()

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def list(self) -> list[dict[str, object]]:
        found = json.loads(self.body)
        assert isinstance(found, list)
        return found


class Running:
    """One service on one node."""

    def __init__(self, node: Node, *flags: str, settings: str = "") -> None:
        self.node = node
        self.flags = flags
        folder = node.path("/etc/default")
        folder.mkdir(parents=True, exist_ok=True)
        # Machines of few CPUs have guests share, and what is asked here is who got which CPU.
        width = "" if "PCA_WIDTH" in settings else "PCA_WIDTH=exact\n"
        (folder / "proxmox-cpu-affinity").write_text(settings + width)
        self.output = node.path("/var/log/service.out")
        self.start()

    @property
    def program(self) -> tuple[str, ...]:
        """The module that is run, and its first arguments."""
        return ("proxmox_cpu_affinity.service.main",)

    def start(self) -> None:
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", *self.program),
                    *("--root", str(self.node.root), "--port", "0", *self.flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.wait_for(lambda: self.answers() or self.process.poll() is not None)

    def answers(self) -> bool:
        try:
            return self.get("/api/v1/ping").status == 200
        except OSError:
            return False

    @property
    def socket(self) -> Path:
        return self.node.path("/run/proxmox-cpu-affinity/api.sock")

    @property
    def port(self) -> int:
        return int(self.node.path("/run/proxmox-cpu-affinity/port").read_text())

    @property
    def token(self) -> str:
        return self.node.path("/run/proxmox-cpu-affinity/token").read_text().strip()

    @property
    def log(self) -> str:
        return self.output.read_text()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        tcp: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        there = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            if tcp
            else Over(self.socket)
        )
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
        try:
            there.request(method, path, data, headers or {})
            return Answer(there.getresponse())
        finally:
            there.close()

    def get(self, path: str, *, tcp: bool = False) -> Answer:
        return self.ask("GET", path, tcp=tcp)

    def post(self, path: str, body: object = None) -> dict[str, object]:
        answer = self.ask("POST", path, {} if body is None else body)
        assert answer.status == 200, answer.body
        return answer.json

    def guest(self, vmid: int) -> dict[str, object]:
        return self.get(f"/api/v1/guests/{vmid}").json

    def confirms(self, *vmids: int) -> None:
        """Wait until these guests are read back as confined: a start answers before it scans."""
        self.wait_for(lambda: all(self.guest(vmid)["outcome"] == "full" for vmid in vmids))

    def says(self, text: str) -> None:
        """Wait until the log has these words: an answer may come before its line is written."""
        self.wait_for(lambda: text in self.log)

    def kill(self) -> None:
        """SIGKILL: no clean end of anything."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    @staticmethod
    def wait_for(condition: object) -> None:
        """Until a condition holds; fails after a patience that no assertion is about."""
        assert callable(condition)
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.02)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


def add_guest(
    node: Node,
    vmid: int,
    *,
    cores: int = 1,
    hook: bool = True,
    options: dict[str, str] | None = None,
) -> None:
    """Create a guest, with our hookscript unless told otherwise."""
    extra = [word for name, value in (options or {}).items() for word in (f"--{name}", value)]
    node.do("create", vmid, "--cores", cores, "--memory", 64, *extra)
    if hook:
        node.do("set", vmid, "--hookscript", hookscript.install(node))


def masks(node: Node, vmid: int) -> dict[str, set[int]]:
    """The kernel's mask of every thread of a guest: TID and name to CPUs."""
    pid = node.pid(vmid)
    assert pid is not None, f"guest {vmid} does not run"
    return masks_of(pid)


def masks_of(pid: int) -> dict[str, set[int]]:
    """The same of a process, from /proc; QEMU's pool threads come and go meanwhile."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = (task / "status").read_text()
            words = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            key = f"{task.name} {words['Name'].strip()}"
            found[key] = cpus_of(words["Cpus_allowed_list"].strip())
    assert found, f"process {pid} has no threads"
    return found


def cpus_of(text: str) -> set[int]:
    """A cpulist, read by a parser of the tests' own."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found
