"""Confinement by the guest's systemd scope: AllowedCPUs on `VMID.scope` in `qemu.slice`.

It holds for threads and helpers that come later, and comes back by itself after a CPU was offline,
which a thread's mask does not. What counts is read back: the scope's effective cpuset and the mask
of every thread. Out of scope: what to do where there is no systemd (masks).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.systemd import Systemd
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, SystemdError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Tid, Vmid, vmid_of
from proxmox_cpu_affinity.model.placement import (
    Confined,
    Confinement,
    Outcome,
    Placement,
    ThreadFault,
)

SLICE = "qemu.slice"
_CGROUP = "sys/fs/cgroup"
_SETTLES = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds: systemd writes after it answered


def unit_of(vmid: Vmid) -> str:
    return f"{vmid}.scope"


def vmid_of_unit(unit: str) -> Vmid | None:
    """The guest whose scope a unit would be by its name."""
    return vmid_of(unit.removesuffix(".scope")) if unit.endswith(".scope") else None


@dataclass(frozen=True, slots=True)
class Scopes:
    """Guests' scopes, and the masks of the threads in them."""

    tree: Tree
    systemd: Systemd
    masks: ThreadMasks

    def there(self, vmid: Vmid) -> bool:
        """Whether the guest's scope is in PVE's slice: name and slice prove it."""
        return bool(self.tree.listing(f"{_CGROUP}/{SLICE}/{unit_of(vmid)}"))

    def effective(self, vmid: Vmid) -> CpuSet | None:
        """The CPUs of the scope's cpuset as the kernel applies it; None where it sets none."""
        folder = f"{_CGROUP}/{SLICE}/{unit_of(vmid)}"
        asked = (self.tree.text(f"{folder}/cpuset.cpus") or "").strip()
        text = self.tree.text(f"{folder}/cpuset.cpus.effective")
        if text is None or not asked:
            return None
        try:
            return CpuSet.parse(text.strip())
        except SyntaxFault:
            return None

    def holds(self, process: GuestProcess) -> bool:
        """Whether the process runs in its guest's scope (cgroup v2)."""
        text = self.tree.text(f"proc/{process.pid}/cgroup") or ""
        return f"0::/{SLICE}/{unit_of(process.vmid)}" in text.splitlines()

    async def enclose(self, vmid: Vmid, cpus: CpuSet) -> CpuSet | None:
        """Confine the scope, whatever runs in it; its effective CPUs as read back.

        One call on the bus. None where the kernel sets no limit in the end. SystemdError.
        """
        await self.systemd.allow(unit_of(vmid), cpus)
        seen: CpuSet | None = None
        for pause in _SETTLES:
            await asyncio.sleep(pause)
            seen = await asyncio.to_thread(self.effective, vmid)
            if seen is not None and seen <= cpus:
                break
        return seen

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        """Confine the scope, pin vCPU threads if the placement says so, read everything back.

        Threads are set only where they differ once the cpuset is in force: a mask of their own,
        inherited from whoever started QEMU, or their vCPU's.
        """
        first = await asyncio.to_thread(self.masks.found, process)
        try:
            effective = await self.enclose(process.vmid, placement.applied)
        except SystemdError as error:
            return _failed(process, placement.applied, error.text)
        done = await asyncio.to_thread(self.masks.confine, process, placement)
        if effective is None or not effective <= placement.applied:
            fault = ThreadFault(Tid(process.pid), "scope", f"its cpuset is {effective or 'unset'}")
            outcome = Outcome.PART if done.outcome is Outcome.FULL else done.outcome
            done = replace(done, outcome=outcome, faults=(fault, *done.faults))
        return replace(done, confinement=Confinement.SCOPE, found=first)

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        """Take the limit off the scope, then give the threads what they had before.

        Kernels before 6.2 overwrote thread masks with the cpuset, so they are set in any case.
        """
        try:
            await self.systemd.allow(unit_of(process.vmid), EMPTY)
        except SystemdError as error:
            return _failed(process, free, error.text)
        done = _failed(process, free, "no thread was found")
        for pause in _SETTLES:
            await asyncio.sleep(pause)
            done = await asyncio.to_thread(self.masks.undo, process, found, free)
            if done.outcome is Outcome.FULL:
                break
        return done


def _failed(process: GuestProcess, wanted: CpuSet, reason: str) -> Confined:
    fault = ThreadFault(Tid(process.pid), "scope", reason)
    return Confined(process, wanted, Outcome.FAILED, Confinement.NONE, 0, 0, (fault,))
