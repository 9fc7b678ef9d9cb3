"""Which means of confinement a guest gets: its systemd scope where it runs in one, else masks."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.scopes import Scopes
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Tid
from proxmox_cpu_affinity.model.placement import Confined, Confinement, Placement


@dataclass(slots=True)
class GuestConfiner:
    """Confines guests one way or the other. `scopes` is None while systemd is out of reach."""

    masks: ThreadMasks
    scopes: Scopes | None = None

    @property
    def means(self) -> Confinement:
        """What a guest in a scope of its own is held by."""
        return Confinement.THREADS if self.scopes is None else Confinement.SCOPE

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        scopes = await self._scopes_of(process)
        if scopes is not None:
            return await scopes.confine(process, placement)
        return await asyncio.to_thread(self.masks.confine, process, placement)

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        scopes = await self._scopes_of(process)
        if scopes is not None:
            return await scopes.undo(process, found, free)
        return await asyncio.to_thread(self.masks.undo, process, found, free)

    async def threads(self, process: GuestProcess) -> tuple[Thread, ...]:
        return await asyncio.to_thread(self.masks.threads, process)

    async def _scopes_of(self, process: GuestProcess) -> Scopes | None:
        if self.scopes is None or not await asyncio.to_thread(self.scopes.holds, process):
            return None
        return self.scopes
