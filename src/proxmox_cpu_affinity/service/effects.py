"""Carries out what the brain wants: each action to its end, those of one guest in their order.

An effect looks at the state when its turn comes: a guest may have been moved, or let go, since it
was decided. Out of scope: what is wanted (reconcile), and what scopes take (scoping).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import assert_never

from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.linux.watch import ProcessWatch
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.ports import Confiner
from proxmox_cpu_affinity.reconcile import State
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
from proxmox_cpu_affinity.reconcile.events import Confirmed, Event, Inspected, SetFree
from proxmox_cpu_affinity.service.log import failed, log
from proxmox_cpu_affinity.service.memory import MemoryMover
from proxmox_cpu_affinity.service.moves import MoveSearch
from proxmox_cpu_affinity.service.saving import Saving
from proxmox_cpu_affinity.service.scoping import Scoping

DECISIONS_KEPT = 200
_WRITE = {Level.INFO: log.info, Level.WARN: log.warning}


@dataclass(frozen=True, slots=True)
class Kept:
    """A decision and when it was made."""

    time: datetime
    vmid: Vmid
    decision: Decision


@dataclass(slots=True)
class Effects:
    """Of one service: with what it acts, and what it has to show for it."""

    confiner: Confiner
    watch: ProcessWatch
    scoping: Scoping
    memory: MemoryMover
    moves: MoveSearch
    saving: Saving
    state: Callable[[], State]
    feed: Callable[[Event], Coroutine[None, None, None]]
    spawn: Callable[[Coroutine[None, None, object]], None]
    decisions: deque[Kept] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT))
    _turns: dict[Vmid, asyncio.Lock] = field(default_factory=dict)

    async def all_of(self, actions: tuple[Action, ...]) -> None:
        """Carry out actions in this order. One that fails costs none of the others: they are of
        other guests, or delete what must not stand."""
        for action in actions:
            try:
                await self._carry_out(action)
            except Exception as error:
                failed(f"{type(action).__name__} failed", error)

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Confine():
                await self._confine(action.process)
            case Undo():
                await self._undo(action)
            case Inspect():
                seen = [(p, tuple(await self.confiner.threads(p))) for p in action.processes]
                await self.feed(Inspected(time.monotonic(), tuple(seen)))
            case Watch():
                self.watch.watch(action.process)
            case Enclose() | WriteDropIn() | DeleteDropIn():
                await self.scoping.carry_out(action)
            case MoveMemory() | LookForMoves():
                self._begin(action)
            case Save():
                await self.saving.save()
            case Record():
                self.decisions.append(Kept(datetime.now(UTC), action.vmid, action.decision))
            case Tell():
                extra = {} if action.vmid is None else {"vmid": action.vmid}
                _WRITE[action.level]("%s", action.text, extra=extra)
            case _:
                assert_never(action)

    def _begin(self, action: MoveMemory | LookForMoves) -> None:
        """What takes its time: nobody waits for it."""
        match action:
            case MoveMemory():
                self.spawn(self.memory.move(action))
            case LookForMoves():
                self.spawn(self.moves.look(asked=action.asked))
            case _:
                assert_never(action)

    async def _confine(self, process: GuestProcess) -> None:
        """Hold a guest where the state has it now, in turn with the other changes to it."""
        async with self._turn(process):
            tracked = self.state().tracked.get(process.vmid)
            if tracked is None or tracked.process != process:
                return
            confined = await self.confiner.confine(process, tracked.placement)
        await self.feed(Confirmed(time.monotonic(), confined))

    async def _undo(self, action: Undo) -> None:
        """Let a guest go, unless it was taken up again since this was decided."""
        process = action.process
        async with self._turn(process):
            tracked = self.state().tracked.get(process.vmid)
            if tracked is not None and tracked.process == process:
                return
            confined = await self.confiner.undo(process, dict(action.found), action.free)
        await self.feed(SetFree(time.monotonic(), confined))

    def _turn(self, process: GuestProcess) -> asyncio.Lock:
        return self._turns.setdefault(process.vmid, asyncio.Lock())
