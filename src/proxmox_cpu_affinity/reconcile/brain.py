"""One function per event; each returns the next state and what is to be done."""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Tid, Vmid
from proxmox_cpu_affinity.model.placement import Confined, Outcome, Strategy
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Inspect,
    Level,
    Save,
    Tell,
    Watch,
    named,
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
from proxmox_cpu_affinity.reconcile.placing import Result, adopted, housed, moved, placed, undone
from proxmox_cpu_affinity.reconcile.state import RESERVED_FOR, State, Tracked


def step(state: State, event: Event) -> Result:
    """The next state, and what is to be done, in this order. O(guests) beside the placing."""
    match event:
        case HookCalled():
            return _hook_called(state, event)
        case Scanned():
            return _scanned(state, event)
        case Inspected():
            return _inspected(state, event)
        case Confirmed():
            return _confirmed(state, event)
        case SetFree():
            return state, (_told_free(event),)
        case ProcessEnded():
            return _process_ended(state, event.process)
        case HostChanged():
            return _host_changed(state, event)
        case ManageChanged():
            return _let_go_unmanaged(replace(state, manage=event.manage))
        case ReassignAsked():
            return _reassign_asked(state, event)
        case _:
            assert_never(event)


def _hook_called(state: State, event: HookCalled) -> Result:
    if event.config is not None:
        state = replace(state, configs={**state.configs, event.vmid: event.config})
    state, actions = _phase(state, event)
    state, more = _let_go_unmanaged(state)
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
        state, more = _seen(state, process, event.time)
    else:
        state, more = housed(state, (process,), event.time)
    return state, actions + more


def _stopped(state: State, event: HookCalled) -> Result:
    """Under PVE 8 this hook may come after the next start: only a process that is gone counts."""
    tracked = state.tracked.get(event.vmid)
    known = state.released_runs.get(event.vmid) if tracked is None else tracked.process
    if known is None or known == event.process:
        return state, ()
    return _process_ended(state, known)


def _process_ended(state: State, process: GuestProcess) -> Result:
    if state.released_runs.get(process.vmid) == process:
        return state.without_released(process.vmid), (Save(),)
    tracked = state.tracked.get(process.vmid)
    if tracked is None or tracked.process != process:
        return state, ()
    text = f"stopped: {named(tracked.placement.home)} free again"
    return state.without_tracked(process.vmid), (Tell(Level.INFO, process.vmid, text), Save())


def _scanned(state: State, event: Scanned) -> Result:
    """Make the actual equal the desired: the one place that does not depend on hints."""
    # What was heard of while the scan read is newer than what the scan says.
    newer = {v for v, t in state.tracked.items() if t.since > event.time}
    ours = {v: c for v, c in state.configs.items() if v in newer}
    state = replace(state, configs={**state.configs, **event.configs, **ours})
    state, actions = _let_go_unmanaged(_released_seen(state, event))
    for vmid, tracked in tuple(state.tracked.items()):
        if vmid in newer:
            continue
        if tracked.process is not None and event.processes.get(vmid) != tracked.process:
            state, more = _process_ended(state, tracked.process)
            actions += more
        elif tracked.process is None and vmid not in event.processes:
            state, more = _expired(state, vmid, event.time)
            actions += more
    state = _gone_forgotten(state, event)
    unknown: tuple[GuestProcess, ...] = ()
    for vmid, process in sorted(event.processes.items()):
        if vmid in newer or vmid in state.released or not state.managed(vmid):
            continue
        if vmid in state.tracked:
            state, more = _seen(state, process, event.time)
            actions += more
        else:
            unknown += (process,)
    if unknown:
        return state, (*actions, Inspect(unknown))
    return replace(state, adopt=False), actions


def _released_seen(state: State, event: Scanned) -> State:
    """Let go until the next start: another process is one, and none is the end of the run."""
    seen = {v: p for v, p in event.processes.items() if v in state.released}
    runs = {v: p for v, p in seen.items() if state.released_runs.get(v, p) == p}
    return replace(state, released=frozenset(runs), released_runs=runs)


def _gone_forgotten(state: State, event: Scanned) -> State:
    """Without what speaks of guests that this node has no more.

    A migration's target is tracked while its file still lies in the source node's folder.
    """
    there = event.configs.keys() | event.unreadable | state.tracked.keys()
    return replace(
        state,
        configs={v: c for v, c in state.configs.items() if v in there},
        last_places={v: cpus for v, cpus in state.last_places.items() if v in there},
        refused={v: t for v, t in state.refused.items() if v in event.processes.keys() & there},
    )


def _expired(state: State, vmid: Vmid, now: float) -> Result:
    if now - state.tracked[vmid].since < RESERVED_FOR:
        return state, ()
    home = named(state.tracked[vmid].placement.home)
    text = f"announced {RESERVED_FOR:.0f} s ago and not started: {home} free again"
    return state.without_tracked(vmid), (Tell(Level.WARN, vmid, text), Save())


def _seen(state: State, process: GuestProcess, now: float) -> Result:
    """A guest with a placement runs: confine it, at every scan, for masks drift."""
    tracked = state.tracked[process.vmid]
    if tracked.process == process:
        return state, (Confine(process, tracked.placement),)
    tracked = replace(tracked, process=process, since=now)
    # Saved first: a placement that was applied must survive the end of the service.
    actions = (Watch(process), Save(), Confine(process, tracked.placement))
    return state.with_tracked(process.vmid, tracked), actions


def _inspected(state: State, event: Inspected) -> Result:
    """Guests found running: adopt what the kernel says after a loss of state, place the rest."""
    homeless = tuple(
        (process, threads)
        for process, threads in event.guests
        # No thread: it ended after the scan had seen it.
        if threads
        and process.vmid not in state.tracked
        and process.vmid not in state.released
        and state.managed(process.vmid)
    )
    actions: tuple[Action, ...] = ()
    if state.adopt:
        state, actions = adopted(state, homeless, event.time)
    rest = tuple(process for process, _ in homeless if process.vmid not in state.tracked)
    state, more = housed(state, rest, event.time)
    return replace(state, adopt=False), actions + more


def _confirmed(state: State, event: Confirmed) -> Result:
    confined = event.confined
    vmid = confined.process.vmid
    tracked = state.tracked.get(vmid)
    if tracked is None or tracked.process != confined.process:
        return state, ()
    found = tracked.found
    # A failure that saw no thread has changed none either: the first look is still to come.
    if found is None and (confined.found or confined.outcome is not Outcome.FAILED):
        found = _found_first(state, confined)
    before = tracked.confined
    state = state.with_tracked(vmid, replace(tracked, confined=confined, found=found))
    actions: tuple[Action, ...] = (Save(),) if found != tracked.found else ()
    if before is None or (before.outcome, before.wanted) != (confined.outcome, confined.wanted):
        actions += (_told_confined(confined),)
    return state, actions


def _found_first(state: State, confined: Confined) -> tuple[tuple[Tid, CpuSet], ...]:
    """The masks that were there before ours, and are to be put back.

    A mask like ours is one: of a thread that was born while its parent had it already, or of an
    earlier life of the service. A mask of all CPUs is none: undoing gives all that there are then.
    """
    online = state.host.topology.online
    return tuple(
        (tid, mask)
        for tid, mask in confined.found
        if mask != confined.wanted and not online <= mask
    )


def _told_confined(confined: Confined) -> Tell:
    vmid = confined.process.vmid
    match confined.outcome:
        case Outcome.FULL:
            text = f"{confined.threads} threads read back on {named(confined.wanted)}"
            return Tell(Level.INFO, vmid, text)
        case Outcome.PART:
            return Tell(Level.WARN, vmid, f"confined in part only: {_faults(confined)}")
        case Outcome.FAILED:
            return Tell(Level.WARN, vmid, f"not confined: {_faults(confined)}")
        case _:
            assert_never(confined.outcome)


def _told_free(event: SetFree) -> Tell:
    confined = event.confined
    vmid = confined.process.vmid
    match confined.outcome:
        case Outcome.FULL:
            text = f"let go: {confined.threads} threads read back, none is held any more"
            return Tell(Level.INFO, vmid, text)
        case Outcome.PART:
            return Tell(Level.WARN, vmid, f"let go in part only: {_faults(confined)}")
        case Outcome.FAILED:
            return Tell(Level.WARN, vmid, f"not let go: {_faults(confined)}")
        case _:
            assert_never(confined.outcome)


def _faults(confined: Confined) -> str:
    words = [f"{fault.name} ({fault.tid}): {fault.reason}" for fault in confined.faults[:4]]
    more = len(confined.faults) - len(words)
    words += [f"and {more} more"] if more else []
    return "; ".join(words) or "no thread was found"


def _let_go_unmanaged(state: State) -> Result:
    actions: tuple[Action, ...] = ()
    for vmid, tracked in sorted(state.tracked.items()):
        if state.excluded(vmid):
            told = Tell(Level.INFO, vmid, "not to be managed any more")
            actions += (told, *undone(state, tracked))
            state = state.without_tracked(vmid)
    return state, (*actions, Save()) if actions else ()


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
    return state, (*actions, Save())


def _suits(state: State, vmid: Vmid, tracked: Tracked) -> bool:
    """Whether a placement still stands: no CPU of it was lost, and none it lacked has come."""
    home, usable, config = tracked.placement.home, state.host.usable, state.configs.get(vmid)
    enough = len(home) if config is None else min(config.vcpu_count, len(usable))
    return home <= usable and len(home) >= enough


def _reassign_asked(state: State, event: ReassignAsked) -> Result:
    vmid = event.vmid
    tracked = state.tracked.get(vmid)
    if event.undo:
        if tracked is None or tracked.process is None:
            return state, ()
        state = state.without_tracked(vmid).with_released(tracked.process)
        return state, (*undone(state, tracked), Save())
    if state.excluded(vmid):
        return _let_go_unmanaged(state)
    state = state.without_released(vmid)
    if tracked is None or not state.managed(vmid):
        return state, (Save(),)
    state, actions = moved(state.without_tracked(vmid), vmid, tracked)
    return state, (*actions, Save())
