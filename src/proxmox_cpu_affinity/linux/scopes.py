"""Confinement by the guest's systemd scope: AllowedCPUs on `VMID.scope` in `qemu.slice`.

It holds for threads and helpers that come later, and comes back by itself after a CPU was offline,
which a thread's mask does not. What counts is read back: the scope's effective cpuset and the mask
of every thread. Out of scope: what to do where there is no systemd (masks).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
# Seconds between looks for a scope that was announced: it may be, before it has a control group.
_LOOKS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_SETTLES = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds: systemd writes after it answered


def unit_of(vmid: Vmid) -> str:
    return f"{vmid}.scope"


def _folder(vmid: Vmid) -> str:
    return f"sys/fs/cgroup/{SLICE}/{unit_of(vmid)}"


def vmid_of_unit(unit: str) -> Vmid | None:
    """The guest whose scope a unit would be by its name."""
    return vmid_of(unit.removesuffix(".scope")) if unit.endswith(".scope") else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A scope in PVE's slice. `allowed`: the CPUs it had when its first process entered it, None
    for no limit."""

    allowed: CpuSet | None


@dataclass(frozen=True, slots=True)
class Scopes:
    """Guests' scopes, and the masks of the threads in them."""

    tree: Tree
    systemd: Systemd
    masks: ThreadMasks
    # What systemd was asked for last, of each guest's run.
    _asked: dict[Vmid, tuple[GuestProcess, CpuSet]] = field(default_factory=dict)

    def there(self, vmid: Vmid) -> bool:
        """Whether anything runs in a scope of that name in PVE's slice, which prove it."""
        return bool((self.tree.text(f"{_folder(vmid)}/cgroup.procs") or "").strip())

    async def sighting(self, vmid: Vmid) -> Sighting | None:
        """The scope that UnitNew announced; None where nothing is in it after all.

        PVE's `systemctl stop` before each start announces one too, that never is. systemd is not
        asked: each question about a unit that is not there announces it once more. It writes the
        limit before the first process is let in (unit_realize_cgroup, unit_attach_pids).
        """
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            if await asyncio.to_thread(self.there, vmid):
                return Sighting(await asyncio.to_thread(self._cpus, vmid, "cpuset.cpus"))
        return None

    def effective(self, vmid: Vmid) -> CpuSet | None:
        """The CPUs of the scope's cpuset as the kernel applies it; None where it sets none."""
        if self._cpus(vmid, "cpuset.cpus") is None:
            return None
        return self._cpus(vmid, "cpuset.cpus.effective")

    def _cpus(self, vmid: Vmid, name: str) -> CpuSet | None:
        return self._listed(f"{_folder(vmid)}/{name}")

    def _listed(self, path: str) -> CpuSet | None:
        text = (self.tree.text(path) or "").strip()
        try:
            return CpuSet.parse(text) if text else None
        except SyntaxFault:
            return None

    def holds(self, process: GuestProcess) -> bool:
        """Whether the process runs in its guest's scope (cgroup v2)."""
        text = self.tree.text(f"proc/{process.pid}/cgroup") or ""
        return f"0::/{SLICE}/{unit_of(process.vmid)}" in text.splitlines()

    async def enclose(self, vmid: Vmid, cpus: CpuSet) -> CpuSet | None:
        """Confine the scope, whatever runs in it; its effective CPUs as read back. No CPUs take
        the limit off.

        One call on the bus, two to take it off. None where the kernel sets no limit in the end,
        or none was wished. SystemdError.
        """
        if not cpus:
            await self.lift(vmid)
            return None
        await self.systemd.allow(unit_of(vmid), cpus)
        for pause in _SETTLES:
            await asyncio.sleep(pause)
            if await asyncio.to_thread(self._cpus, vmid, "cpuset.cpus") == cpus:
                break
        return await asyncio.to_thread(self.effective, vmid)

    async def lift(self, vmid: Vmid) -> None:
        """Take the limit off the scope. SystemdError.

        systemd (257) writes nothing for a unit that wants no limit while one beside it has one, and
        the kernel keeps the last: so all CPUs are allowed first, also those that may come yet. As
        long as it has not written them nothing else is asked of it, or it never would.
        """
        limit = await asyncio.to_thread(self._cpus, vmid, "cpuset.cpus")
        possible = await asyncio.to_thread(self._listed, "sys/devices/system/cpu/possible")
        if limit is not None and possible is not None:
            await self.enclose(vmid, possible)
            if await asyncio.to_thread(self._limited, vmid, possible):
                return
        await self.systemd.allow(unit_of(vmid), EMPTY)

    def _limited(self, vmid: Vmid, free: CpuSet) -> bool:
        """Whether the scope itself keeps its guest from any of these CPUs."""
        limit = self._cpus(vmid, "cpuset.cpus")
        return limit is not None and not free <= limit

    def _beside(self, vmid: Vmid, free: CpuSet) -> bool:
        """Whether another guest's scope is limited: the controller stays for all of them then."""
        units = self.tree.listing(f"sys/fs/cgroup/{SLICE}")
        others = (vmid_of_unit(unit) for unit in units if unit != unit_of(vmid))
        return any(self._limited(other, free) for other in others if other is not None)

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        """Confine the scope, pin vCPU threads if the placement says so, read everything back.

        Threads are set only where they differ once the cpuset is in force: a mask of their own,
        inherited from whoever started QEMU, or their vCPU's. systemd is asked once for a run and a
        set, and again where the kernel has another: each time it writes a file and tells the bus.
        """
        vmid, asked = process.vmid, (process, placement.applied)
        first, limit, effective = await asyncio.to_thread(self._seen, process)
        if limit != placement.applied or self._asked.get(vmid) != asked:
            self._asked.pop(vmid, None)
            try:
                effective = await self.enclose(vmid, placement.applied)
            except SystemdError as error:
                return _failed(process, placement.applied, error.text)
            self._asked[vmid] = asked
        done = await asyncio.to_thread(self.masks.confine, process, placement)
        if effective is None or not effective <= placement.applied:
            done = _partly(process, done, f"its cpuset is {effective or 'unset'}")
        return replace(done, confinement=Confinement.SCOPE, found=first, limit=limit)

    def _seen(
        self, process: GuestProcess
    ) -> tuple[tuple[tuple[Tid, CpuSet], ...], CpuSet | None, CpuSet | None]:
        """The masks of the guest's threads, its scope's limit, and its effective CPUs."""
        limit = self._cpus(process.vmid, "cpuset.cpus")
        return self.masks.found(process), limit, self.effective(process.vmid)

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        """Take the limit off the scope, then give the threads what they had before.

        Kernels before 6.2 overwrote thread masks with the cpuset, so they are set in any case, and
        until they stay: systemd takes the limit off, and the controller away, when it gets to it.
        """
        self._asked.pop(process.vmid, None)
        try:
            await self.lift(process.vmid)
        except SystemdError as error:
            return _failed(process, free, error.text)
        beside = await asyncio.to_thread(self._beside, process.vmid, free)
        done, limited = _failed(process, free, "no thread was found"), False
        for pause in _SETTLES:
            await asyncio.sleep(pause)
            limit = await asyncio.to_thread(self._cpus, process.vmid, "cpuset.cpus")
            limited = limit is not None and not free <= limit
            done = await asyncio.to_thread(self.masks.undo, process, found, free)
            changed = await asyncio.to_thread(self.masks.found, process) != done.found
            gone = limit is None or (beside and not limited)
            if done.outcome is Outcome.FULL and gone and not changed:
                break
        return _partly(process, done, "its scope is limited still") if limited else done


def _partly(process: GuestProcess, done: Confined, reason: str) -> Confined:
    """What was done of the threads, where their scope is not as it should be."""
    fault = ThreadFault(Tid(process.pid), "scope", reason)
    outcome = Outcome.PART if done.outcome is Outcome.FULL else done.outcome
    return replace(done, outcome=outcome, faults=(fault, *done.faults))


def _failed(process: GuestProcess, wanted: CpuSet, reason: str) -> Confined:
    fault = ThreadFault(Tid(process.pid), "scope", reason)
    return Confined(process, wanted, Outcome.FAILED, Confinement.NONE, 0, (fault,))
