"""The decision for one guest: its request, the host, and who is there already."""

from dataclasses import replace

import numpy as np

from proxmox_cpu_affinity.engine import candidates, nearest, nodes, round_robin
from proxmox_cpu_affinity.engine.facts import Bools, Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import Load, load_of
from proxmox_cpu_affinity.engine.policy import Admission, admission
from proxmox_cpu_affinity.engine.price import prices
from proxmox_cpu_affinity.engine.trace import Candidate, Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.placement import Placement, Strategy
from proxmox_cpu_affinity.model.topology import Topology

KEEP = 0.02  # per vCPU: an old place is kept while the best is not cheaper by more
SHOWN = 5  # candidates that a decision keeps
POLISHED = 2  # of the best sets


def place(host: Host, occupancy: Occupancy, turn: Turn, request: Request) -> tuple[Decision, Turn]:
    """Choose CPUs for a guest; the turn that comes back is the next decision's.

    The guest itself may still be among the placements: it is left out. UnplaceableError when no
    CPU is usable, or the strategy or the policy refuses. Deterministic: same facts, same answer.
    """
    by_turns = host.rules.strategy is Strategy.ROUND_ROBIN
    isolated = request.policy is Policy.DEDICATED and host.is_isolated.any() and not by_turns
    if not host.usable and not isolated:
        text = "no CPU may be used: all are reserved, isolated or not allowed"
        fits = nearest.unreserved(host, request)
        raise UnplaceableError("; ".join(filter(None, (text, fits))), hint="see PCA_RESERVED_CPUS")
    others = occupancy.without(request.vmid)
    if by_turns:
        return round_robin.place(host, turn, request)
    return _balanced(host, others, turn, request)


def in_order(topology: Topology, cpus: CpuSet) -> tuple[Cpu, ...]:
    """CPUs by cache group, core and number: the order in which vCPUs are given theirs."""
    places = (topology.place(cpu) for cpu in cpus)
    return tuple(p.cpu for p in sorted(places, key=lambda p: (p.llc, p.core, p.cpu)))


def placement_of(
    topology: Topology, request: Request, home: CpuSet, start: Cpu, *, exclusive: bool = False
) -> Placement:
    """A placement of the request. Where it has more vCPUs than CPUs, these go round."""
    order = in_order(topology, home)
    order *= -(-request.vcpus // len(order))
    return Placement(
        vmid=request.vmid,
        home=home,
        applied=home,
        order=order[: request.vcpus],
        start=start,
        parts=(home,),
        exclusive=exclusive,
        pinned=request.policy is Policy.PINNED,
        warnings=request.warnings,
    )


def _balanced(host: Host, others: Occupancy, turn: Turn, request: Request) -> tuple[Decision, Turn]:
    load = load_of(host, others)
    admitted = admission(host, load, request)
    request = replace(request, warnings=(*request.warnings, *admitted.warnings))
    free = int(admitted.may_use.sum())
    if not free:
        text = "every usable CPU belongs to a dedicated guest"
        fits = nearest.without_one(host, others, request.vcpus)
        raise UnplaceableError("; ".join(filter(None, (text, fits))), hint="stop one, or untag it")
    if request.guest_nodes and nodes.several(host):
        by_nodes = _by_nodes(host, load, others.configured_vcpus, turn, request, admitted)
        if by_nodes is not None:
            return by_nodes
        too_large = nodes.too_large(host, request, admitted.may_use)
        request = replace(request, warnings=(*request.warnings, too_large))
    if request.vcpus >= free:
        return _everything(host, request, admitted), turn
    here = board(host, load, others.configured_vcpus, turn, request, admitted)
    sets = candidates.grown(here)
    assert sets is not None  # there are more CPUs than vCPUs
    by_cost = ranked(here, sets)
    cheapest, costs = by_cost[0]
    shown = _candidates(here, by_cost[:SHOWN])
    kept = _kept(here, load, request, cheapest, costs)
    if kept is not None:
        placed = placement_of(
            host.topology, request, kept, kept.first(), exclusive=admitted.exclusive
        )
        return Decision(placed, shown, "its old place: nothing is clearly better"), turn
    start = host.cpus[int(cheapest[0])]
    home = host.cpuset(cheapest.tolist())
    placed = placement_of(host.topology, request, home, start, exclusive=admitted.exclusive)
    return Decision(placed, shown, "the cheapest of the candidates"), replace(
        turn, last_start=start
    )


def _by_nodes(
    host: Host, load: Load, configured: int, turn: Turn, request: Request, admitted: Admission
) -> tuple[Decision, Turn] | None:
    """Each guest node on one host node; None where they do not fit. What may be compared with
    whole guests is the cost of all the guest's CPUs together."""
    here = board(host, load, configured, turn, request, admitted)

    def cheapest(beside: Load, vcpus: int, may_use: Bools) -> Ints:
        part = replace(request, vcpus=vcpus)
        inside = board(host, beside, configured, turn, part, admitted)
        inside = replace(inside, may_use=may_use)
        sets = candidates.grown(inside)
        assert sets is not None  # there are as many CPUs
        return ranked(inside, sets)[0][0]

    search = nodes.Search(host, load, request, admitted.may_use, here.rank, cheapest)
    costs = [(seating, candidates.cost(here, seating.members)) for seating in search.seatings()]
    if not costs:
        return None
    costs.sort(key=lambda pair: (pair[0].rank, pair[1]))  # stable: equal ones are in turn
    best, least = costs[0]
    old = search.old()
    reason, kept = "the cheapest of the candidates", False
    if old is not None and old.rank <= best.rank:
        cost = candidates.cost(here, old.members)
        kept = cost <= least + host.charges.of(KEEP * request.vcpus) * here.scale
        if kept:
            reason, best = "its old place: nothing is clearly better", old
            costs = [(old, cost), *costs]
    shown = [_seated_candidate(here, *pair) for pair in costs]
    placed = _in_parts(host, request, best, search.warnings, exclusive=admitted.exclusive)
    decision = Decision(placed, _once(shown)[:SHOWN], f"{best.origin()}: {reason}")
    return decision, turn if kept else replace(turn, last_start=placed.start)


def _in_parts(
    host: Host, request: Request, seating: nodes.Seating, warned: list[str], *, exclusive: bool
) -> Placement:
    """The placement of a guest with nodes: vCPUs of each on the CPUs of its part, in order."""
    parts = tuple(host.cpuset(members.tolist()) for members in seating.parts)
    order: dict[int, Cpu] = {}
    part_of: dict[int, int] = {}
    for k, (node, part) in enumerate(zip(request.guest_nodes, parts, strict=True)):
        cpus = in_order(host.topology, part)
        for i, vcpu in enumerate(node.vcpus):
            order[vcpu], part_of[vcpu] = cpus[i % len(cpus)], k
    home = host.cpuset(seating.members.tolist())
    start = host.cpus[int(seating.parts[0][0])]
    placed = placement_of(host.topology, request, home, start, exclusive=exclusive)
    again = (f"{len(parts)} guest nodes on {seating.origin()}",) if seating.reused else ()
    return replace(
        placed,
        order=tuple(order[vcpu] for vcpu in sorted(order)),
        parts=parts,
        part_of=tuple(part_of[vcpu] for vcpu in sorted(part_of)),
        spans=parts,
        warnings=(*placed.warnings, *warned, *again),
    )


def _seated_candidate(here: candidates.Board, seating: nodes.Seating, costs: int) -> Candidate:
    members = seating.members
    (terms,) = candidates.terms(here, members[None, :], [costs])
    return Candidate(here.host.cpuset(members.tolist()), terms, seating.origin())


def _once(shown: list[Candidate]) -> tuple[Candidate, ...]:
    """The first of each set, cheapest first."""
    found: dict[CpuSet, Candidate] = {}
    for candidate in sorted(shown, key=lambda one: one.terms.total):
        found.setdefault(candidate.home, candidate)
    return tuple(found.values())


def board(
    host: Host, load: Load, configured: int, turn: Turn, request: Request, admitted: Admission
) -> candidates.Board:
    """The figures for one guest beside the load of the others."""
    priced = prices(
        host,
        load,
        vcpus=request.vcpus,
        configured=configured,
        policy=admitted.policy,
        may_use=admitted.may_use,
    )
    return candidates.board(
        host,
        priced,
        vcpus=request.vcpus,
        may_use=admitted.may_use,
        last_start=turn.last_start,
    )


def ranked(here: candidates.Board, sets: candidates.Grown) -> list[tuple[Ints, int]]:
    """Each set once, cheapest first; the best of them polished. Equal ones as they were found."""
    order = np.argsort(sets.costs, kind="stable")
    found = _distinct([(sets.members[i], int(sets.costs[i])) for i in order])
    best = [candidates.polished(here, members) for members, _ in found[:POLISHED]]
    return _distinct(sorted([*best, *found], key=lambda pair: pair[1]))


def _everything(host: Host, request: Request, admitted: Admission) -> Decision:
    """A guest at least as large as what is left gets all of it."""
    free = host.cpuset(np.flatnonzero(admitted.may_use).tolist())
    placed = placement_of(host.topology, request, free, free.first(), exclusive=admitted.exclusive)
    # Others that it may not have: a dedicated guest's, or of another kind of core than it wants.
    others = len(free) < len(host.usable)
    reason = "no other CPUs are left for it" if others else "it needs every usable CPU"
    if request.vcpus > len(free):
        cpus = "CPU" if len(free) == 1 else "CPUs"
        there = f"{len(free)} {cpus} left for it" if others else f"{len(free)} usable {cpus}"
        warning = f"{request.vcpus} vCPUs on {there}: they share"
        placed = replace(placed, warnings=(*placed.warnings, warning))
        what = "CPUs left for it" if others else "usable CPUs"
        reason = f"it has more vCPUs than there are {what}"
    return Decision(placed, (), reason)


def _kept(
    here: candidates.Board, load: Load, request: Request, cheapest: Ints, least: int
) -> CpuSet | None:
    """The guest's old place, if it still fits and the cheapest is not clearly cheaper. However
    large the guest, it does not go on sharing a CPU that it needs not share."""
    old, host = request.previous, here.host
    if old is None or len(old) != request.vcpus:
        return None
    members = host.indexes(old)
    if len(members) != len(old) or not here.may_use[members].all():
        return None
    shared = load.vcpus[members].sum() - load.vcpus[cheapest].sum()
    limit = least + host.charges.of(KEEP * request.vcpus) * here.scale
    return old if candidates.cost(here, members) <= limit and shared < 0.5 else None


def _candidates(here: candidates.Board, best: list[tuple[Ints, int]]) -> tuple[Candidate, ...]:
    """Sets of one size, with what each costs."""
    sets = np.stack([members for members, _ in best])
    terms = candidates.terms(here, sets, [cost for _, cost in best])
    return tuple(
        Candidate(here.host.cpuset(members), one, _origin(groups))
        for members, groups, one in zip(
            sets.tolist(), here.host.group[sets].tolist(), terms, strict=True
        )
    )


def _origin(of_members: list[int]) -> str:
    groups = sorted(set(of_members))
    listed = ", ".join(map(str, groups))
    return f"cache group {listed}" if len(groups) == 1 else f"cache groups {listed}"


def _distinct(sets: list[tuple[Ints, int]]) -> list[tuple[Ints, int]]:
    """The first of each set of CPUs, in order."""
    seen: dict[frozenset[int], tuple[Ints, int]] = {}
    for pair in sets:
        seen.setdefault(frozenset(pair[0].tolist()), pair)
    return list(seen.values())
