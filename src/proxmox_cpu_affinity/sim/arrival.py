"""A guest that comes from another node of the cluster: what that node does, which is a folder here.

After qemu-server's QemuMigrate: it starts the guest on this node over ssh, sends the RAM, gives its
configuration away, and lets the guest go on. The QEMU that sends it is a real one; its files lie
aside, so that nothing on this node takes it for a guest of its own. Out of scope: the way out
(migration), disks.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from proxmox_cpu_affinity.sim import configs, guests, lifecycle, processes, qmp, ramstate
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.tree import Tree

Completed = subprocess.CompletedProcess[str]
Qm = Callable[..., Completed]
_QEMU_START_S = 30.0


class Breaks(Enum):
    """Where a migration fails."""

    NOWHERE = auto()
    AT_START = auto()  # the target's start fails and the source is not heard of again
    ON_THE_WAY = auto()  # the RAM does not get through: the source goes on, and clears up here


@dataclass(frozen=True, slots=True)
class Arrival:
    """One guest's way from `source` to this node; `qm` runs that program here."""

    tree: Tree
    vmid: int
    source: str
    qm: Qm

    def move(self) -> None:
        """The offline migration: the configuration changes folders, and no hook runs."""
        configs.move(self.tree, self.vmid, source=self.source, target=self.tree.settings.name)

    def live(self, breaks: Breaks, meanwhile: Callable[[], None]) -> Completed:
        """The live migration; what this node's `qm start` said. `meanwhile` is called when that
        went well and the guest is still there. Fault, QmpError."""
        configs.check_node(self.tree, self.source)
        self._locked("migrate")
        with self._running() as monitor:
            answer = self._start(breaks)
            if breaks is Breaks.AT_START:
                return answer
            if answer.returncode == 0:
                meanwhile()
            if answer.returncode or breaks is Breaks.ON_THE_WAY:
                self.qm("stop", self.vmid, "--skiplock", "--migratedfrom", self.source)
                self._locked(None)
                return answer
            with qmp.Monitor(monitor) as conversation:
                ramstate.send(conversation, f"unix:{lifecycle.stream_of(self.tree, self.vmid)}")
            self.move()
            self.qm("resume", self.vmid, "--skiplock", "--nocheck")
        self.qm("unlock", self.vmid)
        return answer

    def _start(self, breaks: Breaks) -> Completed:
        words = ["--skiplock", "--migratedfrom", self.source, "--migration_type", "secure"]
        words += ["--stateuri", "unix"]
        words += ["--breaks"] if breaks is Breaks.AT_START else []
        return self.qm("start", self.vmid, *words)

    def _locked(self, lock: str | None) -> None:
        configs.update(self.tree, self.vmid, {"lock": lock}, node=self.source)

    @contextlib.contextmanager
    def _running(self) -> Iterator[Path]:
        """The guest on its node, as the path of its monitor; ended whatever happens."""
        aside = self.tree.root / "run" / "elsewhere"
        aside.mkdir(exist_ok=True)
        file = configs.load(self.tree, self.vmid, node=self.source)
        argv = guests.command(self.tree, self.vmid, file)
        moved = [word.replace(str(self.tree.run), str(aside)) for word in argv]
        # This node's qmeventd must not hear of it.
        moved = [word.replace(str(self.tree.qmeventd_socket), f"{aside}/none") for word in moved]
        done = subprocess.run(moved, stdin=subprocess.DEVNULL, timeout=_QEMU_START_S, check=False)
        if done.returncode:
            raise Fault(f"VM {self.vmid} did not start on {self.source}")
        pid = int((aside / f"{self.vmid}.pid").read_text())
        try:
            yield aside / f"{self.vmid}.qmp"
        finally:
            is_guest = processes.is_guest_of(self.tree)
            processes.end(pid, is_guest, signals=processes.AT_ONCE)
            for path in aside.glob(f"{self.vmid}.*"):
                path.unlink(missing_ok=True)
