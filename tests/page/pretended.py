"""A stand-in for hosts that are larger than this machine: the service on CPUs that are made up.

    python -m tests.page.pretended ROOT SPEC FLAGS...

Everything is the product's own code but the kernel's part: the host is generated (sim.hosts), its
latencies are predicted with some noise, guests are all this one process, confining them always
comes out in full, and /proc/stat is rewritten with made-up loads. For screenshots, and for tests of
what the page makes of large hosts. Nothing that is said of confining or of load is shown by it.
"""

import os
import random
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.linux.threads import stat_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import GuestNotFoundError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Pid, Tid, Vmid
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.model.placement import Confined, Confinement, Outcome, Placement
from proxmox_cpu_affinity.service import app, host, main, world
from proxmox_cpu_affinity.service.host import HostWatch
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.service.world import World
from proxmox_cpu_affinity.sim.hosts import HostSpec, generate, parse_spec
from proxmox_cpu_affinity.store import JsonFile

SCAN_EVERY = 0.5  # seconds: CPUs that are made up send no messages
STAT_EVERY = 1.0
_KINDS = (
    ("db", 8, "cpu-dedicated"),
    ("web", 2, ""),
    ("mail", 4, ""),
    ("build", 6, ""),
    ("rt", 2, "cpu-pinned"),
    ("cache", 4, ""),
    ("desk", 2, ""),
    ("k8s", 8, ""),
)


def lay_out(root: Path, spec: HostSpec) -> None:
    """The host's sysfs below a root; the list of what is online last, for that is looked at."""
    files = {path: text for path, text in generate(spec).items() if path.startswith("sys/")}
    last = "sys/devices/system/cpu/online"
    for path in (*(path for path in files if path != last), last):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path] + "\n")
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        named = f"sys/devices/system/cpu/{folder.name}/"
        for file in list(folder.rglob("*")):
            if file.is_file() and str(file.relative_to(root)) not in files:
                file.unlink()  # of a CPU that went offline
        if not any(path.startswith(named) for path in files):
            for inner in sorted(folder.rglob("*"), reverse=True):
                inner.rmdir()
            folder.rmdir()


def guests_for(cpus: int) -> dict[Vmid, GuestConfig]:
    """Guests that fill three quarters of so many CPUs, one that is not managed, and one more."""
    found: dict[Vmid, GuestConfig] = {}
    left, turn = cpus * 3 // 4, 0
    while left > 0:
        name, cores, tag = _KINDS[turn % len(_KINDS)]
        cores = min(cores if cpus > 32 else max(1, cores // 2) if cpus > 8 else 1, left)
        vmid = Vmid(100 + len(found))
        label = f"{name}-{turn // len(_KINDS) + 1:02}"
        found[vmid] = GuestConfig(
            vmid, "pve", label, cores=cores, tags=("cpu-affinity", *((tag,) if tag else ()))
        )
        left, turn = left - cores, turn + 1
    odd = os.environ.get("PRETENDED_NAME", "archive")
    for name, tags in (("legacy", ("cpu-affinity-off",)), (odd, ("cpu-affinity",))):
        vmid = Vmid(900 + len(found))
        found[vmid] = GuestConfig(vmid, "pve", name, cores=1, tags=tags)
    return found


@dataclass(frozen=True, slots=True)
class Guests:
    """Guests that are all this process."""

    tree: Tree
    found: Mapping[Vmid, GuestConfig]
    running: threading.Event  # once they were looked for: the service has nothing to adopt
    node: str = "pve"

    def configs(self) -> tuple[Mapping[Vmid, GuestConfig], frozenset[Vmid]]:
        return self.found, frozenset()

    def config(self, vmid: Vmid) -> GuestConfig:
        if vmid not in self.found:
            raise GuestNotFoundError(f"there is no guest {vmid} on this node")
        return self.found[vmid]

    def processes(self) -> Mapping[Vmid, GuestProcess]:
        found = {vmid: self.process(vmid) for vmid in self.found}
        self.running.set()
        return {vmid: process for vmid, process in found.items() if process is not None}

    def process(self, vmid: Vmid) -> GuestProcess | None:
        config = self.config(vmid)
        stat = stat_of(self.tree, Pid(os.getpid()))
        if "cpu-affinity" not in config.tags or stat is None or not self.running.is_set():
            return None
        return GuestProcess(vmid, Pid(os.getpid()), stat.start_time)


@dataclass(frozen=True, slots=True)
class Confiner:
    """Says that it succeeded."""

    means: Confinement = Confinement.SCOPE

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        count = len(placement.order)
        return Confined(process, placement.applied, Outcome.FULL, self.means, count + 3)

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        del found
        return Confined(process, free, Outcome.FULL, self.means, 4)

    async def threads(self, process: GuestProcess) -> Sequence[Thread]:
        everywhere = CpuSet.of(range(os.cpu_count() or 1))
        return (Thread(Tid(process.pid), "CPU 0/KVM", everywhere),)


class Host(HostWatch):
    """A host whose matrix passes for a measured one."""

    def read(self) -> None:
        super().read()
        chance, matrix = random.Random(1), self.matrix
        count, ns = len(matrix.cpus), matrix.ns[:]
        for i in range(count):
            for j in range(i + 1, count):
                value = round(ns[i * count + j] * chance.uniform(0.94, 1.07), 1)
                ns[i * count + j] = ns[j * count + i] = value
        measured = bytearray([1]) * count**2
        measured[:: count + 1] = bytes(count)  # the diagonal
        made = replace(
            matrix, ns=ns, measured=bytes(measured), verdict=Verdict.TRUSTED, conditions=()
        )
        self._latest = replace(self._known, matrix=made, from_cache=True)


def write_loads(root: Path, cpus: CpuSet) -> None:
    """/proc/stat, again and again: guests of equal CPUs are equally busy, more or less."""
    chance = random.Random(2)
    usual = {cpu: chance.choice((0.03, 0.2, 0.45, 0.7, 0.95)) for cpu in cpus}
    busy, idle = dict.fromkeys(cpus, 0.0), dict.fromkeys(cpus, 0.0)
    while True:
        for cpu in cpus:
            share = min(1.0, max(0.0, usual[cpu] + chance.uniform(-0.05, 0.05)))
            busy[cpu] += 100 * share
            idle[cpu] += 100 * (1 - share)
        lines = [f"cpu{cpu} {busy[cpu]:.0f} 0 0 {idle[cpu]:.0f} 0 0 0 0 0 0" for cpu in cpus]
        fresh = root / "proc/stat.new"
        fresh.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n" + "\n".join(lines) + "\n")
        fresh.replace(root / "proc/stat")
        time.sleep(STAT_EVERY)


def run(root: Path, spec: HostSpec, flags: Sequence[str]) -> int:
    lay_out(root, spec)
    for folder in ("proc", "var/log"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / f"proc/{os.getpid()}").symlink_to(f"/proc/{os.getpid()}")
    text = generate(spec)[CPUINFO]
    named = re.sub("Generated .*", f"Made-up host of {spec.count} CPUs", text)
    (root / CPUINFO).write_text(named)
    tree = Tree(root)

    def pretended(paths: Paths) -> World:
        guests = Guests(tree, guests_for(spec.count), threading.Event())
        watch = Host(tree, JsonFile(paths.matrix))
        return World(tree, guests, Confiner(), JsonFile(paths.state), watch)

    loads = threading.Thread(target=write_loads, args=(root, spec.present()), daemon=True)
    loads.start()
    with (
        patch.object(world, "world_below", pretended),
        patch.object(app, "SCAN_EVERY", SCAN_EVERY),
        patch.object(host, "own_cpus", spec.present),
    ):
        return main.main(["--root", str(root), "--port", "0", *flags])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), parse_spec(sys.argv[2]), sys.argv[3:]))
