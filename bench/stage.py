"""What is measured on: a simulated node with the real service, and the smallest possible guests."""

import os
import resource
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.running import Running

from proxmox_cpu_affinity.model.guest import HOOK_FILE
from proxmox_cpu_affinity.sim import hookscript, node
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind

SYSTEM = Path("/usr/bin/python3")
QUIET = "PCA_LOG_LEVEL=warn\n"


@contextmanager
def simulated() -> Iterator[Node]:
    with (
        tempfile.TemporaryDirectory(prefix="pca-bench-") as name,
        node.create(Path(name) / "n", guest=GuestKind.STANDIN) as made,
    ):
        yield made


def hook_of(made: Node) -> tuple[str, str]:
    """Install the hook as Debian runs it; its volume and its path."""
    volume = hookscript.install(made)
    path = made.path(f"/var/lib/vz/snippets/{HOOK_FILE}")
    if SYSTEM.exists():
        lines = path.read_text().splitlines()
        named = [
            f"python={shlex.quote(str(SYSTEM))}" if line.startswith("python=") else line
            for line in lines
        ]
        path.write_text("\n".join([*named, ""]))
    return volume, str(path)


def python() -> str:
    """The interpreter that the hook is run by."""
    return str(SYSTEM) if SYSTEM.exists() else "python3"


class Guests:
    """Processes that pass for guests."""

    def __init__(self, made: Node, volume: str = "") -> None:
        self.node, self.volume = made, volume
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def configure(self, vmid: int) -> None:
        text = f"cores: 1\nhookscript: {self.volume}\n" if self.volume else "cores: 1\n"
        self.node.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text(text)

    def start(self, vmid: int) -> None:
        """Return when the kernel shows it under its own arguments."""
        pidfile = self.node.path(f"/run/qemu-server/{vmid}.pid")
        words = ["/usr/bin/kvm", "-c", "read x", "-pidfile", str(pidfile)]
        process = subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE)
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"/usr/bin/kvm"):
            os.sched_yield()
        pidfile.write_text(f"{process.pid}\n")
        self.running[vmid] = process

    def end(self, vmid: int) -> None:
        process = self.running.pop(vmid)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        self.node.path(f"/run/qemu-server/{vmid}.pid").unlink()

    def start_many(self, count: int) -> None:
        for vmid in range(100, 100 + count):
            self.configure(vmid)
            self.start(vmid)

    def end_all(self) -> None:
        for vmid in list(self.running):
            self.end(vmid)


@contextmanager
def serving(made: Node, settings: str = QUIET) -> Iterator[Running]:
    with Running(made, settings=settings) as service:
        yield service
        service.end()


@dataclass(slots=True)
class Times:
    """Milliseconds of some runs: on the wall, and of the CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, wall: float, cpu: float) -> None:
        self.wall.append(wall)
        self.cpu.append(cpu)


def ran(words: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall and CPU ms of a program with both outputs as pipes, as PVE runs hooks."""
    before, began = _children(), time.perf_counter()
    subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=True
    )
    return (time.perf_counter() - began) * 1000, (_children() - before) * 1000


def _children() -> float:
    """CPU seconds of the children that have ended and been waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
