"""PURE: which pairs of CPUs are measured, and in which order, so that a cut run says most.

Out of scope: measuring several pairs at once.
"""

from enum import IntEnum

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.topology import Topology

Pair = tuple[Cpu, Cpu]
"""Two CPUs, the lower number first: latency is the same both ways."""


class Stage(IntEnum):
    """The parts of the picture, the coarsest first."""

    SIBLINGS = 0  # within each core
    NEIGHBOURS = 1  # a chain of cores through each cache group
    ACROSS = 2  # one CPU of each cache group with one of each other
    CORES = 3  # the other pairs of cores
    REST = 4  # pairs that differ from a former one in the SMT sibling only


def ordered_pairs(cpus: CpuSet, topology: Topology) -> tuple[Pair, ...]:
    """Every unordered pair of these CPUs once. KeyError for a CPU that is not online. O(n² log n).

    Keys, lower first: stage, distance in the order of the CPUs (each CPU gets its turn early),
    CPU numbers. "First of its core" means: first among `cpus`.
    """
    order = tuple(cpus)
    places = [topology.place(cpu) for cpu in order]
    core_first = _first_indexes([place.core for place in places])
    group_first = _first_indexes([place.llc for place in places])
    follower = _followers([place.llc for place in places], core_first)

    def stage(i: int, j: int) -> Stage:
        if places[i].core == places[j].core:
            return Stage.SIBLINGS
        if not (i in core_first and j in core_first):
            return Stage.REST
        if follower.get(i) == j:
            return Stage.NEIGHBOURS
        return Stage.ACROSS if i in group_first and j in group_first else Stage.CORES

    count = len(order)
    keyed = sorted((stage(i, j), j - i, i) for i in range(count) for j in range(i + 1, count))
    return tuple((order[i], order[i + gap]) for _, gap, i in keyed)


def _first_indexes(groups: list[int]) -> frozenset[int]:
    """The indexes at which a group is met for the first time."""
    first: dict[int, int] = {}
    for index, group in enumerate(groups):
        first.setdefault(group, index)
    return frozenset(first.values())


def _followers(groups: list[int], core_first: frozenset[int]) -> dict[int, int]:
    """For the first CPU of each core that of the next core in the same cache group."""
    last: dict[int, int] = {}
    followers: dict[int, int] = {}
    for index in sorted(core_first):
        if groups[index] in last:
            followers[last[groups[index]]] = index
        last[groups[index]] = index
    return followers
