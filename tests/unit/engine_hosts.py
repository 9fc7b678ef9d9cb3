"""Hosts, placements and an exhaustive search for the tests of the engine."""

from array import array
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import combinations
from random import Random

import numpy as np

from proxmox_cpu_affinity.engine import candidates
from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.occupancy import load_of
from proxmox_cpu_affinity.engine.place import board
from proxmox_cpu_affinity.engine.policy import admission
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Weights
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec


@cache
def topology_of(spec: str) -> Topology:
    """A host that sim.hosts makes, such as 2x2x4x2."""
    return topology(generate(parse_spec(spec)))


def host_of(
    spec: str,
    *,
    reserved: str = "",
    allowed: str | None = None,
    strategy: Strategy = Strategy.BALANCED,
    weights: Weights | None = None,
    matrix: LatencyMatrix | None = None,
) -> Host:
    host = topology_of(spec)
    rules = Rules(strategy, weights or Weights(), CpuSet.parse(reserved))
    usable = None if allowed is None else CpuSet.parse(allowed)
    return compile_host(host, matrix or predicted(host), rules, usable)


def shaken(matrix: LatencyMatrix, random: Random, *, most: float) -> LatencyMatrix:
    """The same matrix with every pair up to `most` (a share) slower."""
    count = len(matrix.cpus)
    ns = array("d", matrix.ns)
    for i in range(count):
        for j in range(i):
            ns[i * count + j] = ns[j * count + i] = ns[i * count + j] * (1 + most * random.random())
    return replace(matrix, ns=ns)


def holding(
    vmid: int, cpus: str, *, vcpus: int | None = None, exclusive: bool = False
) -> Placement:
    """A guest that is somewhere; `vcpus` where it has more of them than CPUs."""
    home = CpuSet.parse(cpus)
    order = tuple(home) * (1 if vcpus is None else -(-vcpus // len(home)))
    return Placement(
        Vmid(vmid), home, home, order[:vcpus], home.first(), (home,), exclusive=exclusive
    )


def loads(host: Host, occupancy: Occupancy) -> dict[int, float]:
    """vCPUs on each usable CPU."""
    vcpus = load_of(host, occupancy).vcpus
    return {cpu: float(vcpus[i]) for i, cpu in enumerate(host.cpus) if cpu in host.usable}


class Costs:
    """The engine's own cost function for one guest of `vcpus` beside others, in shares."""

    def __init__(self, host: Host, occupancy: Occupancy, vcpus: int) -> None:
        load = load_of(host, occupancy)
        request = Request(Vmid(999), vcpus)
        admitted = admission(host, load, request)
        self.board = board(host, load, occupancy.configured_vcpus, Turn(), request, admitted)
        self.host, self.vcpus = host, vcpus

    def of(self, cpus: CpuSet) -> float:
        whole = candidates.cost(self.board, self.host.indexes(cpus))
        return whole / self.board.scale * self.host.charges.unit

    def terms_total(self, cpus: CpuSet) -> float:
        members = [int(i) for i in self.host.indexes(cpus)]
        whole = candidates.cost(self.board, np.array(members, dtype=np.int64))
        return candidates.terms(self.board, np.array([members]), [whole])[0].total

    def least(self) -> float:
        """The cost of the best set there is, by trying all."""
        sets = combinations(self.host.usable, self.vcpus)
        return min(self.of(CpuSet.of(members)) for members in sets)


def union(sets: Iterable[CpuSet]) -> CpuSet:
    together = EMPTY
    for cpus in sets:
        together |= cpus
    return together


def random_matrix(random: Random, cpus: CpuSet) -> LatencyMatrix:
    """Latencies without any structure; few values, so that many are equal."""
    base = LatencyMatrix(
        tuple(cpus),
        array("d", bytes(8 * len(cpus) ** 2)),
        array("d", bytes(8 * len(cpus) ** 2)),
        bytes(len(cpus) ** 2),
        predicted(topology_of("1x1x1x1")).verdict,
    )
    ns = np.array([[random.choice((10.0, 20.0, 30.5)) for _ in cpus] for _ in cpus])
    ns = np.triu(ns, 1)
    return replace(base, ns=array("d", (ns + ns.T).ravel().tolist()))
