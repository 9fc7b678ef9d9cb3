"""What hangs together on a host: CPUs, cores, L2 and last-level caches, dies, packages, NUMA nodes.

A level without information is filled with the next one that is known (no cache files: the
package is the cache group); `notes` says which, so that nobody takes a guess for a fact.
"""

from dataclasses import dataclass
from enum import StrEnum

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, NodeId

NODES_MOST = 1024
"""The most NUMA nodes that Linux can be built for (CONFIG_NODES_SHIFT=10)."""


class CoreKind(StrEnum):
    """What sort of core a CPU belongs to; every CPU of a host that is not hybrid is performance."""

    PERFORMANCE = "performance"
    EFFICIENCY = "efficiency"
    LOW_POWER = "low-power"


@dataclass(frozen=True, slots=True)
class CpuPlace:
    """Where one online CPU sits: indexes into its Topology's tuples, ids as the kernel says."""

    cpu: Cpu
    core: int  # index into Topology.cores
    l2: int  # index into Topology.l2_groups
    llc: int  # index into Topology.cache_groups
    die: int  # index into Topology.dies
    package: int  # index into Topology.packages
    node: NodeId
    core_id: int  # the kernel's core_id: unique only within its die
    package_id: int  # the kernel's physical_package_id
    kind: CoreKind = CoreKind.PERFORMANCE


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node; nodes without CPUs and nodes without memory exist."""

    node: NodeId
    cpus: CpuSet
    memory_mib: int | None  # None: not said
    distances: tuple[tuple[NodeId, int], ...] = ()  # (node, distance), 10 is local

    def distance(self, other: NodeId) -> int | None:
        return dict(self.distances).get(other)


@dataclass(frozen=True, slots=True)
class Topology:
    """The online CPUs of a host in ascending order, and the groups they form.

    The members of every group tuple are disjoint, not empty, ordered by their first CPU, and
    together hold exactly the online CPUs (nodes: also CPU-less ones, ordered by node number).
    """

    places: tuple[CpuPlace, ...]
    cores: tuple[CpuSet, ...]
    l2_groups: tuple[CpuSet, ...]
    cache_groups: tuple[CpuSet, ...]
    dies: tuple[CpuSet, ...]
    packages: tuple[CpuSet, ...]
    nodes: tuple[NumaNode, ...]
    possible: CpuSet
    present: CpuSet
    online: CpuSet
    isolated: CpuSet = EMPTY
    model_name: str = ""
    virtual: bool = False  # this host is itself a virtual machine
    notes: tuple[str, ...] = ()

    def place(self, cpu: int) -> CpuPlace:
        """Where an online CPU sits; KeyError for any other. O(1) while CPU numbers have no gaps."""
        if cpu < len(self.places) and self.places[cpu].cpu == cpu:
            return self.places[cpu]
        for place in self.places:
            if place.cpu == cpu:
                return place
        raise KeyError(cpu)

    def siblings(self, cpu: int) -> CpuSet:
        """The other CPUs of this CPU's core."""
        return self.cores[self.place(cpu).core] - CpuSet(1 << cpu)

    def cache_groups_of(self, cpus: CpuSet) -> tuple[int, ...]:
        """Indexes of the cache groups that these CPUs lie in."""
        return tuple(i for i, group in enumerate(self.cache_groups) if group.overlaps(cpus))

    def nodes_of(self, cpus: CpuSet) -> tuple[NodeId, ...]:
        """The NUMA nodes that these CPUs lie in."""
        return tuple(node.node for node in self.nodes if node.cpus.overlaps(cpus))
