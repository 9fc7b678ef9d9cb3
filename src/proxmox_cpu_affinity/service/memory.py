"""Memory that follows a guest to another node: one guest at a time, beside everything else."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.memory import memory_of, memory_on, move_pages_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.reconcile.actions import MoveMemory
from proxmox_cpu_affinity.reconcile.events import Event, MemoryMoved

KEEPS_FREE = 0.10  # share of a node's memory that is left free


@dataclass(slots=True)
class MemoryMover:
    """Moves the pages of guests; `is_there` looks again whether a process is the guest and belongs
    on these nodes."""

    tree: Tree
    is_there: Callable[[GuestProcess, frozenset[int]], bool]
    feed: Callable[[Event], Coroutine[None, None, None]]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def move(self, action: MoveMemory) -> None:
        """Move what is on other nodes, if there is room; answered by MemoryMoved."""
        pid = action.process.pid
        async with self._turn:
            before = after = await asyncio.to_thread(memory_of, self.tree, pid)
            problem = await asyncio.to_thread(self._hindrance, action, before)
            if not problem:
                problem = await self._moved(action)
                after = await asyncio.to_thread(memory_of, self.tree, pid)
        there = sum(after.get(node, 0.0) - before.get(node, 0.0) for node in action.onto)
        elsewhere = sum(mib for node, mib in after.items() if node not in action.onto)
        now = time.monotonic()
        await self.feed(MemoryMoved(now, action.process, action.onto, there, elsewhere, problem))

    def _hindrance(self, action: MoveMemory, memory: Mapping[int, float]) -> str:
        """Why nothing of this memory is to be moved; empty if it is."""
        if not self.is_there(action.process, action.onto):
            return "it is not there any more"
        coming = sum(mib for node, mib in memory.items() if node not in action.onto)
        rooms = [memory_on(self.tree, node) for node in action.onto]
        known = [room for room in rooms if room is not None]
        total, free = sum(room.total for room in known), sum(room.free for room in known)
        if len(known) < len(rooms) or free - coming < KEEPS_FREE * total:
            return f"{free:.0f} MiB are free there, and {KEEPS_FREE:.0%} are to stay free"
        return ""

    @staticmethod
    async def _moved(action: MoveMemory) -> str:
        """Why not all was moved. In a thread that the end of the service does not wait for."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            try:
                left = move_pages_of(action.process.pid, off=action.off, onto=action.onto)
                text = f"{left} pages could not be moved" if left else ""
            except OSError as error:
                text = error.strerror or str(error)
            try:
                loop.call_soon_threadsafe(_settle, done, text)
            except RuntimeError:
                return  # the service has ended meanwhile

        try:
            threading.Thread(target=work, name="memory", daemon=True).start()
        except RuntimeError as error:
            return str(error)
        return await done


def _settle(done: "asyncio.Future[str]", text: str) -> None:
    if not done.done():
        done.set_result(text)
