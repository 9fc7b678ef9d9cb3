"""Measures until the latencies can be trusted: at once, then again and again, less and less often.

Out of scope: how a host is measured (latency.probe) and which matrix is kept (service.host).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.threads import family_of, threads_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid

FIRST, MOST = 60.0, 3600.0
"""Seconds until an unstable measurement is made again: doubled each time, up to the second."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What measuring once came to."""

    changed: bool  # the matrix is another one now
    settled: bool  # measuring again would tell nothing new


@dataclass(slots=True)
class UntilSettled:
    """At most one measurement at a time; asking while one is under way has it made again."""

    once: Callable[[], Awaitable[Attempt]]
    changed: Callable[[], Awaitable[None]]  # told when the matrix is another one
    first: float = FIRST
    pause: Callable[[float], Awaitable[None]] = field(init=False)
    _active: bool = False
    _again: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.pause = self._pause

    async def run(self) -> None:
        """Return when the latencies are settled; at once, where another one does the work."""
        if self._active:
            self._again.set()
            return
        self._active = True
        try:
            await self._repeat()
        finally:
            self._active = False

    async def _repeat(self) -> None:
        pause = self.first
        while True:
            self._again.clear()
            attempt = await self.once()
            if attempt.changed:
                await self.changed()
            if self._again.is_set():
                continue
            if attempt.settled:
                return
            await self.pause(pause)
            pause = self.first if self._again.is_set() else min(2 * pause, MOST)

    async def _pause(self, seconds: float) -> None:
        """Wait; asking ends it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), seconds)


def used_by(tree: Tree, processes: Mapping[Vmid, GuestProcess], but: Iterable[Vmid]) -> CpuSet:
    """CPUs that running guests may be run on, as the kernel says; without those named by `but`."""
    used = EMPTY
    for vmid in processes.keys() - set(but):
        for pid in family_of(tree, processes[vmid].pid):
            for thread in threads_of(tree, pid):
                used |= thread.affinity
    return used
