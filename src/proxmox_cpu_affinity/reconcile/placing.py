"""Placing in the brain's words: a state and a guest in, the next state and actions out.

Out of scope: when a guest is to be placed (brain), and where (engine).
"""

from dataclasses import replace

from proxmox_cpu_affinity.engine.facts import Host, within
from proxmox_cpu_affinity.engine.place import place, placement_of
from proxmox_cpu_affinity.engine.resize import resized
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Policy, Request, Thread
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Held, Width
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Level,
    MoveMemory,
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
    return Request(
        config.vmid, config.vcpu_count, config.policy, previous=previous, warnings=warnings
    )


def _request(state: State, vmid: Vmid) -> Request:
    """As request_for; a guest whose configuration cannot be found stays as large as it is."""
    tracked = state.tracked.get(vmid)
    previous = state.last_places.get(vmid) if tracked is None else tracked.placement.home
    config = state.configs.get(vmid)
    if config is not None:
        return request_for(config, previous)
    assert tracked is not None, "who is neither tracked nor known cannot be placed"
    return Request(vmid, len(tracked.placement.order), tracked.policy, previous=previous)


def _request_of(state: State, vmid: Vmid, vcpus: int) -> Request:
    """As request_for; a guest whose configuration is not known has that many vCPUs."""
    config = state.configs.get(vmid)
    return Request(vmid, vcpus) if config is None else request_for(config, None)


def placed(state: State, vmid: Vmid) -> Result:
    """Choose CPUs for a guest that is tracked or whose configuration is known.

    A refusal is told, not raised, and told again only when it changes: a guest that runs and finds
    no CPU is tried at every scan.
    """
    request = _request(state, vmid)
    try:
        decision, turn = place(state.host, state.occupancy(), state.turn, request)
    except UnplaceableError as error:
        text = f"{error.text} ({error.hint})" if error.hint else error.text
        known = state.refused.get(vmid) == text
        state = replace(state.without_tracked(vmid), refused={**state.refused, vmid: text})
        return state, () if known else (Tell(Level.WARN, vmid, text),)
    state = replace(state.without_refusal(vmid), turn=turn)
    state = state.with_tracked(
        vmid, Tracked(decision.placement, decision=decision, policy=request.policy)
    )
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
    after = replace(
        tracked, placement=fresh.placement, decision=fresh.decision, policy=fresh.policy, void=False
    )
    return given(state, tracked, after, actions)


def refitted(state: State, vmid: Vmid, tracked: Tracked) -> Result:
    """Give a guest that has another number of vCPUs as many CPUs, keeping what it has."""
    request = _request(state, vmid)
    decision = resized(state.host, state.occupancy(), tracked.placement, request)
    after = replace(tracked, placement=decision.placement, decision=decision)
    return given(state, tracked, after, (Record(vmid, decision), _told(decision)))


def given(state: State, before: Tracked, after: Tracked, actions: tuple[Action, ...]) -> Result:
    """Another placement for a run that goes on: not read back yet."""
    after = replace(after, confined=None)
    state = state.with_tracked(after.placement.vmid, after)
    if after.process is None:
        return state, actions
    actions += (Save(), Confine(after.process, after.placement))
    nodes = state.host.topology.nodes_of
    left, onto = nodes(before.placement.home), frozenset(nodes(after.placement.home))
    off = frozenset(left) - onto
    if state.move_memory and off:
        actions += (MoveMemory(after.process, off, onto),)
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
    """After a loss of state: believe the masks of running guests that look like ours. Those that
    float come after those that do not: for them CPUs are chosen inside of their masks."""
    actions: tuple[Action, ...] = ()
    confine: tuple[Action, ...] = ()
    held = [(process, threads, _vcpu_mask(threads)) for process, threads in guests]
    for process, threads, mask in sorted(held, key=lambda one: len(one[2])):
        if not _adoptable(state.host, threads, mask):
            continue
        try:
            tracked = _as_found(state, process, mask, threads)
        except UnplaceableError:
            continue  # placed, or refused, like any other guest that runs
        tracked = replace(tracked, process=process, since=now, found=(), held=Held.LATER)
        state = state.with_tracked(process.vmid, tracked)
        text = f"found running on {named(mask)}: adopted"
        actions += (Tell(Level.INFO, process.vmid, text), Watch(process))
        confine += (Confine(process, tracked.placement),)
    return state, (*actions, Save(), *confine) if confine else actions


def _as_found(
    state: State, process: GuestProcess, mask: CpuSet, threads: tuple[Thread, ...]
) -> Tracked:
    """A placement as the masks show it. A pinned guest's vCPUs keep the CPU each of them is on."""
    vcpus = sum(thread.vcpu is not None for thread in threads)
    request = _request_of(state, process.vmid, vcpus)
    if request.vcpus < len(mask):
        host, turn = within(state.host, mask), state.turn
        decision, _ = place(host, state.occupancy(), turn, request)
        return Tracked(decision.placement, policy=request.policy)
    exclusive = request.policy is Policy.DEDICATED
    placement = placement_of(state.host.topology, request, mask, mask.first(), exclusive=exclusive)
    masks = {thread.vcpu: thread.affinity for thread in threads if thread.vcpu is not None}
    pinned = placement.pinned and all(len(one) == 1 for one in masks.values())
    if pinned and sorted(masks) == list(range(len(placement.order))):
        order = tuple(masks[vcpu].first() for vcpu in sorted(masks))
        placement = replace(placement, order=order)
    return Tracked(placement, policy=request.policy)


def _vcpu_mask(threads: tuple[Thread, ...]) -> CpuSet:
    """All CPUs that a guest's vCPU threads may use."""
    found = EMPTY
    for thread in threads:
        found |= thread.affinity if thread.vcpu is not None else EMPTY
    return found


def _adoptable(host: Host, threads: tuple[Thread, ...], mask: CpuSet) -> bool:
    """Whether vCPU threads may be where we put them: on as many CPUs as they are, or floating
    together in a wider set that is not the whole host."""
    vcpus = [thread.affinity for thread in threads if thread.vcpu is not None]
    if not mask or mask == host.topology.online or not mask <= host.usable | host.topology.isolated:
        return False
    exact = len(mask) == min(len(vcpus), len(host.usable))
    floats = host.rules.width is not Width.EXACT and all(one == mask for one in vcpus)
    return exact or (floats and len(mask) > len(vcpus))
