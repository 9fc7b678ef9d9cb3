"""How wide a guest floats: on its own CPUs, in the cache groups these lie in, or in their nodes.

Where nobody shares, own CPUs are as good as any set and keep guests apart. Where CPUs are shared,
a guest held on exactly its own waits for one while others in its group idle; there the kernel
balances better inside of the group. CPUs of dedicated and pinned guests leave everyone else's set,
but those that a guest was given beside them: their load is reckoned there. A guest that waits for
CPUs although it floats may have its nodes, but for the CPUs of guests that do not float there.
Out of scope: for how long a group stays wide (reconcile.widths), who waits (reconcile.strain).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from proxmox_cpu_affinity.engine.facts import Host, Occupancy
from proxmox_cpu_affinity.engine.occupancy import overlapping
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement


def crowded(host: Host, occupancy: Occupancy) -> frozenset[CpuSet]:
    """The cache groups in which vCPUs share a CPU: of several guests, or of one that has more
    vCPUs than CPUs. O(guests x cache groups)."""
    shared = overlapping(occupancy)
    for placement in occupancy.placements:
        if len(placement.order) > len(placement.home):
            shared |= placement.home
    return frozenset(group for group in host.topology.cache_groups if group.overlaps(shared))


NOBODY: frozenset[Vmid] = frozenset()


@dataclass(frozen=True, slots=True)
class _Floor:
    """Where guests may float: the wide groups, the CPUs that are taken there, and those that guests
    which do not float have elsewhere."""

    host: Host
    wide: Set[CpuSet]
    taken: CpuSet
    quiet: CpuSet


def floats(host: Host, placement: Placement, wide: Set[CpuSet]) -> bool:
    """Whether a guest's threads may leave its own CPUs when these cache groups are wide."""
    if placement.exclusive or placement.pinned:
        return False
    groups = host.topology.cache_groups
    return any(group in wide and group.overlaps(placement.home) for group in groups)


def widened(
    host: Host, occupancy: Occupancy, wide: Set[CpuSet], strained: Set[Vmid] = NOBODY
) -> Mapping[Vmid, Placement]:
    """The placements with what their threads may use when these cache groups are wide, and these
    guests, if they float, have their nodes.

    A guest's own CPUs elsewhere stay its own; cores of another kind than it has are not added.
    Never empty. O(guests x cache groups).
    """
    taken = EMPTY
    for placement in occupancy.placements:
        if placement.exclusive or placement.pinned:
            taken |= placement.home
        if placement.exclusive:
            taken |= _siblings(host, placement.home)
    quiet = reduce(or_, (p.home for p in occupancy.placements), EMPTY) - reduce(or_, wide, EMPTY)
    floor = _Floor(host, wide, taken, quiet)
    return {p.vmid: _floating(floor, p, strained=p.vmid in strained) for p in occupancy.placements}


def _floating(floor: _Floor, placement: Placement, *, strained: bool) -> Placement:
    """Parts of a guest with virtual NUMA float each on its own host node."""
    host = floor.host
    if placement.exclusive or placement.pinned:
        return replace(placement, applied=placement.home, spans=_spans(placement, placement.parts))
    reach = _beyond if strained and floats(host, placement, floor.wide) else _applied
    if not placement.part_of:
        return replace(placement, applied=reach(floor, placement.home))
    spans = tuple(part | (reach(floor, part) & _nodes(host, part)) for part in placement.parts)
    return replace(placement, applied=reduce(or_, spans), spans=spans)


def _spans(placement: Placement, parts: tuple[CpuSet, ...]) -> tuple[CpuSet, ...]:
    return parts if placement.part_of else ()


def _applied(floor: _Floor, home: CpuSet) -> CpuSet:
    host, found = floor.host, EMPTY
    for group in host.topology.cache_groups:
        if group in floor.wide and group.overlaps(home):
            found |= group & host.usable & _same_kind(host, home & group)
    return home | (found - floor.taken)


def _beyond(floor: _Floor, home: CpuSet) -> CpuSet:
    """Who does not float is left alone: it could not evade."""
    host = floor.host
    there = _nodes(host, home) & host.usable & _same_kind(host, home)
    return _applied(floor, home) | (there - floor.taken - floor.quiet)


def _nodes(host: Host, cpus: CpuSet) -> CpuSet:
    """All CPUs of the NUMA nodes that these lie on."""
    found = EMPTY
    for node in host.topology.nodes:
        found |= node.cpus if node.cpus.overlaps(cpus) else EMPTY
    return found


def _siblings(host: Host, cpus: CpuSet) -> CpuSet:
    """The CPUs and all that are threads of the same cores."""
    found = EMPTY
    for core in host.topology.cores:
        if core.overlaps(cpus):
            found |= core
    return found


def _same_kind(host: Host, cpus: CpuSet) -> CpuSet:
    """All CPUs of the core kinds that these are of."""
    topology = host.topology
    kinds = {topology.place(cpu).kind for cpu in cpus if cpu in topology.online}
    return CpuSet.of(place.cpu for place in topology.places if place.kind in kinds)
