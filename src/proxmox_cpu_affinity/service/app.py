"""The service: feeds reconcile.step and carries out what it wants. All wiring is here.

Steps happen on the event loop, one at a time; effects run in threads, those of one guest in their
order. Whoever feeds an event may await that everything it led to is done and read back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import ParamSpec, TypeVar, assert_never

from proxmox_cpu_affinity.engine.rebalance import Move
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.linux.confine import GuestConfiner
from proxmox_cpu_affinity.linux.containers import container_load
from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.pressure import WaitingMeter
from proxmox_cpu_affinity.linux.scopewatch import ScopeWatch, hindrance
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.linux.uevents import CpuEvents
from proxmox_cpu_affinity.linux.watch import ProcessWatch
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError, GuestNotFoundError, StoreError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.model.placement import Confined, Outcome
from proxmox_cpu_affinity.ports import Confiner, GuestReader, StateKeeper
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.reconcile import State, rebalancing, step
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    DeleteDropIn,
    Enclose,
    Inspect,
    Level,
    LookForMoves,
    MoveMemory,
    Record,
    Save,
    Tell,
    Undo,
    Watch,
    WriteDropIn,
)
from proxmox_cpu_affinity.reconcile.events import (
    Confirmed,
    Event,
    HookCalled,
    HostChanged,
    Inspected,
    ManageChanged,
    Phase,
    ProcessEnded,
    ReassignAsked,
    Scanned,
    SetFree,
)
from proxmox_cpu_affinity.service import persist
from proxmox_cpu_affinity.service.herald import Herald
from proxmox_cpu_affinity.service.host import HostWatch
from proxmox_cpu_affinity.service.log import log
from proxmox_cpu_affinity.service.measuring import Attempt, UntilSettled, used_by
from proxmox_cpu_affinity.service.memory import MemoryMover
from proxmox_cpu_affinity.service.moves import MoveSearch
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.service.scoping import Scoping
from proxmox_cpu_affinity.service.waiting import Waiting
from proxmox_cpu_affinity.store import JsonFile

SCAN_EVERY = 30.0  # seconds
CPU_BATCH = 1.0  # seconds for which CPU events are gathered
DECISIONS_KEPT = 200

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """A decision and when it was made."""

    time: datetime
    vmid: Vmid
    decision: Decision


def no_guest(vmid: Vmid) -> GuestNotFoundError:
    return GuestNotFoundError(f"there is no guest {vmid} on this node")


@dataclass(frozen=True, slots=True)
class World:
    """What one service works on. The production one is made by `world_below`."""

    tree: Tree
    guests: GuestReader
    confiner: Confiner
    keeper: StateKeeper
    host: HostWatch
    scopes: ScopeWatch | None = None
    hindrance: str = ""  # why there are no scopes to confine


def world_below(paths: Paths) -> World:
    """The adapters to the kernel and to PVE's files below a root."""
    tree = Tree(paths.root)
    guests = NodeGuests(tree)
    confiner = GuestConfiner(ThreadMasks(tree, guests.proven))
    why_not = hindrance(tree)
    return World(
        tree=tree,
        guests=guests,
        confiner=confiner,
        keeper=JsonFile(paths.state),
        host=HostWatch(tree, JsonFile(paths.matrix)),
        scopes=None if why_not else ScopeWatch(tree, confiner, DropIns(paths.root)),
        hindrance=why_not,
    )


class Service:
    """One running service. `start` before anything else, `stop` at the end."""

    def __init__(self, world: World, settings: Settings, *, warnings: tuple[str, ...] = ()) -> None:
        self.world = world
        self.settings = settings
        self.warnings = warnings
        self.host = world.host
        self.decisions: deque[Kept] = deque(maxlen=DECISIONS_KEPT)
        self.freed: dict[Vmid, Confined] = {}  # what was read back when a guest was let go
        self.trouble = ""  # why the guests cannot be read, empty if they can
        self.began = time.monotonic()
        self.state: State
        self.herald = Herald(world.tree, self.began)
        self._watch = ProcessWatch(world.tree, self._ended)
        self.scoping = Scoping(
            world.scopes, world.hindrance, self.feed, self.look, lambda: self.state, self._spawn
        )
        self._measuring = UntilSettled(self._measure_once, self._measured)
        self._memory = MemoryMover(world.tree, self._is_there, self.feed)
        self._moves = MoveSearch(lambda: self.state, self.feed)
        self._waiting = Waiting(WaitingMeter(world.tree), lambda: self.state, self.feed)
        self._cpus_switched = asyncio.Event()
        self._cpu_events = CpuEvents(self._cpus_switched.set)
        self._locks: dict[Vmid, asyncio.Lock] = {}
        self._saving = asyncio.Lock()
        self._wanted = self._written = 0
        self._unsaved = False  # the file is not what it should be, and nobody writes it
        self._tasks: set[asyncio.Task[object]] = set()

    # -- life ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read the host and what was kept: everything that an answer needs, nothing that waits."""
        self.host.read()
        self.state = State(
            self.host.compiled(self.settings),
            self.settings.manage,
            move_memory=self.settings.move_memory,
        )
        loaded = self.world.keeper.load()
        memory = None
        if loaded.content is not None:
            try:
                memory = persist.from_json(loaded.content, boot_id=self._boot_id())
            except AffinityError as error:
                log.warning("%s: running guests are adopted instead", error.text)
        elif loaded.problem:
            log.warning("the state file %s: running guests are adopted instead", loaded.problem)
        if memory is None:
            self.state = replace(self.state, adopt=True)
            return
        whole, memory = memory, persist.without_reservations(memory)
        self._unsaved = memory != whole
        self.state = persist.remembering(self.state, memory)

    async def start(self) -> None:
        """Look for guests, watch those known, and begin the work in the background."""
        await self.scoping.begin()
        await self.scan()  # those that ended meanwhile are seen in one step
        if self.state.astray():  # the guests could not be read
            await self.feed(HostChanged(time.monotonic(), self.state.host))
        await self.save_again()
        for tracked in self.state.tracked.values():
            if tracked.process is not None:
                self._watch.watch(tracked.process)
        self._spawn(self._scan_for_ever())
        if self.settings.hotplug_watchdog:
            self._follow_cpus()
        if not self.host.from_cache or self.host.matrix.verdict != "trusted":
            self._spawn(self.measure())

    async def stop(self) -> None:
        """End the background's work; guests stay where they are."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watch.close()
        self._cpu_events.close()
        self.scoping.end()
        await self._save()

    async def release_all(self) -> tuple[Vmid, ...]:
        """Let every guest go. Those that are held in spite of it.

        Who comes after us, a package that is installed again, may hold them anew: unlike those
        that were undone by hand they are not left alone until their next start.
        """
        running = [vmid for vmid, t in self.state.tracked.items() if t.running]
        for vmid in sorted(running):
            await self.feed(ReassignAsked(time.monotonic(), vmid, undo=True))
        done = {v for v, confined in self.freed.items() if confined.outcome is Outcome.FULL}
        for vmid in done:
            self.state = self.state.without_released(vmid)
        return tuple(vmid for vmid in sorted(running) if vmid not in done)

    # -- events -------------------------------------------------------------------------------

    async def feed(self, event: Event) -> None:
        """One step of the brain; returns when all that it led to is done and read back."""
        before = self.state
        self.state, actions = step(before, event)
        self.herald.step(before, self.state, event, actions)
        if isinstance(event, SetFree):
            self.freed[event.confined.process.vmid] = event.confined
        for action in actions:
            await self._carry_out(action)

    async def hook(self, vmid: Vmid, phase: Phase) -> None:
        """A hookscript called: read what is true now, then let the brain decide."""
        config, process = await self._thread(self.look, vmid)
        # Newer than any scan that began before this was read.
        await self.feed(HookCalled(time.monotonic(), vmid, phase, config, process))

    def look(self, vmid: Vmid) -> tuple[GuestConfig | None, GuestProcess | None]:
        try:
            config = self.world.guests.config(vmid)
        except AffinityError:
            config = None
        return config, self.world.guests.process(vmid)

    def _is_there(self, process: GuestProcess, nodes: frozenset[int]) -> bool:
        """Whether a guest is proved again, and still to be on these nodes."""
        tracked = self.state.tracked.get(process.vmid)
        if tracked is None or self.world.guests.process(process.vmid) != process:
            return False
        return frozenset(self.host.topology.nodes_of(tracked.placement.home)) == nodes

    async def reassign(self, vmid: Vmid, *, undo: bool) -> None:
        """Place a running guest anew, or let it go. GuestNotFoundError."""
        config, process = await self._thread(self.look, vmid)
        now = time.monotonic()
        if config is None:
            raise no_guest(vmid)
        self.state = replace(self.state, configs={**self.state.configs, vmid: config})
        await self.feed(ReassignAsked(now, vmid, undo=undo))
        if process is not None and not undo and vmid not in self.state.tracked:
            # It runs and was not ours until now.
            await self.feed(HookCalled(now, vmid, Phase.POST_START, config, process))

    async def rebalance(self) -> tuple[Move, ...]:
        """Move, or say who would be moved, as the settings are; returns when it is done."""
        if not rebalancing.wanted(self.state, asked=True):
            return ()
        return await self._moves.look(asked=True)

    def read_guests(
        self,
    ) -> tuple[tuple[Mapping[Vmid, GuestConfig], frozenset[Vmid]], Mapping[Vmid, GuestProcess]]:
        """All guests and all that run, as PVE's files say now. NotPveHostError."""
        return self.world.guests.configs(), self.world.guests.processes()

    async def scan(self) -> None:
        """Read the truth and let the brain compare. Without PVE's files nothing is concluded."""
        now = time.monotonic()
        try:
            (configs, unreadable), processes = await self._thread(self.read_guests)
        except AffinityError as error:
            if self.trouble != error.text:
                log.warning("%s: guests stay as they are", error.text)
            self.trouble = error.text
            return
        self.trouble = ""
        outside = await self._thread(container_load, self.world.tree, self.host.topology.online)
        await self.feed(Scanned(now, configs, processes, unreadable, outside))

    async def _scan_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SCAN_EVERY)
            # Each on its own: a host that cannot be read must not keep guests from being seen.
            for work in (
                self.scoping.reach,
                self._follow_host,
                self.scan,
                self._waiting.look,
                self.scoping.tidy,
                self.save_again,
            ):
                try:
                    await work()
                except Exception:
                    log.exception("a scan failed; the next one tries again")

    async def _follow_host(self) -> None:
        if self.settings.hotplug_watchdog and self.host.changed():
            await self.host_changed()

    def _follow_cpus(self) -> None:
        problem = self._cpu_events.open()
        if problem:
            log.warning("CPU hotplug is seen by the scans only: %s", problem)
            return
        self._spawn(self._await_cpus())

    async def _await_cpus(self) -> None:
        """The first of a batch at once, for a guest may have lost its CPU; the rest together."""
        while True:
            await self._cpus_switched.wait()
            self._cpus_switched.clear()
            try:
                if self.host.changed():
                    await self.host_changed()
            except Exception:
                log.exception("CPUs came or went and could not be followed; the next scan tries")
            await asyncio.sleep(CPU_BATCH)

    async def host_changed(self) -> None:
        """Other CPUs are online: read the host again, move who lost one, measure."""
        before = self.host.topology.online
        await self._thread(self.host.read)
        online = self.host.topology.online
        text = f"CPUs changed: {online} are online now"
        log.warning("%s", text)
        self.herald.cpus(before, online, text)
        host = self.host.compiled(self.settings)
        await self.feed(HostChanged(time.monotonic(), host, switched=True))
        if not self.host.from_cache:
            self._spawn(self.measure())

    async def measure(self) -> None:
        """Measure the latency in the background until it can be trusted; guests stay placed."""
        await self._measuring.run()

    async def _measure_once(self) -> Attempt:
        others = await self._thread(self._used_by_others)

        def held() -> CpuSet:
            return reduce(or_, (t.placement.applied for t in self.state.tracked.values()), others)

        self.herald.measuring(self.host.matrix)
        attempt = await self.host.measure(self.settings, held=held)
        self.herald.measured(self.host.matrix, changed=attempt.changed)
        return attempt

    def _used_by_others(self) -> CpuSet:
        """CPUs that guests use which were not placed."""
        try:
            processes = self.world.guests.processes()
        except AffinityError:
            return EMPTY
        return used_by(self.world.tree, processes, self.state.tracked)

    async def _measured(self) -> None:
        matrix = self.host.matrix
        log.info(
            "latency measured: %s, %.0f %% of the pairs; %s",
            matrix.verdict,
            100 * matrix.share_measured(),
            "; ".join(matrix.conditions) or "nothing odd",
        )
        if matrix.verdict is Verdict.UNSTABLE:
            return  # the engine never sees it: nothing is different for the guests
        host = self.host.compiled(self.settings)
        await self.feed(HostChanged(time.monotonic(), host, measured=True))

    async def use(self, settings: Settings, warnings: tuple[str, ...]) -> None:
        """Take other settings; addresses and files take effect at the next start."""
        self.settings, self.warnings = settings, warnings
        host = self.host.compiled(settings)
        await self.feed(HostChanged(time.monotonic(), host))
        now = time.monotonic()
        await self.feed(ManageChanged(now, settings.manage, settings.move_memory))
        self.herald.settings(settings)
        await self.scan()

    def _ended(self, process: GuestProcess) -> None:
        self._spawn(self.feed(ProcessEnded(time.monotonic(), process)))

    # -- effects ------------------------------------------------------------------------------

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Confine():
                await self._confine(action.process)
            case Undo():
                await self._undo(action)
            case Inspect():
                seen = [(p, tuple(await self.world.confiner.threads(p))) for p in action.processes]
                await self.feed(Inspected(time.monotonic(), tuple(seen)))
            case Watch():
                self._watch.watch(action.process)
            case Enclose() | WriteDropIn() | DeleteDropIn():
                await self.scoping.carry_out(action)
            case MoveMemory() | LookForMoves():
                self._begin(action)
            case Save():
                await self._save()
            case Record():
                self.decisions.append(Kept(datetime.now(UTC), action.vmid, action.decision))
            case Tell():
                self._tell(action)
            case _:
                assert_never(action)

    def _begin(self, action: MoveMemory | LookForMoves) -> None:
        """What takes its time: nobody waits for it."""
        match action:
            case MoveMemory():
                self._spawn(self._memory.move(action))
            case LookForMoves():
                self._spawn(self._moves.look(asked=action.asked))

    async def _confine(self, process: GuestProcess) -> None:
        """Hold a guest where the state has it now, in turn with the other changes to it: it may
        have been moved, or let go, since this was decided."""
        async with self._turn(process):
            tracked = self.state.tracked.get(process.vmid)
            if tracked is None or tracked.process != process:
                return
            confined = await self.world.confiner.confine(process, tracked.placement)
        await self.feed(Confirmed(time.monotonic(), confined))

    async def _undo(self, action: Undo) -> None:
        """Let a guest go, unless it was taken up again since this was decided."""
        process = action.process
        async with self._turn(process):
            tracked = self.state.tracked.get(process.vmid)
            if tracked is not None and tracked.process == process:
                return
            confined = await self.world.confiner.undo(process, dict(action.found), action.free)
        await self.feed(SetFree(time.monotonic(), confined))

    def _turn(self, process: GuestProcess) -> asyncio.Lock:
        return self._locks.setdefault(process.vmid, asyncio.Lock())

    async def _save(self) -> None:
        """Write the state; those who wait while one is being written share the next."""
        self._wanted += 1
        mine = self._wanted
        async with self._saving:
            if self._written >= mine:
                return
            upto = self._wanted
            content = persist.to_json(self.state, boot_id=self._boot_id())
            try:
                await self._thread(self.world.keeper.save, content)
                self._unsaved = False
            except StoreError as error:
                self._unsaved = True
                log.warning("%s: %s", error.text, error.hint)
            self._written = upto

    async def save_again(self) -> None:
        """Write the state if that failed the last time: the disk may have room by now. Or if an
        earlier life left reservations in it."""
        if self._unsaved:
            await self._save()

    @staticmethod
    def _tell(action: Tell) -> None:
        write = {Level.DEBUG: log.debug, Level.INFO: log.info, Level.WARN: log.warning}
        extra = {} if action.vmid is None else {"vmid": action.vmid}
        write[action.level]("%s", action.text, extra=extra)

    def _boot_id(self) -> str:
        return (self.world.tree.text("proc/sys/kernel/random/boot_id") or "").strip()

    @staticmethod
    async def _thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    def _spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[object]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())
