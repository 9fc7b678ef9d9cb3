"""How busy the CPUs are, from /proc/stat: read every EVERY seconds, only while somebody listens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats.procfs import CpuTimes, busy_between, cpu_times
from proxmox_cpu_affinity.formats.wire_events import LoadEvent
from proxmox_cpu_affinity.linux.tree import Tree

EVERY = 2.0  # seconds
_HEAD = 256 * 1024  # bytes of /proc/stat: the CPUs' lines come first (proc(5))


@dataclass(slots=True)
class LoadWatch:
    """Tells of the load while it is switched on."""

    tree: Tree
    tell: Callable[[LoadEvent], None]
    _task: "asyncio.Task[None] | None" = field(default=None)

    def switch(self, on: bool) -> None:  # noqa: FBT001 # a listener's one word
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if on:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        before: CpuTimes = {}
        while True:
            now = cpu_times(self.tree.head("proc/stat", _HEAD) or "")
            busy = busy_between(before, now)
            if busy:
                shares = [round(share, 3) for share in busy.values()]
                self.tell(LoadEvent(cpus=list(busy), busy=shares))
            before = now
            await asyncio.sleep(EVERY)
