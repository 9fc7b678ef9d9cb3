"""PURE: latencies told from sysfs's levels alone, and unmeasured pairs filled from measured ones.

The figures are one-way times of a compare-exchange ping-pong, rounded from the public measurements
of nviennot/core-to-core-latency (17 desktop and server machines of 2009 to 2022). The median
machine shows 8 ns between SMT siblings, 36 within a last-level cache (18 to 48 on most), 95 between
cache groups of a node and 138 between packages (74 to 356). They say what is nearer and by about
how much; no machine's own figures are in here.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from math import inf
from statistics import median

from proxmox_cpu_affinity.model.ids import NodeId
from proxmox_cpu_affinity.model.latency import ONLY_PREDICTED, LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import CpuPlace, Topology


class Level(IntEnum):
    """The nearest thing that two CPUs have in common, nearest first."""

    CORE = 0
    L2 = 1
    CACHE_GROUP = 2
    DIE = 3
    PACKAGE = 4
    NOTHING = 5


Step = tuple[Level, int]
"""A level and the NUMA distance of the two nodes (10: the same node); the greater the farther."""

LOCAL, REMOTE = 10, 20
"""ACPI's NUMA distances (SLIT) of a node to itself, and by default to another one."""

_NS = {
    Level.CORE: 8.0,
    Level.L2: 20.0,
    Level.CACHE_GROUP: 35.0,
    Level.DIE: 95.0,
    Level.PACKAGE: 110.0,
    Level.NOTHING: 140.0,
}


def step_ns(step: Step) -> float:
    """Expected latency in ns. It never falls from one step to a greater one.

    Within a package it grows with the distance from 10, up to the next level's; between packages
    with the distance from 20.
    """
    level, distance = step
    if level is Level.NOTHING:
        return _NS[level] * max(distance, REMOTE) / REMOTE
    return min(_NS[level] * max(distance, LOCAL) / LOCAL, _NS[Level(level + 1)])


def predicted(topology: Topology) -> LatencyMatrix:
    """The matrix of all online CPUs as the levels let expect it; nothing in it is measured."""
    cpus = tuple(place.cpu for place in topology.places)
    count = len(cpus)
    ns = array("d", bytes(8 * count * count))
    for i, j, step in steps(topology, topology.places):
        ns[i * count + j] = ns[j * count + i] = step_ns(step)
    return LatencyMatrix(
        cpus,
        ns,
        array("d", bytes(8 * count * count)),
        bytes(count * count),
        Verdict.PREDICTED,
        conditions=(ONLY_PREDICTED,),
    )


def filled(matrix: LatencyMatrix, topology: Topology) -> LatencyMatrix:
    """The matrix with its unmeasured pairs set from the measured ones that are most like them.

    That is the median of their block (the same step, between the same cache groups), else of
    their step. Where a step has no measured pair its expected latency is kept, but bounded by the
    medians of nearer and farther steps: on a host that is ten times slower than usual, what was
    not measured must not look near. KeyError for CPUs that are not online.
    """
    count = len(matrix.cpus)
    places = [topology.place(cpu) for cpu in matrix.cpus]
    measured: dict[_Block, array[float]] = {}
    open_cells: dict[_Block, array[int]] = {}  # of 131,000 pairs, so eight bytes each
    for i, j, step in steps(topology, places):
        cell, block = i * count + j, (step, _groups(places[i], places[j]))
        if matrix.measured[cell]:
            measured.setdefault(block, array("d")).append(matrix.ns[cell])
        else:
            open_cells.setdefault(block, array("q")).append(cell)
    medians = _medians(measured)
    ns = array("d", matrix.ns)
    for block, cells in open_cells.items():
        value = median(measured[block]) if block in measured else _bounded(block[0], medians)
        for cell in cells:
            i, j = divmod(cell, count)
            ns[cell] = ns[j * count + i] = value
    return replace(matrix, ns=ns)


def _medians(measured: "Mapping[_Block, array[float]]") -> Mapping[Step, float]:
    """Of each step, over its blocks."""
    found: dict[Step, array[float]] = {}
    for (step, _), values in measured.items():
        found.setdefault(step, array("d")).extend(values)
    return {step: median(values) for step, values in found.items()}


_Groups = tuple[int, int]
_Block = tuple[Step, _Groups]


def _groups(first: CpuPlace, second: CpuPlace) -> _Groups:
    low, high = sorted((first.llc, second.llc))
    return low, high


def _bounded(step: Step, medians: Mapping[Step, float]) -> float:
    if step in medians:
        return medians[step]
    low = max((ns for other, ns in medians.items() if other < step), default=0.0)
    high = min((ns for other, ns in medians.items() if other > step), default=inf)
    return min(max(step_ns(step), low), high)


def carried(known: LatencyMatrix, topology: Topology) -> LatencyMatrix:
    """What is known of these CPUs, for a host whose online CPUs are others now.

    Measured pairs of CPUs that are still online are kept, new CPUs' pairs are filled from them.
    The verdict and the method are those of what is known.
    """
    base = predicted(topology)
    count, old_count = len(base.cpus), len(known.cpus)
    rows = {cpu: row for row, cpu in enumerate(known.cpus)}
    kept = [(new, rows[cpu]) for new, cpu in enumerate(base.cpus) if cpu in rows]
    ns, spread = array("d", base.ns), array("d", base.spread)
    measured = bytearray(base.measured)
    for i, old_i in kept:
        for j, old_j in kept:
            old = old_i * old_count + old_j
            if known.measured[old]:
                cell = i * count + j
                ns[cell], spread[cell], measured[cell] = known.ns[old], known.spread[old], 1
    matrix = LatencyMatrix(
        base.cpus, ns, spread, bytes(measured), known.verdict, known.method, known.conditions
    )
    return filled(matrix, topology) if any(measured) else base


def steps(topology: Topology, places: Sequence[CpuPlace]) -> Iterator[tuple[int, int, Step]]:
    """Every unordered pair of places as (index, higher index, step)."""
    distances = {
        (node.node, other): distance
        for node in topology.nodes
        for other, distance in node.distances
    }
    for i, first in enumerate(places):
        # An L2 that is the last level (or stands for unknown caches) tells no more than the group.
        l2_counts = topology.l2_groups[first.l2] != topology.cache_groups[first.llc]
        for j in range(i + 1, len(places)):
            second = places[j]
            level = _level(first, second, l2_counts=l2_counts)
            yield i, j, (level, _distance(first.node, second.node, distances))


def _level(first: CpuPlace, second: CpuPlace, *, l2_counts: bool) -> Level:
    if first.core == second.core:
        return Level.CORE
    if l2_counts and first.l2 == second.l2:
        return Level.L2
    if first.llc == second.llc:
        return Level.CACHE_GROUP
    if first.die == second.die:
        return Level.DIE
    if first.package == second.package:
        return Level.PACKAGE
    return Level.NOTHING


def _distance(first: NodeId, second: NodeId, distances: Mapping[tuple[NodeId, NodeId], int]) -> int:
    return distances.get((first, second), LOCAL if first == second else REMOTE)
