"""The state on disk: read once, written whenever something worth keeping changed.

Out of scope: what is kept (persist), and how a file is replaced (store).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import AffinityError, ExhaustedError, StoreError
from proxmox_cpu_affinity.ports import StateKeeper
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.service import persist
from proxmox_cpu_affinity.service.log import log

_BOOT_ID = "proc/sys/kernel/random/boot_id"


@dataclass(slots=True)
class Saving:
    """Of one service."""

    keeper: StateKeeper
    tree: Tree
    state: Callable[[], State]
    _boot_id: str = ""  # the same for as long as this process lives
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wanted: int = 0
    _written: int = 0
    _unsaved: bool = False  # the file is not what it should be, and nobody writes it

    def memory(self) -> persist.Memory | None:
        """What was kept, without starts that were under way; None where it is lost."""
        self._boot_id = (self.tree.text(_BOOT_ID) or "").strip()
        loaded = self.keeper.load()
        if loaded.content is None:
            if loaded.problem:
                log.warning("the state file %s: running guests are adopted instead", loaded.problem)
            return None
        try:
            whole = persist.from_json(loaded.content, boot_id=self._boot_id)
        except AffinityError as error:
            log.warning("%s: running guests are adopted instead", error.text)
            return None
        memory = persist.without_reservations(whole)
        self._unsaved = memory != whole
        return memory

    async def save(self) -> None:
        """Write the state; those who wait while one is being written share the next."""
        self._wanted += 1
        mine = self._wanted
        async with self._turn:
            if self._written >= mine:
                return
            upto = self._wanted
            content = persist.to_json(self.state(), boot_id=self._boot_id)
            try:
                await asyncio.to_thread(self.keeper.save, content)
                self._unsaved = False
            except (StoreError, ExhaustedError) as error:
                self._unsaved = True
                log.warning("%s: %s", error.text, error.hint)
            self._written = upto

    async def again(self) -> None:
        """Write the state if that failed the last time: the disk may have room by now. Or if an
        earlier life left reservations in it."""
        if self._unsaved:
            await self.save()
