"""Placing in the brain's words: a state and a guest in, the next state and actions out.

Out of scope: when a guest is to be placed (brain), and where (engine).
"""

from collections.abc import Sequence
from dataclasses import replace

from proxmox_cpu_affinity.engine.facts import Host, within
from proxmox_cpu_affinity.engine.place import place, placement_of
from proxmox_cpu_affinity.engine.report import decided, named
from proxmox_cpu_affinity.engine.resize import resized
from proxmox_cpu_affinity.engine.review import reviewed
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import (
    GuestConfig,
    GuestNode,
    GuestProcess,
    Policy,
    Request,
    Thread,
)
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Held, Placement, Width
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Level,
    MoveMemory,
    Record,
    Save,
    Tell,
    Watch,
)
from proxmox_cpu_affinity.reconcile.leaving import undone
from proxmox_cpu_affinity.reconcile.state import Result, State, Tracked


def request_for(
    config: GuestConfig, previous: CpuSet | None, parts: tuple[CpuSet, ...] = ()
) -> Request:
    """What a guest's configuration asks for; `parts` are where its nodes are, if it runs."""
    warnings: tuple[str, ...] = ()
    if len(config.policies) > 1:
        tags = " and ".join(f"cpu-{policy}" for policy in config.policies)
        warnings += (f"tags {tags} contradict each other: shared",)
    return Request(
        config.vmid,
        config.vcpu_count,
        config.policy,
        guest_nodes=config.guest_nodes,
        previous=previous,
        previous_parts=parts,
        warnings=warnings,
    )


def _request(state: State, vmid: Vmid) -> Request:
    """As request_for; a guest whose configuration cannot be found stays as large as it is."""
    tracked = state.tracked.get(vmid)
    config = state.configs.get(vmid)
    if tracked is None:
        assert config is not None, "who is neither tracked nor known cannot be placed"
        return request_for(config, state.last_places.get(vmid))
    placement = tracked.placement
    if config is not None:
        parts = _parts_of(placement, config.guest_nodes)
        return request_for(config, placement.home, parts)
    return Request(
        vmid,
        len(placement.order),
        tracked.policy,
        guest_nodes=placement.guest_nodes,
        previous=placement.home,
        previous_parts=_parts_of(placement, placement.guest_nodes),
    )


def _parts_of(placement: Placement, nodes: Sequence[GuestNode]) -> tuple[CpuSet, ...]:
    """Where those vCPUs of each guest node are that the guest has already. The nodes may be others
    than it was placed with: one goes with the last of its vCPUs."""
    if not placement.part_of:
        return ()
    order = placement.order
    return tuple(CpuSet.of(order[v] for v in node.vcpus if v < len(order)) for node in nodes)


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
    level = Level.WARN if placement.warnings else Level.INFO
    return Tell(level, placement.vmid, decided(decision))


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
    decision = _refit(state, tracked.placement, _request(state, vmid))
    after = replace(tracked, placement=decision.placement, decision=decision)
    return given(state, tracked, after, (Record(vmid, decision), _told(decision)))


def _refit(state: State, placement: Placement, request: Request) -> Decision:
    """With virtual NUMA its nodes stay on the host nodes where their memory is."""
    if placement.part_of and request.guest_nodes:
        parts = request.previous_parts
        there = [frozenset(state.host.topology.nodes_of(part)) for part in parts]
        stays = staying(request, there)
        try:
            return place(state.host, state.occupancy(), state.turn, stays)[0]
        except UnplaceableError:
            pass  # it runs: what it has is made to do
    return resized(state.host, state.occupancy(), placement, request)


def staying(request: Request, hosts: Sequence[frozenset[int]]) -> Request:
    """The request with its guest nodes bound to these host nodes, as far as they are known."""
    pairs = zip(request.guest_nodes, hosts, strict=True)
    nodes = tuple(GuestNode(node.vcpus, there or node.hosts) for node, there in pairs)
    return replace(request, guest_nodes=nodes)


def review(state: State, vmid: Vmid) -> Decision:
    """What a tracked guest's place and others would cost now."""
    placement = state.tracked[vmid].placement
    request = replace(_request(state, vmid), vcpus=len(placement.order))
    return reviewed(state.host, state.occupancy(), state.turn, placement, request)


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
        config = state.configs.get(process.vmid)
        by_nodes = config is not None and bool(config.guest_nodes)
        if not _adoptable(state.host, threads, mask, by_nodes=by_nodes):
            continue
        try:
            tracked = _as_found(state, process, mask, threads)
        except UnplaceableError:
            continue  # placed, or refused, like any other guest that runs
        tracked = replace(tracked, process=process, since=now, found=(), held=Held.LATER)
        state = state.without_refusal(process.vmid).with_tracked(process.vmid, tracked)
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
    if request.guest_nodes:
        parts = [_vcpu_mask(threads, node.vcpus) for node in request.guest_nodes]
        there = [frozenset(state.host.topology.nodes_of(part)) for part in parts]
        request = replace(staying(request, there), previous_parts=tuple(parts))
    if request.vcpus < len(mask) or request.guest_nodes:
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


def _vcpu_mask(threads: tuple[Thread, ...], vcpus: Sequence[int] | None = None) -> CpuSet:
    """All CPUs that these of a guest's vCPU threads (None: all) may use."""
    found = EMPTY
    for thread in threads:
        one = thread.vcpu is not None and (vcpus is None or thread.vcpu in vcpus)
        found |= thread.affinity if one else EMPTY
    return found


def _adoptable(
    host: Host, threads: tuple[Thread, ...], mask: CpuSet, *, by_nodes: bool = False
) -> bool:
    """Whether vCPU threads may be where we put them: on as many CPUs as they are, or floating
    together (`by_nodes`: those of each guest node) in a wider set that is not the whole host."""
    vcpus = [thread.affinity for thread in threads if thread.vcpu is not None]
    nobodys = mask == host.topology.online and not _pinned(vcpus)
    if not mask or nobodys or not mask <= host.usable | host.topology.isolated:
        return False
    exact = len(mask) == min(len(vcpus), len(host.usable))
    together = all(one == mask or (by_nodes and one in _apart(vcpus)) for one in vcpus)
    floats = host.rules.width is not Width.EXACT and together
    return exact or (floats and len(mask) > len(vcpus))


def _pinned(masks: Sequence[CpuSet]) -> bool:
    """Whether each has one CPU, and not all the same: by chance nobody's threads have."""
    return all(len(mask) == 1 for mask in masks) and len(frozenset(masks)) > 1


def _apart(masks: Sequence[CpuSet]) -> frozenset[CpuSet]:
    """Those of these sets that overlap no other one."""
    different = frozenset(masks)
    return frozenset(a for a in different if not any(a != b and a.overlaps(b) for b in different))
