"""PCA_WIDTH in the brain: what guests' threads may use follows from who shares, after each step.

A cache group becomes wide at once and exact again only after nobody shared in it for a minute. A
guest that waits for CPUs although it floats may go beyond (PCA_WIDEN).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.width import crowded, floats, widened
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Widen, Width
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Enclose,
    Level,
    Save,
    Tell,
)
from proxmox_cpu_affinity.reconcile.events import Waited
from proxmox_cpu_affinity.reconcile.state import Result, State
from proxmox_cpu_affinity.reconcile.strain import Strain, felt

UNSHARED_FOR = 60.0
"""Seconds for which nobody must have shared in a cache group before it is exact again."""


def waited(state: State, event: Waited) -> State:
    """Who waited for CPUs, and who does no more. O(guests that float)."""
    rules = state.host.rules.widening
    if rules.when is Widen.OFF:
        return state
    strain = {
        vmid: felt(state.strain.get(vmid, Strain()), event.shares.get(vmid), event.time, rules)
        for vmid in state.tracked.keys() & event.shares.keys() | state.strain.keys()
    }
    return replace(state, strain={vmid: one for vmid, one in strain.items() if not one.idle})


def settled(state: State, actions: tuple[Action, ...], now: float) -> Result:
    """The state with every guest's set as wide as it is to be, and what that takes."""
    if not state.tracked:
        bare = not state.wide and not state.strain
        return state if bare else replace(state, wide={}, strain={}), actions
    state = replace(state, wide=_wide(state, now))
    state = replace(state, strain=_strain(state))
    sets = widened(state.host, state.occupancy(), state.wide.keys(), state.strained)
    changed = [v for v, t in state.tracked.items() if _reach(t.placement) != _reach(sets[v])]
    for vmid in changed:
        state = state.with_tracked(vmid, replace(state.tracked[vmid], placement=sets[vmid]))
    return state, _confining(state, actions, changed)


def _strain(state: State) -> Mapping[Vmid, Strain]:
    """Of those that run and float: of another guest waiting says nothing about its CPUs."""
    if state.host.rules.widening.when is Widen.OFF:
        return {}
    return {
        vmid: strain
        for vmid, strain in state.strain.items()
        if vmid in state.tracked
        and state.tracked[vmid].running
        and floats(state.host, state.tracked[vmid].placement, state.wide.keys())
    }


def _reach(placement: Placement) -> tuple[CpuSet, ...]:
    return placement.applied, *placement.spans


def _wide(state: State, now: float) -> dict[CpuSet, float]:
    """The cache groups that are wide, with when they were last seen shared."""
    rules, groups = state.host.rules, state.host.topology.cache_groups
    if rules.strategy is Strategy.ROUND_ROBIN:
        return {}
    match rules.width:
        case Width.EXACT:
            return {}
        case Width.DOMAIN:
            return dict.fromkeys(groups, now)
        case Width.AUTO:
            lately = {g: t for g, t in state.wide.items() if g in groups and now - t < UNSHARED_FOR}
            return {**lately, **dict.fromkeys(crowded(state.host, state.occupancy()), now)}
        case _:
            assert_never(rules.width)


def _confining(
    state: State, actions: tuple[Action, ...], changed: list[Vmid]
) -> tuple[Action, ...]:
    """The actions with the placements as they are now, and those of guests that float wider or
    narrower though nothing else happened to them."""
    confined = {action.process.vmid for action in actions if isinstance(action, Confine)}
    fresh = [_as_now(state, action) for action in actions]
    told = _told(state, changed)
    for vmid in sorted(changed):
        tracked = state.tracked[vmid]
        if vmid not in confined and tracked.process is not None:
            fresh.append(Confine(tracked.process, tracked.placement))
    # Before the first effect, as everything that must outlive the end of the service.
    effects = (i for i, action in enumerate(fresh) if isinstance(action, Confine | Enclose))
    first = next(effects, len(fresh))
    saved = (Save(),) if told else ()
    return (*fresh[:first], *told, *saved, *fresh[first:])


def _told(state: State, changed: list[Vmid]) -> list[Action]:
    if not changed:
        return []
    report = state.reporter()
    return [
        Tell(Level.INFO, vmid, report.width(state.tracked[vmid].placement))
        for vmid in sorted(changed)
    ]


def _as_now(state: State, action: Action) -> Action:
    match action:
        case Confine(process) if process.vmid in state.tracked:
            return replace(action, placement=state.tracked[process.vmid].placement)
        case Enclose(vmid) if vmid in state.tracked:
            return replace(action, cpus=state.tracked[vmid].placement.applied)
        case _:
            return action
