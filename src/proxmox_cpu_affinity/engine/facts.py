"""What a decision rests on: the host, compiled into arrays, and who holds which CPU.

A Host is made once per topology, matrix and set of rules; occupancy is derived from the
placements at each decision, never kept beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix, restricted
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Weights
from proxmox_cpu_affinity.model.topology import CoreKind, Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide about placing."""

    strategy: Strategy = Strategy.BALANCED
    weights: Weights = field(default_factory=Weights)
    reserved: CpuSet = EMPTY


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A host as arrays. Index i of every array is the CPU cpus[i] (ascending, online CPUs)."""

    topology: Topology
    matrix: LatencyMatrix
    rules: Rules
    usable: CpuSet  # CPUs that guests may be given
    cpus: tuple[Cpu, ...]
    latency: Annotated[Floats, "n x n, ns one way"]
    sibling: Annotated[Bools, "n x n, true for two CPUs of one core"]
    siblings: Annotated[Ints, "n x (threads - 1), padded with n"]
    core: Annotated[Ints, "n, index of the core"]
    group: Annotated[Ints, "n, index of the cache group"]
    efficiency: Annotated[Bools, "n"]
    is_usable: Annotated[Bools, "n"]
    sequence: Annotated[Ints, "n, indexes: the first CPU of each cache group, then the second"]

    def indexes(self, cpus: CpuSet) -> Ints:
        """Array indexes of those of these CPUs that are online."""
        return np.array([i for i, cpu in enumerate(self.cpus) if cpu in cpus], dtype=np.int64)

    def cpuset(self, indexes: Iterable[int]) -> CpuSet:
        return CpuSet.of(self.cpus[i] for i in indexes)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is: behind the last starting CPU (balanced), by a counter (round-robin)."""

    last_start: Cpu | None = None
    counter: int = 0


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who holds which CPU at a decision."""

    placements: tuple[Placement, ...]
    configured_vcpus: int = 0  # of all configured guests, running or not: what is still to come
    outside: tuple[tuple[Cpu, float], ...] = ()  # load that is not ours, in vCPUs

    def without(self, vmid: Vmid) -> "Occupancy":
        kept = tuple(p for p in self.placements if p.vmid != vmid)
        return Occupancy(kept, self.configured_vcpus, self.outside)


def compile_host(
    topology: Topology, matrix: LatencyMatrix, rules: Rules, allowed: CpuSet | None = None
) -> Host:
    """Make the arrays. `allowed` are the CPUs guests may be run on at all (None: no limit).

    The matrix must cover the online CPUs. Usable are the online, allowed CPUs that are neither
    reserved nor isolated by the kernel. O(CPUs squared).
    """
    online = topology.online
    usable = (online if allowed is None else online & allowed) - rules.reserved - topology.isolated
    cpus = tuple(online)
    covered = restricted(matrix, online)
    if covered.cpus != cpus:
        raise ValueError("the latency matrix does not cover the online CPUs")
    count = len(cpus)
    places = [topology.place(cpu) for cpu in cpus]
    core = np.array([p.core for p in places], dtype=np.int64)
    group = np.array([p.llc for p in places], dtype=np.int64)
    sibling = (core[:, None] == core[None, :]) & ~np.eye(count, dtype=np.bool_)
    widest = max((int(row.sum()) for row in sibling), default=0)
    siblings = np.full((count, widest), count, dtype=np.int64)
    for i, row in enumerate(sibling):
        found = np.flatnonzero(row)
        siblings[i, : len(found)] = found
    return Host(
        topology=topology,
        matrix=covered,
        rules=rules,
        usable=usable,
        cpus=cpus,
        latency=np.array(covered.ns, dtype=np.float64).reshape(count, count),
        sibling=sibling,
        siblings=siblings,
        core=core,
        group=group,
        efficiency=np.array([p.kind is not CoreKind.PERFORMANCE for p in places], dtype=np.bool_),
        is_usable=np.array([cpu in usable for cpu in cpus], dtype=np.bool_),
        sequence=_sequence(group),
    )


def _sequence(group: Ints) -> Ints:
    """Round the cache groups: keys are a CPU's place within its group, then the group."""
    place = np.array([int((group[:i] == g).sum()) for i, g in enumerate(group)], dtype=np.int64)
    sequence: Ints = np.lexsort((group, place)).astype(np.int64)
    return sequence
