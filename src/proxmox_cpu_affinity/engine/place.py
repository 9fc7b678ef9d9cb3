"""The decision for one guest: its request, the host, and who is there already."""

from dataclasses import replace

import numpy as np

from proxmox_cpu_affinity.engine import candidates, round_robin
from proxmox_cpu_affinity.engine.facts import Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import Load, load_of
from proxmox_cpu_affinity.engine.price import prices
from proxmox_cpu_affinity.engine.trace import Candidate, Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.placement import Placement, Strategy
from proxmox_cpu_affinity.model.topology import Topology

KEEP = 0.02  # per vCPU: an old place is kept while the best is not cheaper by more
SHOWN = 5  # candidates that a decision keeps


def place(host: Host, occupancy: Occupancy, turn: Turn, request: Request) -> tuple[Decision, Turn]:
    """Choose CPUs for a guest; the turn that comes back is the next decision's.

    The guest itself may still be among the placements: it is left out. UnplaceableError when no
    CPU is usable, or the strategy refuses. Deterministic: same facts, same answer.
    """
    if not host.usable:
        raise UnplaceableError(
            "no CPU may be used: all are reserved, isolated or not allowed",
            hint="see PCA_RESERVED_CPUS",
        )
    others = occupancy.without(request.vmid)
    if host.rules.strategy is Strategy.ROUND_ROBIN:
        return round_robin.place(host, turn, request)
    return _balanced(host, others, turn, request)


def in_order(topology: Topology, cpus: CpuSet) -> tuple[Cpu, ...]:
    """CPUs by cache group, core and number: the order in which vCPUs are given theirs."""
    places = (topology.place(cpu) for cpu in cpus)
    return tuple(p.cpu for p in sorted(places, key=lambda p: (p.llc, p.core, p.cpu)))


def placement_of(topology: Topology, request: Request, home: CpuSet, start: Cpu) -> Placement:
    return Placement(
        vmid=request.vmid,
        home=home,
        applied=home,
        order=in_order(topology, home),
        start=start,
        parts=(home,),
        warnings=request.warnings,
    )


def _everything(host: Host, request: Request, free: CpuSet) -> Decision:
    """A guest at least as large as what is left gets all of it."""
    placed = placement_of(host.topology, request, free, free.first())
    reason = "it needs every usable CPU"
    if request.vcpus > len(free):
        usable = "1 usable CPU" if len(free) == 1 else f"{len(free)} usable CPUs"
        warning = f"{request.vcpus} vCPUs on {usable}: they share"
        placed = replace(placed, warnings=(*placed.warnings, warning))
        reason = "it has more vCPUs than there are usable CPUs"
    return Decision(placed, (), reason)


def _balanced(host: Host, others: Occupancy, turn: Turn, request: Request) -> tuple[Decision, Turn]:
    load = load_of(host, others)
    priced = prices(host, load, vcpus=request.vcpus, configured=others.configured_vcpus)
    free = host.cpuset(np.flatnonzero(np.isfinite(priced.cpu)))
    if not free:
        raise UnplaceableError(
            "every usable CPU belongs to a dedicated guest", hint="stop one, or untag it"
        )
    if request.vcpus >= len(free):
        return _everything(host, request, free), turn
    here = candidates.board(host, load, priced, turn.last_start)
    sets = _distinct(candidates.grown(here, request.vcpus))
    ranked = sorted(sets, key=lambda members: round(candidates.cost(here, members), 9))
    best = [candidates.polished(here, members) for members in ranked[:2]]
    ranked = sorted([*best, *ranked], key=lambda members: round(candidates.cost(here, members), 9))
    winner = ranked[0]
    start = host.cpus[int(here.order[winner[0]])]
    home = host.cpuset(int(here.order[p]) for p in winner)
    shown = tuple(
        Candidate(
            host.cpuset(index), candidates.terms(host, load, priced, index), _origin(host, index)
        )
        for index in (
            [int(here.order[p]) for p in members] for members in _distinct(ranked)[:SHOWN]
        )
    )
    kept = _kept(host, here, load, request, winner)
    if kept is not None:
        placed = placement_of(host.topology, request, kept, kept.first())
        return Decision(placed, shown, "its old place: nothing is clearly better"), turn
    placed = placement_of(host.topology, request, home, start)
    return Decision(placed, shown, "the cheapest of the candidates"), replace(
        turn, last_start=start
    )


def _kept(
    host: Host, here: candidates.Board, load: Load, request: Request, winner: Ints
) -> CpuSet | None:
    """The guest's old place, if it still fits and the winner is not clearly cheaper. However
    large the guest, it does not go on sharing a CPU that it needs not share."""
    old = request.previous
    if old is None or len(old) != request.vcpus or not old <= host.usable:
        return None
    members = host.indexes(old)
    shared = load.vcpus[members].sum() - load.vcpus[here.order[winner]].sum()
    price = candidates.cost(here, np.argsort(here.order)[members])
    limit = candidates.cost(here, winner) + KEEP * request.vcpus
    return old if price <= limit + candidates.EQUAL and shared < 0.5 else None


def _origin(host: Host, members: list[int]) -> str:
    groups = sorted({int(host.group[i]) for i in members})
    listed = ", ".join(str(g) for g in groups)
    return f"cache group {listed}" if len(groups) == 1 else f"cache groups {listed}"


def _distinct(sets: list[Ints]) -> list[Ints]:
    """The first of each set of CPUs, in order."""
    seen: dict[frozenset[int], Ints] = {}
    for members in sets:
        seen.setdefault(frozenset(int(m) for m in members), members)
    return list(seen.values())
