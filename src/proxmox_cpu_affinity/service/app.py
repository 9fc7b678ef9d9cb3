"""The service: feeds reconcile.step, and has carried out what it wants. All wiring is here.

Steps happen on the event loop, one at a time; effects run in threads, those of one guest in their
order. Whoever feeds an event may await that everything it led to is done and read back.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING

from proxmox_cpu_affinity.engine.rebalance import Move
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.linux.containers import container_load
from proxmox_cpu_affinity.linux.pressure import WaitingMeter
from proxmox_cpu_affinity.linux.watch import ProcessWatch
from proxmox_cpu_affinity.model.errors import GuestNotFoundError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, rebalancing, step
from proxmox_cpu_affinity.reconcile.events import (
    Event,
    HookCalled,
    HostChanged,
    ManageChanged,
    Phase,
    ProcessEnded,
    ReassignAsked,
    Scanned,
    SetFree,
)
from proxmox_cpu_affinity.reconcile.leaving import once_more
from proxmox_cpu_affinity.service import persist
from proxmox_cpu_affinity.service.effects import Effects
from proxmox_cpu_affinity.service.following import HostFollower
from proxmox_cpu_affinity.service.herald import Herald
from proxmox_cpu_affinity.service.log import failed
from proxmox_cpu_affinity.service.memory import MemoryMover
from proxmox_cpu_affinity.service.moves import MoveSearch
from proxmox_cpu_affinity.service.reading import GuestFiles
from proxmox_cpu_affinity.service.saving import Saving
from proxmox_cpu_affinity.service.scoping import Scoping
from proxmox_cpu_affinity.service.waiting import Waiting
from proxmox_cpu_affinity.service.world import World

if TYPE_CHECKING:
    from proxmox_cpu_affinity.model.placement import Confined

SCAN_EVERY = 30.0  # seconds
# Seconds between tries to let go at the last, when no scan comes any more. None is begun after
# RELEASE_PATIENCE: each guest takes its time where systemd does not answer.
RELEASE_AGAIN = (0.5, 1.0, 2.0, 4.0)
RELEASE_PATIENCE = 60.0


def no_guest(vmid: Vmid) -> GuestNotFoundError:
    return GuestNotFoundError(f"there is no guest {vmid} on this node")


class Service:
    """One running service. `prepare` and `start` before anything else, `stop` at the end."""

    def __init__(self, world: World, settings: Settings, *, warnings: tuple[str, ...] = ()) -> None:
        self.world = world
        self.settings = settings
        self.warnings = warnings
        self.host = world.host
        self.files = GuestFiles(world.guests)
        self.freed: dict[Vmid, Confined] = {}  # what was read back when a guest was let go
        self.began = time.monotonic()
        self.state: State
        self.herald = Herald(world.tree, self.began)
        self.saving = Saving(world.keeper, world.tree, self._current)
        self.scoping = Scoping(
            world.scopes, world.hindrance, self.feed, self.files.look, self._current, self._spawn
        )
        self.effects = Effects(
            confiner=world.confiner,
            watch=ProcessWatch(world.tree, self._ended),
            scoping=self.scoping,
            memory=MemoryMover(world.tree, self._is_there, self.feed),
            moves=MoveSearch(self._current, self.feed),
            saving=self.saving,
            state=self._current,
            feed=self.feed,
            spawn=self._spawn,
        )
        self.follower = HostFollower(
            world, self.herald, lambda: self.settings, self._current, self.feed, self._spawn
        )
        self._waiting = Waiting(WaitingMeter(world.tree), self._current, self.feed)
        self._tasks: set[asyncio.Task[object]] = set()

    def _current(self) -> State:
        return self.state

    # -- life ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read the host and what was kept: everything that an answer needs, nothing that waits."""
        self.host.read()
        self.state = State(
            self.follower.compiled(),
            self.settings.manage,
            move_memory=self.settings.move_memory,
        )
        memory = self.saving.memory()
        if memory is None:
            self.state = replace(self.state, adopt=True)
        else:
            self.state = persist.remembering(self.state, memory)

    async def start(self) -> None:
        """Look for guests, watch those known, and begin the work in the background."""
        await self.scoping.begin()
        await self.scan()  # those that ended meanwhile are seen in one step
        if self.state.astray():  # the guests could not be read
            await self.feed(HostChanged(time.monotonic(), self.state.host))
        await self.saving.again()
        for tracked in self.state.tracked.values():
            if tracked.process is not None:
                self.effects.watch.watch(tracked.process)
        self._spawn(self._scan_for_ever())
        self.follower.begin()

    async def stop(self) -> None:
        """End the background's work; guests stay where they are."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.effects.watch.close()
        self.follower.end()
        self.scoping.end()
        await self.saving.save()

    async def release_all(self) -> tuple[Vmid, ...]:
        """Let every guest go. Those that are held in spite of it, also those that were to be let
        go before.

        Who comes after us, a package that is installed again, may hold them anew: unlike those
        that were undone by hand they are not left alone until their next start.
        """
        by_hand = self.state.released
        if not self.state.adopt:  # who is not recorded holds nothing of ours: the scan passes it by
            found = await asyncio.to_thread(self.files.all)
            for vmid in found.processes.keys() - self.state.tracked.keys() - by_hand:
                self.state = self.state.with_released(found.processes[vmid])
        await self.scan()
        running = sorted(vmid for vmid, t in self.state.tracked.items() if t.running)
        for vmid in running:
            await self.feed(ReassignAsked(time.monotonic(), vmid, undo=True))
        began = time.monotonic()
        for pause in RELEASE_AGAIN:
            held = await asyncio.to_thread(self._still_held)
            if not held or time.monotonic() - began > RELEASE_PATIENCE:
                break
            await asyncio.sleep(pause)
            await self.effects.all_of(once_more(self.state))
        for vmid in self.state.released - by_hand - self.state.leaving.keys():
            self.state = self.state.without_released(vmid)
        return await asyncio.to_thread(self._still_held)

    def _still_held(self) -> tuple[Vmid, ...]:
        held = sorted(self.state.leaving.items())
        return tuple(v for v, one in held if self.world.guests.process(v) == one.process)

    # -- events -------------------------------------------------------------------------------

    async def feed(self, event: Event) -> None:
        """One step of the brain; returns when all that it led to is done and read back."""
        before = self.state
        self.state, actions = step(before, event)
        self.herald.step(before, self.state, event, actions)
        if isinstance(event, SetFree):
            self.freed[event.confined.process.vmid] = event.confined
        await self.effects.all_of(actions)

    async def hook(self, vmid: Vmid, phase: Phase) -> None:
        """A hookscript called: read what is true now, then let the brain decide."""
        if self.state.adopt:  # nobody knows yet which CPUs are taken, and the first scan may wait
            await self.scan()
        config, process = await asyncio.to_thread(self.files.look, vmid)
        # Newer than any scan that began before this was read.
        await self.feed(HookCalled(time.monotonic(), vmid, phase, config, process))

    async def reassign(self, vmid: Vmid, *, undo: bool) -> None:
        """Place a running guest anew, or let it go: that needs no configuration.
        GuestNotFoundError."""
        config, process = await asyncio.to_thread(self.files.look, vmid)
        now = time.monotonic()
        if config is not None:
            self.state = replace(self.state, configs={**self.state.configs, vmid: config})
        elif not (undo and vmid in self.state.tracked):
            raise no_guest(vmid)
        await self.feed(ReassignAsked(now, vmid, undo=undo))
        if process is not None and not undo and vmid not in self.state.tracked:
            # It runs and was not ours until now.
            await self.feed(HookCalled(now, vmid, Phase.POST_START, config, process))

    async def rebalance(self) -> tuple[Move, ...]:
        """Move, or say who would be moved, as the settings are; returns when it is done."""
        if not rebalancing.wanted(self.state, asked=True):
            return ()
        return await self.effects.moves.look(asked=True)

    async def scan(self) -> None:
        """Read the truth and let the brain compare. Without PVE's files nothing is concluded."""
        now = time.monotonic()
        found = await asyncio.to_thread(self.files.all)
        if found.trouble:
            return
        outside = await asyncio.to_thread(
            container_load, self.world.tree, self.host.topology.online
        )
        await self.feed(Scanned(now, found.configs, found.processes, found.unreadable, outside))

    async def _scan_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SCAN_EVERY)
            # Each on its own: a host that cannot be read must not keep guests from being seen.
            for work in (
                self.scoping.reach,
                self.follower.look,
                self.scan,
                self._waiting.look,
                self.scoping.tidy,
                self.saving.again,
            ):
                try:
                    await work()
                except Exception as error:
                    failed("a scan failed; the next one tries again", error)

    async def use(self, settings: Settings, warnings: tuple[str, ...]) -> None:
        """Take other settings; addresses and files take effect at the next start."""
        self.settings, self.warnings = settings, warnings
        self.follower.listen()
        await self.feed(HostChanged(time.monotonic(), self.follower.compiled()))
        now = time.monotonic()
        await self.feed(ManageChanged(now, settings.manage, settings.move_memory))
        self.herald.settings(settings)
        await self.scan()

    def _ended(self, process: GuestProcess) -> None:
        self._spawn(self.feed(ProcessEnded(time.monotonic(), process)))

    def _is_there(self, process: GuestProcess, nodes: frozenset[int]) -> bool:
        """Whether a guest is proved again, and still to be on these nodes."""
        tracked = self.state.tracked.get(process.vmid)
        if tracked is None or self.world.guests.process(process.vmid) != process:
            return False
        return frozenset(self.host.topology.nodes_of(tracked.placement.home)) == nodes

    # -- the background -----------------------------------------------------------------------

    def _spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            failed("a background task failed", error)
