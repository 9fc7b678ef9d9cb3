"""One function per event; each returns the next state and what is to be done."""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.place import in_order, place
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Policy, Request, Thread
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Outcome, Placement, Strategy
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Inspect,
    Level,
    Record,
    Save,
    Tell,
    Undo,
    Watch,
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
from proxmox_cpu_affinity.reconcile.state import RESERVED_FOR, State, Tracked

Result = tuple[State, tuple[Action, ...]]


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
    state = replace(state, released=state.released - {event.vmid})
    state = state.without_tracked(event.vmid)
    if not state.managed(event.vmid):
        return state, ()
    state, actions = _placed(state, event.vmid)
    tracked = state.tracked.get(event.vmid)
    if tracked is not None:
        state = state.with_tracked(event.vmid, replace(tracked, since=event.time))
    return state, (*actions, Save())


def _started(state: State, event: HookCalled) -> Result:
    if not state.managed(event.vmid) or event.vmid in state.released:
        return state, ()
    if event.process is None:
        text = "started, but no process is proved to be it yet; the next scan will look again"
        return state, (Tell(Level.WARN, event.vmid, text),)
    return _appeared(state, (event.process,), event.time)


def _stopped(state: State, event: HookCalled) -> Result:
    """Under PVE 8 this hook may come after the next start: only a process that is gone counts."""
    tracked = state.tracked.get(event.vmid)
    if tracked is None or tracked.process is None or tracked.process == event.process:
        return state, ()
    return _process_ended(state, tracked.process)


def _process_ended(state: State, process: GuestProcess) -> Result:
    tracked = state.tracked.get(process.vmid)
    if tracked is None or tracked.process != process:
        return state, ()
    text = f"stopped: CPUs {tracked.placement.home} are free again"
    state = replace(state.without_tracked(process.vmid), released=state.released - {process.vmid})
    return state, (Tell(Level.INFO, process.vmid, text), Save())


def _scanned(state: State, event: Scanned) -> Result:
    """Make the actual equal the desired: the one place that does not depend on hints."""
    # What was heard of while the scan read is newer than what the scan says.
    newer = {v for v, t in state.tracked.items() if t.since > event.time}
    # A migration's target is tracked while its file still lies in the source node's folder.
    kept = {v: c for v, c in state.configs.items() if v in event.unreadable or v in state.tracked}
    ours = {v: c for v, c in kept.items() if v in newer}
    state = replace(
        state,
        configs={**kept, **event.configs, **ours},
        released=frozenset(v for v in state.released if v in event.processes),
    )
    state, actions = _let_go_unmanaged(state)
    for vmid, tracked in tuple(state.tracked.items()):
        if vmid in newer:
            continue
        if tracked.process is not None and event.processes.get(vmid) != tracked.process:
            state, more = _process_ended(state, tracked.process)
            actions += more
        elif tracked.process is None and vmid not in event.processes:
            state, more = _expired(state, vmid, event.time)
            actions += more
    wanted = tuple(
        process
        for vmid, process in sorted(event.processes.items())
        if state.managed(vmid) and vmid not in state.released and vmid not in newer
    )
    state, more = _appeared(state, wanted, event.time)
    return state, actions + more


def _expired(state: State, vmid: Vmid, now: float) -> Result:
    if now - state.tracked[vmid].since < RESERVED_FOR:
        return state, ()
    text = f"announced {RESERVED_FOR:.0f} s ago and not started: its CPUs are free again"
    return state.without_tracked(vmid), (Tell(Level.WARN, vmid, text), Save())


def _appeared(state: State, processes: tuple[GuestProcess, ...], now: float) -> Result:
    """Running guests that are ours: confine those with a placement, look at the others first."""
    actions: tuple[Action, ...] = ()
    unknown: tuple[GuestProcess, ...] = ()
    for process in processes:
        tracked = state.tracked.get(process.vmid)
        if tracked is None:
            unknown += (process,)
        elif tracked.process == process:
            actions += (Confine(process, tracked.placement),)
        else:
            state = state.with_tracked(
                process.vmid, replace(tracked, process=process, since=now, found=None)
            )
            # Saved first: a placement that was applied must survive the end of the service.
            actions += (Watch(process), Save(), Confine(process, tracked.placement))
    if unknown:
        actions += (Inspect(unknown),)
    elif state.adopt and processes:
        state = replace(state, adopt=False)
    return state, actions


def _inspected(state: State, event: Inspected) -> Result:
    """Guests found running: adopt what the kernel says after a loss of state, place the rest."""
    actions: tuple[Action, ...] = ()
    confine: tuple[Action, ...] = ()
    homeless: list[GuestProcess] = []
    for process, threads in event.guests:
        if process.vmid in state.tracked or not state.managed(process.vmid):
            continue
        home = _adoptable(state, process.vmid, threads) if state.adopt else None
        if home is None:
            homeless.append(process)
            continue
        placement = _adopted(state, process.vmid, home)
        state = state.with_tracked(process.vmid, Tracked(placement, process, event.time, found=()))
        text = f"found running on CPUs {home}: adopted"
        actions += (Tell(Level.INFO, process.vmid, text), Watch(process))
        confine += (Confine(process, placement),)
    for process in homeless:
        state, more = _placed(state, process.vmid)
        actions += more
        tracked = state.tracked.get(process.vmid)
        if tracked is not None:
            state = state.with_tracked(
                process.vmid, replace(tracked, process=process, since=event.time)
            )
            actions += (Watch(process),)
            confine += (Confine(process, tracked.placement),)
    return replace(state, adopt=False), (*actions, Save(), *confine)


def _adoptable(state: State, vmid: Vmid, threads: tuple[Thread, ...]) -> CpuSet | None:
    """The CPUs of a guest's vCPU threads, if they look like a placement of ours."""
    home = EMPTY
    vcpus = 0
    for thread in threads:
        if thread.vcpu is not None:
            home |= thread.affinity
            vcpus += 1
    usable = state.host.usable
    fits = bool(home) and len(home) == min(vcpus, len(usable)) and home <= usable
    return home if fits and home != state.host.topology.online else None


def _adopted(state: State, vmid: Vmid, home: CpuSet) -> Placement:
    order = in_order(state.host.topology, home)
    return Placement(vmid, home, home, order, order[0], (home,))


def _placed(state: State, vmid: Vmid) -> Result:
    """Choose CPUs for a guest of which the config is known. Refusals are told, not raised."""
    request = request_for(state.configs[vmid], state.last_places.get(vmid))
    try:
        decision, turn = place(state.host, state.occupancy(), state.turn, request)
    except UnplaceableError as error:
        return state.without_tracked(vmid), (Tell(Level.WARN, vmid, error.text),)
    state = replace(state, turn=turn)
    state = state.with_tracked(vmid, Tracked(decision.placement, decision=decision))
    told = Tell(Level.INFO, vmid, f"CPUs {decision.placement.home}: {decision.reason}")
    return state, (Record(vmid, decision), told)


def request_for(config: GuestConfig, previous: CpuSet | None) -> Request:
    """What a guest's configuration asks for."""
    warnings: tuple[str, ...] = ()
    if len(config.policies) > 1:
        named = " and ".join(f"cpu-{policy}" for policy in config.policies)
        warnings += (f"tags {named} contradict each other: shared",)
    elif config.policy is not Policy.SHARED:
        warnings += (f"policy {config.policy} is not in this version: shared",)
    return Request(config.vmid, config.vcpu_count, previous=previous, warnings=warnings)


def _confirmed(state: State, event: Confirmed) -> Result:
    confined = event.confined
    vmid = confined.process.vmid
    tracked = state.tracked.get(vmid)
    if tracked is None or tracked.process != confined.process:
        return state, ()
    # Later threads inherit masks of ours: only the first look shows what was there before.
    found = confined.found if tracked.found is None else tracked.found
    before = None if tracked.confined is None else tracked.confined.outcome
    state = state.with_tracked(vmid, replace(tracked, confined=confined, found=found))
    actions: tuple[Action, ...] = (Save(),) if found != tracked.found else ()
    if confined.outcome is Outcome.FULL:
        if before is not Outcome.FULL:
            text = f"{confined.threads} threads read back on CPUs {confined.wanted}"
            actions += (Tell(Level.INFO, vmid, text),)
    elif before is not confined.outcome:
        faults = "; ".join(f"{f.name} ({f.tid}): {f.reason}" for f in confined.faults[:4])
        text = f"confined in {confined.outcome} only: {faults or 'no thread was found'}"
        actions += (Tell(Level.WARN, vmid, text),)
    return state, actions


def _told_free(event: SetFree) -> Tell:
    confined = event.confined
    if confined.outcome is Outcome.FULL:
        text = f"let go: {confined.threads} threads have the CPUs back that they had before"
        return Tell(Level.INFO, confined.process.vmid, text)
    faults = "; ".join(f"{f.name} ({f.tid}): {f.reason}" for f in confined.faults[:4])
    return Tell(Level.WARN, confined.process.vmid, f"let go in {confined.outcome}: {faults}")


def _let_go_unmanaged(state: State) -> Result:
    actions: tuple[Action, ...] = ()
    for vmid, tracked in tuple(state.tracked.items()):
        if state.excluded(vmid):
            actions += (
                Tell(Level.INFO, vmid, "not to be managed any more"),
                *_undo(state, tracked),
            )
            state = state.without_tracked(vmid)
    return state, (*actions, Save()) if actions else ()


def _undo(state: State, tracked: Tracked) -> tuple[Action, ...]:
    if tracked.process is None:
        return ()
    return (Undo(tracked.process, tracked.found or (), state.host.topology.online),)


def _host_changed(state: State, event: HostChanged) -> Result:
    """Guests keep their CPUs while these are usable; those that lost one are placed anew."""
    state = replace(state, host=event.host)
    if event.measured and event.host.rules.strategy is Strategy.ROUND_ROBIN:
        state = replace(state, last_places={})
    actions: tuple[Action, ...] = ()
    for vmid, tracked in sorted(state.tracked.items()):
        if tracked.placement.home <= event.host.usable:
            continue
        state, more = _moved(state, vmid, tracked)
        actions += more
    return state, (*actions, Save())


def _moved(state: State, vmid: Vmid, tracked: Tracked) -> Result:
    """Place a tracked guest anew; what was found first stays, for undoing."""
    state, actions = _placed(state, vmid)
    fresh = state.tracked.get(vmid)
    if fresh is None:
        return state, (*actions, *_undo(state, tracked))
    fresh = replace(fresh, process=tracked.process, found=tracked.found, since=tracked.since)
    state = state.with_tracked(vmid, fresh)
    if fresh.process is not None:
        actions += (Save(), Confine(fresh.process, fresh.placement))
    return state, actions


def _reassign_asked(state: State, event: ReassignAsked) -> Result:
    vmid = event.vmid
    tracked = state.tracked.get(vmid)
    if event.undo:
        if tracked is None or tracked.process is None:
            return state, ()
        state = replace(state.without_tracked(vmid), released=state.released | {vmid})
        return state, (*_undo(state, tracked), Save())
    state = replace(state, released=state.released - {vmid})
    if tracked is None or not state.managed(vmid):
        return state, (Save(),)
    state = replace(state, last_places={**state.last_places, vmid: tracked.placement.home})
    state, actions = _moved(state, vmid, tracked)
    return state, (*actions, Save())
