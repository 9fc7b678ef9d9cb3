"""PCA_WIDEN: after each scan, how much guests waited for CPUs since the one before."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from proxmox_cpu_affinity.model.placement import Widen
from proxmox_cpu_affinity.ports import WaitingReader
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.events import Event, Waited
from proxmox_cpu_affinity.service.log import log


@dataclass(slots=True)
class Waiting:
    """Asks the kernel where the settings want it, and lets the brain know."""

    reader: WaitingReader
    state: Callable[[], State]
    feed: Callable[[Event], Coroutine[None, None, None]]
    _said: bool = False

    async def look(self) -> None:
        state = self.state()
        if state.host.rules.widening.when is Widen.OFF:
            return
        processes = [t.process for t in state.tracked.values() if t.process is not None]
        now = time.monotonic()
        shares = await asyncio.to_thread(self.reader.waited, processes, now)
        if self.reader.by_threads and not self._said:
            self._said = True
            log.warning(
                "no cpu.pressure for some guests' scopes: PCA_WIDEN goes by the vCPU thread that"
                " waits longest"
            )
        await self.feed(Waited(now, shares))
