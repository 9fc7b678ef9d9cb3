"""Guests' scopes: held from the first instruction by a drop-in, or as soon as they appear.

A drop-in stands while a start is under way and nothing of it has been seen, never longer; so
which stand follows from the state, and every step brings the files in line. Out of scope: what is
done once a process is proved to be the guest (scanning, brain).
"""

from dataclasses import replace

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Held
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    DeleteDropIn,
    Enclose,
    Level,
    Save,
    Tell,
    WriteDropIn,
)
from proxmox_cpu_affinity.reconcile.events import (
    Enclosed,
    ScopeAppeared,
    ScopeRemoved,
)
from proxmox_cpu_affinity.reconcile.leaving import ended, let_go_unmanaged
from proxmox_cpu_affinity.reconcile.placing import placed
from proxmox_cpu_affinity.reconcile.state import Result, State
from proxmox_cpu_affinity.reconcile.telling import told_enclosed


def in_step(before: State, after: State) -> tuple[Action, ...]:
    """What makes the drop-ins those of the new state. Deleted last: the scope's own limit is
    then in force already."""
    stood, stand = before.drop_ins(), after.drop_ins()
    written = (WriteDropIn(v, cpus) for v, cpus in stand.items() if stood.get(v) != cpus)
    return (*written, *(DeleteDropIn(v) for v in stood if v not in stand))


def appeared(state: State, event: ScopeAppeared) -> Result:
    """A start that nobody may have announced. A process that is proved already makes the signal
    a late one: hooks and scans look after it."""
    vmid = event.vmid
    if event.config is not None:
        state = replace(state, configs={**state.configs, vmid: event.config})
    state, actions = let_go_unmanaged(state)
    if event.process is not None or not state.managed(vmid):
        return state, actions
    state = state.without_released(vmid)
    tracked = state.tracked.get(vmid)
    if tracked is not None and tracked.process is not None:
        state, more = ended(state, tracked.process)
        actions += more
    if vmid not in state.tracked:
        state, more = placed(state, vmid)
        actions += (*more, Save())
    return _enclosing(state, vmid, event, actions)


def _enclosing(
    state: State, vmid: Vmid, event: ScopeAppeared, actions: tuple[Action, ...]
) -> Result:
    tracked = state.tracked.get(vmid)
    if tracked is None:
        return state, actions
    cpus = tracked.placement.applied
    held = tracked.held or (Held.BIRTH if event.allowed == cpus else Held.SCOPE)
    state = state.with_tracked(vmid, replace(tracked, held=held, since=event.time))
    return state, (*actions, Enclose(vmid, cpus))


def enclosed(state: State, event: Enclosed) -> Result:
    """What was read back decides; where it is not what was wanted, the threads will be held once
    a process is proved. Of a start whose scope was not seen yet it says nothing: the answer is to
    an earlier one's."""
    tracked = state.tracked.get(event.vmid)
    if tracked is None or tracked.held is None or tracked.placement.applied != event.wanted:
        return state, ()
    if event.effective == event.wanted:
        since = event.time if tracked.confined_at is None else tracked.confined_at
        state = state.with_tracked(event.vmid, replace(tracked, confined_at=since))
        return state, (told_enclosed(event, tracked.held),)
    state = state.with_tracked(event.vmid, replace(tracked, held=Held.LATER))
    return state, (told_enclosed(event, None),)


def removed(state: State, event: ScopeRemoved) -> Result:
    """A scope that ends before a process was proved was a start that failed."""
    tracked = state.tracked.get(event.vmid)
    if tracked is None or tracked.process is not None or tracked.held is None:
        return state, ()
    home = named(tracked.placement.home)
    text = f"its scope ended before it was up: {home} free again"
    return state.without_tracked(event.vmid), (Tell(Level.WARN, event.vmid, text), Save())
