"""How wide a guest floats: on its own CPUs, or in the cache groups these lie in.

Where nobody shares, own CPUs are as good as any set and keep guests apart. Where CPUs are shared,
a guest held on exactly its own waits for one while others in its group idle; there the kernel
balances better inside of the group. CPUs of dedicated and pinned guests leave everyone else's set,
but those that a guest was given beside them: their load is reckoned there.
Out of scope: for how long a group stays wide (reconcile.widths).
"""

from collections.abc import Mapping, Set
from dataclasses import replace
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


def widened(host: Host, occupancy: Occupancy, wide: Set[CpuSet]) -> Mapping[Vmid, Placement]:
    """The placements with what their threads may use when these cache groups are wide.

    A guest's own CPUs elsewhere stay its own; cores of another kind than it has are not added.
    Never empty. O(guests x cache groups).
    """
    taken = EMPTY
    for placement in occupancy.placements:
        if placement.exclusive or placement.pinned:
            taken |= placement.home
        if placement.exclusive:
            taken |= _siblings(host, placement.home)
    return {p.vmid: _floating(host, p, wide, taken) for p in occupancy.placements}


def _floating(host: Host, placement: Placement, wide: Set[CpuSet], taken: CpuSet) -> Placement:
    """Parts of a guest with virtual NUMA float each on its own host node."""
    if placement.exclusive or placement.pinned:
        return replace(placement, applied=placement.home, spans=_spans(placement, placement.parts))
    if not placement.part_of:
        return replace(placement, applied=_applied(host, placement.home, wide, taken))
    spans = tuple(
        part | (_applied(host, part, wide, taken) & _nodes(host, part)) for part in placement.parts
    )
    return replace(placement, applied=reduce(or_, spans), spans=spans)


def _spans(placement: Placement, parts: tuple[CpuSet, ...]) -> tuple[CpuSet, ...]:
    return parts if placement.part_of else ()


def _applied(host: Host, home: CpuSet, wide: Set[CpuSet], taken: CpuSet) -> CpuSet:
    floats = EMPTY
    for group in host.topology.cache_groups:
        if group in wide and group.overlaps(home):
            floats |= group & host.usable & _same_kind(host, home & group)
    return home | (floats - taken)


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
