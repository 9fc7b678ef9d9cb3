"""What if: a further guest, or all placed anew. Pure: the brain and the engine on a copy.

The state is a value, so that asking changes nothing; what is told is what would be done now.
"""

from collections.abc import Container, Mapping

from proxmox_cpu_affinity.engine.facts import Host
from proxmox_cpu_affinity.engine.plan import plan
from proxmox_cpu_affinity.engine.rebalance import Move, Question, moving_cost, rebalanced
from proxmox_cpu_affinity.engine.score import guest_scores, score
from proxmox_cpu_affinity.formats import wire_trial as wire
from proxmox_cpu_affinity.model.guest import Request, described
from proxmox_cpu_affinity.model.ids import VMID_MAX, Vmid
from proxmox_cpu_affinity.model.placement import Placement
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.events import ReassignAsked
from proxmox_cpu_affinity.reconcile.placing import request_for

FELT = 0.00005  # shares of a vCPU's time: what is less is rounded away


def asked_for(query: Mapping[str, str], taken: Container[int]) -> Request:
    """The request of the guest that a checked query spells, with a VMID that nobody has."""
    guest = described(
        Vmid(next(number for number in range(VMID_MAX, 0, -1) if number not in taken)),
        int(query["vcpus"]),
        sockets=int(query.get("sockets", "1")),
        numa=query.get("numa") == "1",
        tags=(f"cpu-{query['policy']}",) if "policy" in query else (),
    )
    return request_for(guest, None)


def tried(state: State, request: Request) -> wire.Trial:
    """Where a further guest would go, and what the others would lose by it."""
    host, standing = state.host, [t.placement for t in state.tracked.values()]
    made = plan(host, state.occupancy(), state.turn, (request,))
    before = host_score(host, standing)
    if not made.decisions:
        return _refused(request, dict(made.refused)[request.vmid], before)
    decision = made.decisions[0]
    placed = decision.placement
    together = [*standing, placed]
    were, are = guest_scores(host, standing), guest_scores(host, together)
    others = [
        wire.Neighbour(p.vmid, str(p.home), _share(were[p.vmid][0]), _share(are[p.vmid][0]))
        for p in sorted(standing, key=lambda p: p.vmid)
        if are[p.vmid][0] - were[p.vmid][0] > FELT
    ]
    cost = sum((are[p.vmid][0] - were[p.vmid][0]) * len(p.order) for p in standing)
    own, bound = are[request.vmid]
    return wire.Trial(
        vcpus=request.vcpus,
        policy=request.policy,
        cpus=str(placed.home),
        nodes=list(host.topology.nodes_of(placed.home)),
        cache_groups=sorted({host.topology.place(cpu).llc for cpu in placed.home}),
        start=placed.start,
        reason=decision.reason,
        refused="",
        warnings=list(placed.warnings),
        score=_share(own),
        bound=_share(bound),
        others=others,
        cost=_share(cost),
        before=before,
        after=host_score(host, together),
    )


def _refused(request: Request, why: str, before: wire.HostScore | None) -> wire.Trial:
    return wire.Trial(
        vcpus=request.vcpus,
        policy=request.policy,
        cpus="",
        nodes=[],
        cache_groups=[],
        start=None,
        reason="",
        refused=why,
        warnings=[],
        score=None,
        bound=None,
        others=[],
        cost=0.0,
        before=before,
        after=before,
    )


def rebalancing(state: State) -> wire.Preview:
    """The moves that pay, as they would be made after a stop."""
    policies = {vmid: tracked.policy for vmid, tracked in state.tracked.items()}
    starting = frozenset(vmid for vmid, tracked in state.tracked.items() if not tracked.running)
    moves = rebalanced(Question(state.host, state.occupancy(), staying=starting, policies=policies))
    after = {v: t.placement for v, t in state.tracked.items()}
    after |= {move.after.vmid: move.after for move in moves}
    return _preview(state, "rebalance", [_move(move) for move in moves], after)


def reassigning(state: State, *, now: float) -> wire.Preview:
    """What placing each running guest anew would come to, one after the other by VMID."""
    moves, there = [], state
    for vmid in sorted(v for v, t in state.tracked.items() if t.running):
        before = there
        there, _ = step(there, ReassignAsked(now, vmid))
        move = _moved(before, there, vmid)
        moves += [] if move is None else [move]
    return _preview(state, "reassign", moves, {v: t.placement for v, t in there.tracked.items()})


def _moved(before: State, after: State, vmid: Vmid) -> wire.Move | None:
    old, new = before.tracked[vmid], after.tracked.get(vmid)
    if new is None:
        why = after.refused.get(vmid, "it would be let go")
        return wire.Move(vmid, str(old.placement.home), "", 0.0, 0.0, why)
    if new.placement.home == old.placement.home:
        return None
    host = before.host
    lost = _lost(host, before) - _lost(host, after)
    members = host.indexes(old.placement.order), host.indexes(new.placement.order)
    return wire.Move(
        vmid,
        str(old.placement.home),
        str(new.placement.home),
        _share(lost),
        _share(moving_cost(host, *members)),
        "" if new.decision is None else new.decision.reason,
    )


def _lost(host: Host, state: State) -> float:
    """What all guests lose, summed over their vCPUs."""
    placements = [t.placement for t in state.tracked.values()]
    scores = guest_scores(host, placements)
    return sum(scores[p.vmid][0] * len(p.order) for p in placements)


def _move(move: Move) -> wire.Move:
    return wire.Move(
        move.after.vmid,
        str(move.before.home),
        str(move.after.home),
        _share(move.gain),
        _share(move.cost),
        move.reason,
    )


def _preview(
    state: State, by: str, moves: list[wire.Move], after: Mapping[Vmid, Placement]
) -> wire.Preview:
    moving = {move.vmid for move in moves}
    return wire.Preview(
        by=by,
        moves=moves,
        staying=sorted(v for v in state.tracked if v not in moving),
        before=host_score(state.host, [t.placement for t in state.tracked.values()]),
        after=host_score(state.host, list(after.values())),
    )


def host_score(host: Host, placements: list[Placement]) -> wire.HostScore | None:
    found = score(host, placements)
    return None if found is None else wire.HostScore(_share(found.slowdown), _share(found.bound))


def _share(value: float) -> float:
    return round(value, 4)
