"""PCA_WIDTH in the brain: what guests' threads may use follows from who shares, after each step.

A cache group becomes wide at once and exact again only after nobody shared in it for a minute.
"""

from dataclasses import replace
from typing import assert_never

from proxmox_cpu_affinity.engine.width import crowded, widened
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Width
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Enclose,
    Level,
    Save,
    Tell,
    named,
)
from proxmox_cpu_affinity.reconcile.state import Result, State

UNSHARED_FOR = 60.0
"""Seconds for which nobody must have shared in a cache group before it is exact again."""


def settled(state: State, actions: tuple[Action, ...], now: float) -> Result:
    """The state with every guest's set as wide as it is to be, and what that takes."""
    if not state.tracked:
        return replace(state, wide={}) if state.wide else state, actions
    state = replace(state, wide=_wide(state, now))
    sets = widened(state.host, state.occupancy(), state.wide.keys())
    changed = [v for v, t in state.tracked.items() if _reach(t.placement) != _reach(sets[v])]
    for vmid in changed:
        state = state.with_tracked(vmid, replace(state.tracked[vmid], placement=sets[vmid]))
    return state, _confining(state, actions, changed)


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
    told: list[Action] = []
    for vmid in sorted(changed):
        tracked = state.tracked[vmid]
        told.append(Tell(Level.INFO, vmid, _words(state, tracked.placement)))
        if vmid not in confined and tracked.process is not None:
            fresh.append(Confine(tracked.process, tracked.placement))
    # Before the first effect, as everything that must outlive the end of the service.
    effects = (i for i, action in enumerate(fresh) if isinstance(action, Confine | Enclose))
    first = next(effects, len(fresh))
    saved = (Save(),) if told else ()
    return (*fresh[:first], *told, *saved, *fresh[first:])


def _as_now(state: State, action: Action) -> Action:
    match action:
        case Confine(process) if process.vmid in state.tracked:
            return replace(action, placement=state.tracked[process.vmid].placement)
        case Enclose(vmid) if vmid in state.tracked:
            return replace(action, cpus=state.tracked[vmid].placement.applied)
        case _:
            return action


def _words(state: State, placement: Placement) -> str:
    if placement.applied == placement.home:
        if any(group.overlaps(placement.home) for group in state.wide):
            return f"on its own {named(placement.home)}: the others there are pinned or dedicated"
        return f"on its own {named(placement.home)} again: no vCPUs share CPUs there any more"
    domain = state.host.rules.width is Width.DOMAIN
    why = "PCA_WIDTH=domain" if domain else "vCPUs share CPUs there"
    return f"floats in {named(placement.applied)}: {why}"
