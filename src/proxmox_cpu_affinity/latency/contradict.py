"""PURE: where trusted latencies say something else of a host than its sysfs.

sysfs stays what placing goes by; a contradiction is worth a warning, since a wrong one of both
(a firmware's table, a hypervisor's invention, a measurement gone wrong) costs every guest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.model.topology import Topology

CLEAR = 1.5
"""What should be near is said to be far only where it is that much slower."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The measured latencies of a host, by what sysfs says the two CPUs have in common."""

    cores: Mapping[int, list[float]]  # between siblings, by core
    inside: Mapping[int, list[float]]  # between cores of a cache group, by the group
    across: list[float]  # between cache groups of a package


def contradictions(matrix: LatencyMatrix, topology: Topology) -> tuple[str, ...]:
    """One line for each kind of contradiction, empty where there is none. O(n²)."""
    seen = _seen(matrix, topology)
    inside = [ns for group in seen.inside.values() for ns in group]
    wrong_cores = _far(seen.cores, median(inside)) if inside else []
    wrong_groups = _far(seen.inside, median(seen.across)) if seen.across else []
    said = []
    if wrong_cores:
        named = _named(topology.cores, wrong_cores, "core")
        said.append(f"{named}: SMT siblings by sysfs, but farther apart than other cores")
    if wrong_groups:
        named = _named(topology.cache_groups, wrong_groups, "group")
        said.append(f"{named}: one cache group by sysfs, but farther apart than cache groups")
    return tuple(f"sysfs contradicted: CPUs {text}" for text in said)


def _far(groups: Mapping[int, list[float]], usual: float) -> list[int]:
    return [index for index, ns in sorted(groups.items()) if median(ns) > CLEAR * usual]


def _named(groups: tuple[CpuSet, ...], indexes: Iterable[int], kind: str) -> str:
    """The CPUs of the first of them, and how many more of that kind there are."""
    first, *more = indexes
    others = f"{len(more)} more {kind}{'' if len(more) == 1 else 's'}"
    return f"{groups[first]} and {others}" if more else str(groups[first])


def _seen(matrix: LatencyMatrix, topology: Topology) -> _Seen:
    places = [topology.place(cpu) for cpu in matrix.cpus]
    count = len(places)
    across: list[float] = []
    cores: dict[int, list[float]] = {}
    inside: dict[int, list[float]] = {}
    for i, first in enumerate(places):
        for j in range(i + 1, count):
            second, cell = places[j], i * count + j
            if not matrix.measured[cell]:
                continue
            if first.core == second.core:
                cores.setdefault(first.core, []).append(matrix.ns[cell])
            elif first.llc == second.llc:
                inside.setdefault(first.llc, []).append(matrix.ns[cell])
            elif first.package == second.package:
                across.append(matrix.ns[cell])
    return _Seen(cores, inside, across)
