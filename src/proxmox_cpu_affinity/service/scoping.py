"""The service's side of guests' scopes: signals become events, actions calls and files.

Out of scope: what is decided (reconcile.births), how systemd is asked (linux).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.scopewatch import Ears, ScopeWatch
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError, StoreError, SystemdError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile.actions import (
    DeleteDropIn,
    Enclose,
    WriteDropIn,
)
from proxmox_cpu_affinity.reconcile.events import (
    Enclosed,
    Event,
    HookCalled,
    Phase,
    ScopeAppeared,
    ScopeRemoved,
    ScopesLost,
    ScopesReached,
)
from proxmox_cpu_affinity.reconcile.state import State
from proxmox_cpu_affinity.service.log import log

# Seconds between looks for the process of a guest whose scope appeared: QEMU writes its pidfile
# when it is set up, and no hook says so where there is none.
_LOOKS = (0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

# Seconds between tries to reach systemd when its bus was lost; after these, each scan tries.
_TRIES = (1.0, 2.0, 4.0, 8.0)

_DEAF = Ears(lambda _: None, lambda _: None, lambda: None)

ScopeAction = Enclose | WriteDropIn | DeleteDropIn


@dataclass(slots=True)
class Scoping:
    """What a service needs of guests' scopes; `watch` is None where there never are any."""

    watch: ScopeWatch | None
    hindrance: str  # why there are none
    feed: Callable[[Event], Coroutine[None, None, None]]
    look: Callable[[Vmid], tuple[GuestConfig | None, GuestProcess | None]]
    state: Callable[[], State]
    spawn: Callable[[Coroutine[None, None, None]], None]
    _turns: dict[Vmid, asyncio.Lock] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Why guests are held by thread masks; empty where it is by their scopes."""
        return self.hindrance if self.watch is None else self.watch.problem

    async def begin(self) -> None:
        """Delete what an earlier life left, and reach systemd."""
        if self.watch is None:
            return
        left = await self._cleaned(self.watch)
        if left:
            log.info("drop-ins of an earlier life were deleted: %d", left)
        await self.reach()

    async def begin_release(self) -> None:
        """Reach systemd to let guests go: drop-ins and their directories leave with us."""
        if self.watch is None:
            return
        await self._cleaned(self.watch, directories=True)
        await self.watch.reach(_DEAF)

    @staticmethod
    async def _cleaned(watch: ScopeWatch, *, directories: bool = False) -> int:
        """How many drop-ins are gone. One that stays keeps nobody from the rest of the work."""
        try:
            return await asyncio.to_thread(watch.drop_ins.clean, directories=directories)
        except StoreError as error:
            log.warning("%s", error.text)
            return 0

    async def reach(self) -> None:
        """Try to reach systemd, if it is out of reach."""
        if self.watch is not None and await self.watch.reach(self._ears()):
            await self.feed(ScopesReached(time.monotonic()))

    def end(self) -> None:
        if self.watch is not None:
            self.watch.close()

    async def carry_out(self, action: ScopeAction) -> None:
        """An effect that failed is logged: the scope's threads are held later all the same."""
        watch = self.watch
        if watch is None:
            return
        match action:
            case Enclose():
                await self._enclose(watch, action.vmid, action.cpus)
            case WriteDropIn() | DeleteDropIn():
                await self._bring_in_line(watch, action.vmid)

    async def tidy(self) -> None:
        """Delete every drop-in that is not to stand now, whyever it does."""
        if self.watch is None:
            return
        standing = await asyncio.to_thread(self.watch.drop_ins.standing)
        for vmid in standing - self.state().drop_ins().keys():
            await self._bring_in_line(self.watch, vmid)

    async def _bring_in_line(self, watch: ScopeWatch, vmid: Vmid) -> None:
        """Make a guest's drop-in what the state wants in the end: what was wanted when an action
        was decided may be over when its turn comes."""
        async with self._turns.setdefault(vmid, asyncio.Lock()):
            while True:
                wanted = self.state().drop_ins().get(vmid)
                try:
                    if wanted is None:
                        await asyncio.to_thread(watch.drop_ins.delete, vmid)
                    else:
                        await watch.announce(vmid, wanted)
                except (StoreError, SystemdError) as error:
                    log.warning("%s", error.text)
                if self.state().drop_ins().get(vmid) == wanted:
                    return

    async def _enclose(self, watch: ScopeWatch, vmid: Vmid, cpus: CpuSet) -> None:
        effective, problem = None, watch.problem
        if watch.scopes is not None:
            try:
                effective = await watch.scopes.enclose(vmid, cpus)
            except SystemdError as error:
                problem = error.text
        await self.feed(Enclosed(time.monotonic(), vmid, cpus, effective, problem))

    def _ears(self) -> Ears:
        return Ears(
            appeared=lambda vmid: self.spawn(self._appeared(vmid)),
            removed=lambda vmid: self.spawn(self.feed(ScopeRemoved(time.monotonic(), vmid))),
            lost=lambda: self.spawn(self._lost()),
        )

    async def _lost(self) -> None:
        log.warning("%s: guests are held by thread masks meanwhile", self.problem)
        await self.feed(ScopesLost(time.monotonic()))
        for pause in _TRIES:
            await asyncio.sleep(pause)
            await self.reach()
            if not self.problem:
                log.info("systemd is reached again")
                return

    async def _appeared(self, vmid: Vmid) -> None:
        watch = self.watch
        if watch is None:
            return
        (config, process), sighting = await asyncio.gather(
            asyncio.to_thread(self.look, vmid), watch.sighting(vmid)
        )
        if sighting is None or config is None:
            return
        now = time.monotonic()  # newer than any scan that began before this was read
        await self.feed(ScopeAppeared(now, vmid, config, process, sighting.allowed))
        for pause in _LOOKS:
            tracked = self.state().tracked.get(vmid)
            if tracked is None or tracked.process is not None:
                return
            await asyncio.sleep(pause)
            await self._found(vmid)

    async def _found(self, vmid: Vmid) -> None:
        """Let the brain know of a process that is proved now, as its post-start hook would."""
        try:
            config, process = await asyncio.to_thread(self.look, vmid)
        except AffinityError:
            return
        if process is not None:
            await self.feed(HookCalled(time.monotonic(), vmid, Phase.POST_START, config, process))
