"""What a decision rests on: the host, compiled into arrays, and who holds which CPU.

A Host is made once per topology, matrix and set of rules; occupancy is derived from the
placements at each decision, never kept beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from proxmox_cpu_affinity.model.cpuset import CPUS_MOST, EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix, restricted
from proxmox_cpu_affinity.model.placement import (
    Fallback,
    Placement,
    Rebalance,
    Strategy,
    Weights,
    Widening,
    Width,
)
from proxmox_cpu_affinity.model.topology import CoreKind, Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SPREAD = 0.002  # price of a vCPU of load in a used cache group
ROOM = 0.05  # share of what leaving a cache group costs that its free CPUs are worth
TURN_BITS = (CPUS_MOST - 1).bit_length()  # below a price: whose turn it is among equals


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a move of a running guest must gain: shares of one vCPU's time, per vCPU of it."""

    move: float = 0.02  # caches grow cold
    inside: float = 0.01  # in its own cache groups: the last level stays warm
    least: float = 0.06  # in all, however small the guest: every move disturbs
    across_nodes: float = 0.10  # beyond that, to CPUs of a node on which it had none: memory stays
    moves: int = 2  # at most, after an event


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide about placing."""

    strategy: Strategy = Strategy.BALANCED
    weights: Weights = field(default_factory=Weights)
    reserved: CpuSet = EMPTY
    dedicated_fallback: Fallback = Fallback.REFUSE
    width: Width = Width.EXACT
    rebalance: Rebalance = Rebalance.OFF
    thresholds: Thresholds = field(default_factory=Thresholds)
    widening: Widening = field(default_factory=Widening)


@dataclass(frozen=True, slots=True)
class Charges:
    """The weights as whole numbers of `unit`, so that sums are exact in whatever order they are
    made, on every machine: equal is equal, and the same facts give the same answer."""

    unit: float  # share of one vCPU's time
    thread: int  # these four for both who suffer, hence twice the weight
    smt_cross: int
    smt_own: int
    farthest: int  # the largest latency of a pair
    ecore: int
    spread: int
    room: int  # a vCPU less in a cache group than in the fullest

    def of(self, share: float) -> int:
        """A share of a vCPU's time in units."""
        return round(share / self.unit)


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A host as arrays. Index i of every array is the CPU cpus[i] (ascending, online CPUs)."""

    topology: Topology
    matrix: LatencyMatrix
    rules: Rules
    usable: CpuSet  # CPUs that guests may be given
    allowed: CpuSet  # those that would be, if none were reserved or isolated
    cpus: tuple[Cpu, ...]
    charges: Charges
    latency: Annotated[Ints, "n x n, price of a pair in units, both ways, before / (vCPUs - 1)"]
    padded: Annotated[Ints, "n x (n + 1), the same with a column for siblings there are not"]
    siblings: Annotated[Ints, "n x (threads - 1), padded with n"]
    core: Annotated[Ints, "n, index of the core"]
    group: Annotated[Ints, "n, index of the cache group"]
    node: Annotated[Ints, "n, index of the NUMA node"]
    efficiency: Annotated[Bools, "n"]
    is_usable: Annotated[Bools, "n"]
    is_isolated: Annotated[Bools, "n, isolated by the kernel: for dedicated guests only"]
    sequence: Annotated[Ints, "n, indexes: the first CPU of each cache group, then the second"]
    index: Annotated[Ints, "CPU number -> index, n where there is none"]
    # What bound has reckoned of it, by share and size: dropped with the host, made anew by replace.
    partners: dict[tuple[float, int], Floats] = field(default_factory=dict, init=False, repr=False)

    def indexes(self, cpus: Iterable[int]) -> Ints:
        """Array indexes of those of these CPUs that are online, in the order given."""
        numbers = np.fromiter(cpus, dtype=np.int64)
        known = numbers[numbers < len(self.index)]
        found: Ints = self.index[known]
        return found[found < len(self.cpus)]

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
        return replace(self, placements=kept)


def compile_host(
    topology: Topology, matrix: LatencyMatrix, rules: Rules, allowed: CpuSet | None = None
) -> Host:
    """Make the arrays. `allowed` are the CPUs guests may be run on at all (None: no limit).

    The matrix must cover the online CPUs. Usable are the online, allowed CPUs that are neither
    reserved nor isolated by the kernel. O(CPUs squared).
    """
    online = topology.online
    allowed = online if allowed is None else online & allowed
    open_to_guests = allowed - rules.reserved
    usable = open_to_guests - topology.isolated
    cpus = tuple(online)
    covered = restricted(matrix, online)
    if covered.cpus != cpus:
        raise ValueError("the latency matrix does not cover the online CPUs")
    count = len(cpus)
    places = [topology.place(cpu) for cpu in cpus]
    nanos = np.frombuffer(covered.ns, dtype=np.float64).reshape(count, count)  # read only here
    siblings = _siblings(topology, cpus)
    group = np.array([p.llc for p in places], dtype=np.int64)
    farthest, leaving = float(nanos.max(initial=0.0)), _leaving(nanos, group)
    charges = charges_of(rules.weights, count, farthest=farthest, leaving=leaving)
    _, node = np.unique([p.node for p in places], return_inverse=True)
    padded = np.zeros((count, count + 1), dtype=np.int64)
    padded[:, :count] = np.rint(nanos * (2 * rules.weights.lat_ns / charges.unit))
    index = np.full(max(cpus, default=-1) + 1, count, dtype=np.int64)
    index[list(cpus)] = np.arange(count)
    return Host(
        topology=topology,
        matrix=covered,
        rules=rules,
        usable=usable,
        allowed=allowed,
        cpus=cpus,
        charges=charges,
        latency=padded[:, :count],
        padded=padded,
        siblings=siblings,
        core=np.array([p.core for p in places], dtype=np.int64),
        group=group,
        node=node.reshape(-1).astype(np.int64),
        efficiency=np.array([p.kind is not CoreKind.PERFORMANCE for p in places], dtype=np.bool_),
        is_usable=np.array([cpu in usable for cpu in cpus], dtype=np.bool_),
        is_isolated=np.array(
            [cpu in open_to_guests and cpu in topology.isolated for cpu in cpus], dtype=np.bool_
        ),
        sequence=_sequence(group),
        index=index,
    )


def _leaving(nanos: Floats, group: Ints) -> float:
    """What a pair is farther apart in two cache groups than in one, in ns, per CPU of a group."""
    inside = group[:, None] == group[None, :]
    apart = ~inside
    inside &= ~np.eye(len(group), dtype=np.bool_)
    if not apart.any():
        return 0.0
    near = float(nanos[inside].mean()) if inside.any() else 0.0
    groups = len(np.unique(group))
    return max(0.0, float(nanos[apart].mean()) - near) * groups / len(group)


def charges_of(weights: Weights, cpus: int, *, farthest: float, leaving: float) -> Charges:
    """The weights in units; `farthest` is the largest latency in ns, `leaving` as above.

    The unit is the smallest power of two with which no sum can overflow: a guest's cost has up to
    CPUs squared terms, each times the CPUs, each of at most 1024 times the largest price.
    """
    largest = 2 * (weights.thread + weights.smt_cross + weights.smt_own + weights.ecore)
    largest = max(1.0, largest + 2 * weights.lat_ns * farthest)
    bits = 62 - TURN_BITS - 10 - 2 * max(1, cpus).bit_length() - int(largest).bit_length()
    unit = 2.0 ** -min(30, bits)
    return Charges(
        unit=unit,
        thread=round(2 * weights.thread / unit),
        smt_cross=round(2 * weights.smt_cross / unit),
        smt_own=round(2 * weights.smt_own / unit),
        farthest=round(2 * weights.lat_ns * farthest / unit),
        ecore=round(weights.ecore / unit),
        spread=round(SPREAD / unit),
        room=round(ROOM * 2 * weights.lat_ns * leaving / unit),
    )


def _siblings(topology: Topology, cpus: tuple[Cpu, ...]) -> Ints:
    place = {cpu: i for i, cpu in enumerate(cpus)}
    beside = [[place[s] for s in topology.siblings(cpu)] for cpu in cpus]
    widest = max(map(len, beside), default=0)
    padded = [row + [len(cpus)] * (widest - len(row)) for row in beside]
    return np.array(padded, dtype=np.int64).reshape(len(cpus), widest)


def within(host: Host, cpus: CpuSet) -> Host:
    """The host as if guests might be run on these CPUs only. O(CPUs)."""
    inside = np.array([cpu in cpus for cpu in host.cpus], dtype=np.bool_)
    return replace(
        host,
        usable=host.usable & cpus,
        is_usable=host.is_usable & inside,
        is_isolated=host.is_isolated & inside,
    )


def _sequence(group: Ints) -> Ints:
    """Round the cache groups: keys are a CPU's place within its group, then the group."""
    place = np.array([int((group[:i] == g).sum()) for i, g in enumerate(group)], dtype=np.int64)
    sequence: Ints = np.lexsort((group, place)).astype(np.int64)
    return sequence
