"""One function per event; each returns the next state and what is to be done."""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Tid, Vmid
from proxmox_cpu_affinity.model.placement import Confined, Held, Outcome, Placement, Strategy
from proxmox_cpu_affinity.reconcile import births, rebalancing, widths
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Level,
    Save,
    Tell,
)
from proxmox_cpu_affinity.reconcile.events import (
    Confirmed,
    Enclosed,
    Event,
    HookCalled,
    HostChanged,
    Inspected,
    ManageChanged,
    MemoryMoved,
    MovesFound,
    Phase,
    ProcessEnded,
    ReassignAsked,
    Scanned,
    ScopeAppeared,
    ScopeEvent,
    ScopeRemoved,
    ScopesLost,
    ScopesReached,
    SetFree,
    Waited,
)
from proxmox_cpu_affinity.reconcile.leaving import (
    ended,
    followed,
    let_go_unmanaged,
    set_free,
    undone,
)
from proxmox_cpu_affinity.reconcile.placing import housed, moved, placed
from proxmox_cpu_affinity.reconcile.scanning import inspected, scanned, seen
from proxmox_cpu_affinity.reconcile.state import Result, State, Tracked
from proxmox_cpu_affinity.reconcile.telling import (
    told_born,
    told_confined,
    told_moved,
    told_repaired,
)


def step(state: State, event: Event) -> Result:
    """The next state, and what is to be done, in this order. O(guests) beside the placing."""
    after, actions = _decided(state, event)
    after = rebalancing.rationed(state, after)
    after, actions = widths.settled(after, actions, event.time)
    after = followed(after, actions)
    moves = rebalancing.eased(state, after)
    return after, (*actions, *births.in_step(state, after), *moves)


def _decided(state: State, event: Event) -> Result:
    match event:
        case HookCalled():
            return _hook_called(state, event)
        case Scanned():
            return scanned(state, event)
        case Waited():
            return widths.waited(state, event), ()
        case ProcessEnded():
            return ended(state, event.process)
        case HostChanged():
            return _host_changed(state, event)
        case ManageChanged():
            fresh = replace(state, manage=event.manage, move_memory=event.move_memory)
            return let_go_unmanaged(fresh)
        case ReassignAsked():
            return _reassign_asked(state, event)
        case MovesFound():
            return rebalancing.found(state, event)
        case Inspected() | Confirmed() | SetFree() | MemoryMoved():
            return _answered(state, event)
        case _:
            return _of_scopes(state, event)


def _answered(state: State, event: Inspected | Confirmed | SetFree | MemoryMoved) -> Result:
    match event:
        case Inspected():
            return inspected(state, event)
        case Confirmed():
            return _confirmed(state, event)
        case SetFree():
            return set_free(state, event)
        case MemoryMoved():
            return state, (told_moved(event),)
        case _:
            assert_never(event)


def _of_scopes(state: State, event: ScopeEvent) -> Result:
    match event:
        case ScopesReached():
            return replace(state, scopes=True), ()
        case ScopesLost():
            return replace(state, scopes=False), ()
        case ScopeAppeared():
            return births.appeared(state, event)
        case Enclosed():
            return births.enclosed(state, event)
        case ScopeRemoved():
            return births.removed(state, event)
        case _:
            assert_never(event)


def _hook_called(state: State, event: HookCalled) -> Result:
    if event.config is not None:
        state = replace(state, configs={**state.configs, event.vmid: event.config})
    state, actions = _phase(state, event)
    state, more = let_go_unmanaged(state)
    return state, actions + more


def _phase(state: State, event: HookCalled) -> Result:
    match event.phase:
        case Phase.PRE_START:
            return _announced(state, event)
        case Phase.POST_START:
            return _started(state, event)
        case Phase.PRE_STOP:
            return state, ()
        case Phase.POST_STOP:
            return _stopped(state, event)
        case _:
            assert_never(event.phase)


def _announced(state: State, event: HookCalled) -> Result:
    """A start is under way: whatever was tracked is of an earlier run (PVE lets no two run)."""
    if event.process is not None:
        return _started(state, event)  # a late hint: it runs already
    tracked = state.tracked.get(event.vmid)
    if tracked is not None and tracked.process is None and tracked.held is not None:
        return state, ()  # a late hint: its scope is there already
    state = state.without_released(event.vmid).without_tracked(event.vmid)
    state = state.without_refusal(event.vmid)
    if not state.managed(event.vmid):
        return state, ()
    state, actions = placed(state, event.vmid)
    tracked = state.tracked.get(event.vmid)
    if tracked is not None:
        state = state.with_tracked(event.vmid, replace(tracked, since=event.time))
    return state, (*actions, Save())


def _started(state: State, event: HookCalled) -> Result:
    vmid, process = event.vmid, event.process
    if not state.managed(vmid):
        return state, ()
    if process is None:
        text = "started, but no process is proved to be it yet; the next scan will look again"
        return state, (Tell(Level.WARN, vmid, text),)
    if state.left_alone(process):
        return state, ()
    state = state.without_released(vmid)
    actions: tuple[Action, ...] = ()
    tracked = state.tracked.get(vmid)
    if tracked is not None and tracked.process not in (None, process):
        state, actions = _stopped(state, event)
    if vmid in state.tracked:
        state, more = seen(state, process, event.time)
    else:
        state, more = housed(state, (process,), event.time)
    return state, actions + more


def _stopped(state: State, event: HookCalled) -> Result:
    """Under PVE 8 this hook may come after the next start: only a process that is gone counts."""
    tracked = state.tracked.get(event.vmid)
    known = state.released_runs.get(event.vmid) if tracked is None else tracked.process
    if known is None or known == event.process:
        return state, ()
    return ended(state, known)


def _confirmed(state: State, event: Confirmed) -> Result:
    confined = event.confined
    vmid = confined.process.vmid
    tracked = state.tracked.get(vmid)
    if tracked is None or tracked.process != confined.process:
        return state, ()
    if confined.wanted != tracked.placement.applied:
        return state, ()  # the answer to an older wish: that to the newer one is on its way
    found = tracked.found
    # A failure that saw no thread has changed none either: the first look is still to come.
    if found is None and (confined.found or confined.outcome is not Outcome.FAILED):
        found = _found_first(state, tracked.placement, confined)
    before = tracked.confined
    confined_at = _first_held(tracked, event)
    kept = (found, confined_at) == (tracked.found, tracked.confined_at)
    actions: tuple[Action, ...] = () if kept else (Save(),)
    held, applied = tracked.held, tracked.placement.applied
    if held is Held.LATER and tracked.found is None and confined.limit == applied:
        # The signal of its scope came after the process: nobody but the drop-in has set the limit.
        held = Held.BIRTH
        actions += (told_born(vmid, applied),)
    strayed = _strayed(tracked, confined)
    after = replace(
        tracked,
        confined=confined,
        found=found,
        held=held,
        confined_at=confined_at,
        drift=tracked.drift + bool(strayed),
    )
    state = state.with_tracked(vmid, after)
    if before is None or (before.outcome, before.wanted) != (confined.outcome, confined.wanted):
        actions += (told_confined(confined),)
    elif strayed:
        actions += (told_repaired(confined, strayed),)
    return state, actions


def _first_held(tracked: Tracked, event: Confirmed) -> float | None:
    """When a run was first seen to be held as wanted. Of one that was held before the service
    began, and of which nobody kept it, that is not known any more."""
    before = tracked.confined
    if tracked.confined_at is not None or event.confined.outcome is not Outcome.FULL:
        return tracked.confined_at
    first = tracked.found is None if before is None else before.outcome is not Outcome.FULL
    return event.time if first else None


def _strayed(tracked: Tracked, confined: Confined) -> int:
    """How many threads were elsewhere, though all had been read back where they belong."""
    before = tracked.confined
    if before is None or before.outcome is not Outcome.FULL or before.wanted != confined.wanted:
        return 0
    masks = tracked.placement.masks
    return sum(mask not in masks for _, mask in confined.found)


def _found_first(
    state: State, placement: Placement, confined: Confined
) -> tuple[tuple[Tid, CpuSet], ...]:
    """The masks that were there before ours, and are to be put back.

    A mask like ours is none: of a thread that was born while its parent had it already, of an
    earlier life of the service, or of the limit that the scope was given when it appeared. Nor is
    one of all CPUs: undoing gives all that there are then.
    """
    online, ours = state.host.topology.online, {*placement.masks, confined.limit}
    return tuple(
        (tid, mask) for tid, mask in confined.found if mask not in ours and not online <= mask
    )


def _host_changed(state: State, event: HostChanged) -> Result:
    """Guests keep their CPUs while these are usable and enough; the others are placed anew."""
    state = replace(state, host=event.host)
    if event.measured and event.host.rules.strategy is Strategy.ROUND_ROBIN:
        state = state.without_selections()
    actions: tuple[Action, ...] = ()
    for vmid, tracked in sorted(state.tracked.items()):
        if not _suits(state, vmid, tracked):
            state, more = moved(state, vmid, tracked)
            actions += more
        elif event.switched and tracked.process is not None:
            actions += (Confine(tracked.process, tracked.placement),)
    return state, (*actions, Save())


def _suits(state: State, vmid: Vmid, tracked: Tracked) -> bool:
    """Whether a placement still stands: no CPU of it was lost, and none it lacked has come."""
    placement, host, config = tracked.placement, state.host, state.configs.get(vmid)
    enough = len(placement.home) if config is None else min(config.vcpu_count, len(host.usable))
    may_use = host.usable | (host.topology.isolated if placement.exclusive else EMPTY)
    if placement.exclusive and placement.home <= may_use & host.topology.online:
        return True  # placed anew it might find too few CPUs of its own, and lose those it has
    return placement.home <= may_use & host.topology.online and len(placement.home) >= enough


def _reassign_asked(state: State, event: ReassignAsked) -> Result:
    vmid = event.vmid
    tracked = state.tracked.get(vmid)
    if event.undo:
        if tracked is None or tracked.process is None:
            return state, ()
        state = state.without_tracked(vmid).with_released(tracked.process)
        return state, (*undone(state, tracked), Save())
    if state.excluded(vmid):
        return let_go_unmanaged(state)
    state = state.without_released(vmid)
    if tracked is None or not state.managed(vmid):
        return state, (Save(),)
    state, actions = moved(state.without_tracked(vmid), vmid, tracked)
    return state, (*actions, Save())
