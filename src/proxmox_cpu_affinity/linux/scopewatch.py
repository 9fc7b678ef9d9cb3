"""The way to guests' scopes: reach systemd, hear of scopes, keep the drop-ins' directories.

systemd may be out of reach for good (a simulated node, another init, cgroup v1) or for a while
(its bus was restarted): then guests are held by thread masks, and `problem` says why. Out of
scope: what is to be done when a scope appears (reconcile.births).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from proxmox_cpu_affinity.linux.confine import GuestConfiner
from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.scopes import Scopes, Sighting, vmid_of_unit
from proxmox_cpu_affinity.linux.systemd import Listener, Systemd, running
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SystemdError
from proxmox_cpu_affinity.model.ids import Vmid

_CONTROLLERS = "sys/fs/cgroup/cgroup.controllers"


@dataclass(frozen=True, slots=True)
class Ears:
    """Whom to tell: of guests' scopes by VMID, and that systemd is out of reach."""

    appeared: Callable[[Vmid], None]
    removed: Callable[[Vmid], None]
    lost: Callable[[], None]


def hindrance(tree: Tree) -> str:
    """Why scopes can never be confined here; empty if they can."""
    if tree.root != Path("/"):
        return "a simulated node has no scopes"
    if not running():
        return "systemd is not the init system here"
    if "cpuset" not in (tree.text(_CONTROLLERS) or "").split():
        return "there is no cgroup v2 with cpusets here"
    return ""


@dataclass(slots=True)
class ScopeWatch:
    """One connection to systemd, made again when it was lost. The confiner is told of it."""

    tree: Tree
    confiner: GuestConfiner
    drop_ins: DropIns
    problem: str = "systemd has not been asked yet"
    _systemd: Systemd | None = None
    _known: set[Vmid] = field(default_factory=set)  # whose directories systemd has seen
    _signals: dict[Vmid, int] = field(default_factory=dict)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _reaching: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def scopes(self) -> Scopes | None:
        return self.confiner.scopes

    async def reach(self, ears: Ears) -> bool:
        """Connect and listen, if that is not so already; whether it is new. Two that ask at once,
        as a scan and whoever lost the bus may, get one connection."""
        async with self._reaching:
            return self._systemd is None and await self._reached(ears)

    async def _reached(self, ears: Ears) -> bool:
        listener = Listener(
            appeared=lambda unit: self._told(unit, ears.appeared),
            removed=lambda unit: self._told(unit, lambda vmid: self._gone(vmid, ears)),
        )
        systemd: Systemd | None = None
        try:
            systemd = await Systemd.connect()
            await systemd.listen(listener)
        except SystemdError as error:
            if systemd is not None:
                systemd.close()
            self.problem = error.text
            return False
        self._systemd, self.problem = systemd, ""
        self.confiner.scopes = Scopes(self.tree, systemd, self.confiner.masks)
        task = asyncio.create_task(self._until_lost(systemd, ears))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _gone(self, vmid: Vmid, ears: Ears) -> None:
        """Whoever still looks for that scope would find the next one."""
        self._signals[vmid] = self._signals.get(vmid, 0) + 1
        ears.removed(vmid)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._systemd is not None:
            self._systemd.close()
        self._systemd = self.confiner.scopes = None

    async def sighting(self, vmid: Vmid) -> Sighting | None:
        """The guest's scope as the kernel shows it; None where there is none after all, or where
        a later signal has it looked for too."""
        if self.scopes is None:
            return None
        signal = self._signals[vmid] = self._signals.get(vmid, 0) + 1
        found = await self.scopes.sighting(vmid)
        return found if self._signals[vmid] == signal else None

    async def announce(self, vmid: Vmid, cpus: CpuSet) -> None:
        """Let the guest's next scope be made with these CPUs. StoreError, SystemdError.

        Written before systemd looks: one that had looked in between would know the directory and
        not look again.
        """
        fresh = await asyncio.to_thread(self.drop_ins.write, vmid, cpus)
        if vmid in self._known and not fresh:
            return
        if self._systemd is not None:
            await self._systemd.look_again()
            self._known.add(vmid)

    async def _until_lost(self, systemd: Systemd, ears: Ears) -> None:
        self.problem = await systemd.lost()
        self._systemd = self.confiner.scopes = None
        ears.lost()

    @staticmethod
    def _told(unit: str, tell: Callable[[Vmid], None]) -> None:
        vmid = vmid_of_unit(unit)
        if vmid is not None:
            tell(vmid)
