"""How busy the CPUs are, from /proc/stat: read every EVERY seconds, only while somebody listens."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats.procfs import CpuTimes, busy_between, cpu_times
from proxmox_cpu_affinity.formats.wire_events import LoadEvent
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ExhaustedError

EVERY = 2.0  # seconds
_HEAD = 256 * 1024  # bytes of /proc/stat: the CPUs' lines come first (proc(5))


@dataclass(slots=True)
class LoadWatch:
    """Tells of the load from `begin` to `end`."""

    tree: Tree
    tell: Callable[[LoadEvent], None]
    _task: "asyncio.Task[None] | None" = field(default=None)

    def begin(self) -> None:
        self.end()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        before: CpuTimes = {}
        while True:
            # The kernel takes its time for it on a large host: it sums up all interrupts.
            try:
                text = await asyncio.to_thread(self.tree.head, "proc/stat", _HEAD)
            except ExhaustedError:
                text = None  # the readers are told again as soon as it can be read
            now = cpu_times(text or "")
            busy = busy_between(before, now)
            if busy:
                shares = [round(share, 3) for share in busy.values()]
                self.tell(LoadEvent(cpus=list(busy), busy=shares))
            before = now
            await asyncio.sleep(EVERY)
