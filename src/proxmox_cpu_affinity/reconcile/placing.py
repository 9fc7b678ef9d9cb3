"""Placing in the brain's words: a state and a guest in, the next state and actions out.

Out of scope: when a guest is to be placed (brain), and where (engine).
"""

from dataclasses import replace

from proxmox_cpu_affinity.engine.facts import Host
from proxmox_cpu_affinity.engine.place import in_order, place
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Policy, Request, Thread
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Held, Placement
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Level,
    Record,
    Save,
    Tell,
    Watch,
    named,
)
from proxmox_cpu_affinity.reconcile.leaving import undone
from proxmox_cpu_affinity.reconcile.state import Result, State, Tracked


def request_for(config: GuestConfig, previous: CpuSet | None) -> Request:
    """What a guest's configuration asks for."""
    warnings: tuple[str, ...] = ()
    if len(config.policies) > 1:
        tags = " and ".join(f"cpu-{policy}" for policy in config.policies)
        warnings += (f"tags {tags} contradict each other: shared",)
    elif config.policy is not Policy.SHARED:
        warnings += (f"policy {config.policy} is not in this version: shared",)
    return Request(config.vmid, config.vcpu_count, previous=previous, warnings=warnings)


def _request(state: State, vmid: Vmid) -> Request:
    """As request_for; a guest whose configuration cannot be found stays as large as it is."""
    previous = state.last_places.get(vmid)
    config = state.configs.get(vmid)
    if config is not None:
        return request_for(config, previous)
    return Request(vmid, len(state.tracked[vmid].placement.order), previous=previous)


def placed(state: State, vmid: Vmid) -> Result:
    """Choose CPUs for a guest that is tracked or whose configuration is known.

    A refusal is told, not raised, and told again only when it changes: a guest that runs and finds
    no CPU is tried at every scan.
    """
    try:
        decision, turn = place(state.host, state.occupancy(), state.turn, _request(state, vmid))
    except UnplaceableError as error:
        known = state.refused.get(vmid) == error.text
        state = replace(state.without_tracked(vmid), refused={**state.refused, vmid: error.text})
        return state, () if known else (Tell(Level.WARN, vmid, error.text),)
    state = replace(state.without_refusal(vmid), turn=turn)
    state = state.with_tracked(vmid, Tracked(decision.placement, decision=decision))
    return state, (Record(vmid, decision), _told(decision))


def _told(decision: Decision) -> Tell:
    placement = decision.placement
    text = "; ".join((f"{named(placement.home)}: {decision.reason}", *placement.warnings))
    return Tell(Level.WARN if placement.warnings else Level.INFO, placement.vmid, text)


def moved(state: State, vmid: Vmid, tracked: Tracked) -> Result:
    """Place a tracked guest anew; what was found first stays, for undoing."""
    state, actions = placed(state, vmid)
    fresh = state.tracked.get(vmid)
    if fresh is None:
        return state, (*actions, *undone(state, tracked))
    fresh = replace(
        fresh,
        process=tracked.process,
        found=tracked.found,
        since=tracked.since,
        held=tracked.held,
    )
    state = state.with_tracked(vmid, fresh)
    if fresh.process is not None:
        actions += (Save(), Confine(fresh.process, fresh.placement))
    return state, actions


def housed(state: State, processes: tuple[GuestProcess, ...], now: float) -> Result:
    """Place guests that run already."""
    actions: tuple[Action, ...] = ()
    confine: tuple[Action, ...] = ()
    for process in processes:
        state, more = placed(state, process.vmid)
        actions += more
        tracked = state.tracked.get(process.vmid)
        if tracked is not None:
            tracked = replace(tracked, process=process, since=now, held=Held.LATER)
            state = state.with_tracked(process.vmid, tracked)
            actions += (Watch(process),)
            confine += (Confine(process, tracked.placement),)
    # Saved first: a placement that was applied must survive the end of the service.
    return state, (*actions, Save(), *confine) if confine else actions


def adopted(
    state: State, guests: tuple[tuple[GuestProcess, tuple[Thread, ...]], ...], now: float
) -> Result:
    """After a loss of state: believe the masks of running guests that look like ours."""
    actions: tuple[Action, ...] = ()
    confine: tuple[Action, ...] = ()
    for process, threads in guests:
        home = _adoptable(state.host, threads)
        if home is None:
            continue
        order = in_order(state.host.topology, home)
        placement = Placement(process.vmid, home, home, order, order[0], (home,))
        tracked = Tracked(placement, process, now, found=(), held=Held.LATER)
        state = state.with_tracked(process.vmid, tracked)
        text = f"found running on {named(home)}: adopted"
        actions += (Tell(Level.INFO, process.vmid, text), Watch(process))
        confine += (Confine(process, placement),)
    return state, (*actions, Save(), *confine) if confine else actions


def _adoptable(host: Host, threads: tuple[Thread, ...]) -> CpuSet | None:
    """The CPUs of a guest's vCPU threads, if they look like a placement of ours."""
    masks = [thread.affinity for thread in threads if thread.vcpu is not None]
    home = EMPTY
    for mask in masks:
        home |= mask
    fits = bool(home) and len(home) == min(len(masks), len(host.usable)) and home <= host.usable
    return home if fits and home != host.topology.online else None
