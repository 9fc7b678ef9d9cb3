"""Guests on whole cores, for those who pin by hand: no core is shared, vCPUs go by core.

Every socket of a guest lies on one node while some node has room, its vCPUs on the threads of its
cores, as many on a core as it has threads. It is the same engine: each core stands for its first
CPU, and every guest is a dedicated one. The largest are placed first, since nobody moves later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Turn, within
from proxmox_cpu_affinity.engine.nodes import several
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import GuestNode, Policy, Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Fallback, Placement, Strategy
from proxmox_cpu_affinity.model.topology import CoreKind, Topology

_KINDS = {Policy.PERFORMANCE: True, Policy.EFFICIENCY: False}


@dataclass(frozen=True, slots=True)
class OnCores:
    """A guest on whole cores. `decision` is in terms of the first CPUs of the cores."""

    placement: Placement
    cores: tuple[CpuSet, ...]  # of each vCPU its core
    decision: Decision


@dataclass(frozen=True, slots=True)
class CorePlan:
    """In the order of the requests."""

    placed: tuple[OnCores, ...]
    refused: tuple[tuple[Vmid, str], ...]


def first_cores(topology: Topology) -> CpuSet:
    """The first core of each node that has several: by custom they are the host's."""
    found = EMPTY
    for node in topology.nodes:
        cores = [core for core in topology.cores if core <= node.cpus]
        found |= cores[0] if len(cores) > 1 else EMPTY
    return found


def plan_on_cores(host: Host, requests: Sequence[Request]) -> CorePlan:
    """Place these guests on an empty host. A guest for which too few cores are left is refused."""
    rules = replace(host.rules, strategy=Strategy.BALANCED, dedicated_fallback=Fallback.REFUSE)
    host, turn = replace(host, rules=rules), Turn()
    placed: dict[Vmid, OnCores] = {}
    refused: dict[Vmid, str] = {}
    wanted = {request.vmid: _asked(host, request) for request in requests}
    configured = sum(one.cores.vcpus for one in wanted.values())
    for one in sorted(wanted.values(), key=lambda one: one.size, reverse=True):
        standing = Occupancy(tuple(p.decision.placement for p in placed.values()), configured)
        here = within(host, one.firsts)
        try:
            decision, turn = place(here, standing, turn, one.cores)
        except UnplaceableError:
            refused[one.request.vmid] = _why(standing, one)
            continue
        placed[one.request.vmid] = _on_cores(here, one, decision)
    order = [request.vmid for request in requests]
    return CorePlan(
        tuple(placed[vmid] for vmid in order if vmid in placed),
        tuple((vmid, refused[vmid]) for vmid in order if vmid in refused),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A guest's request, and the same in cores of `threads` CPUs, known by their first CPUs."""

    request: Request
    cores: Request
    firsts: CpuSet
    threads: int
    nodes: tuple[GuestNode, ...]  # of vCPUs

    @property
    def size(self) -> tuple[int, int]:
        """By which the order goes: cores of its largest socket, then all of them."""
        return max(len(node.vcpus) for node in self.cores.guest_nodes), self.cores.vcpus


def _asked(host: Host, request: Request) -> _Asked:
    cores, warnings = _candidates(host, request.policy)
    threads = max(map(len, cores or host.topology.cores), default=1)
    nodes = request.guest_nodes or (GuestNode(tuple(range(request.vcpus))),)
    units: list[GuestNode] = []
    count = 0
    for node in nodes:
        more = -(-len(node.vcpus) // threads)
        units.append(GuestNode(tuple(range(count, count + more)), node.hosts))
        count += more
    return _Asked(
        request,
        Request(
            request.vmid,
            count,
            Policy.DEDICATED,
            guest_nodes=tuple(units),
            warnings=(*request.warnings, *warnings),
        ),
        CpuSet.of(core.first() for core in cores),
        threads,
        nodes,
    )


def _candidates(host: Host, policy: Policy) -> tuple[list[CpuSet], tuple[str, ...]]:
    """The whole cores with the most threads, of the kind that is wanted if there are any."""
    open_to_guests = host.cpuset(np.flatnonzero(host.is_usable | host.is_isolated).tolist())
    whole = [core for core in host.topology.cores if core <= open_to_guests]
    warnings: tuple[str, ...] = ()
    if policy in _KINDS:
        fast = _KINDS[policy]
        of_kind = [core for core in whole if _is_fast(host.topology, core) == fast]
        warnings = () if of_kind else (f"no {policy} cores here: any",)
        whole = of_kind or whole
    most = max(map(len, whole), default=0)
    return [core for core in whole if len(core) == most], warnings


def _is_fast(topology: Topology, core: CpuSet) -> bool:
    return topology.place(core.first()).kind is CoreKind.PERFORMANCE


def _why(standing: Occupancy, one: _Asked) -> str:
    taken = EMPTY
    for placement in standing.placements:
        taken |= placement.home
    left = len(one.firsts - taken)
    wanted = "1 whole core" if one.cores.vcpus == 1 else f"{one.cores.vcpus} whole cores"
    return f"{wanted} wanted, {left} left"


def _on_cores(host: Host, one: _Asked, decision: Decision) -> OnCores:
    topology, found = host.topology, decision.placement
    core_of = {first: topology.cores[topology.place(first).core] for first in found.home}
    of_vcpu: dict[int, CpuSet] = {}
    for node, units in zip(one.nodes, one.cores.guest_nodes, strict=True):
        for i, vcpu in enumerate(node.vcpus):
            of_vcpu[vcpu] = core_of[found.order[units.vcpus[i // one.threads]]]
    cores = tuple(of_vcpu[vcpu] for vcpu in sorted(of_vcpu))
    home = CpuSet.of(cpu for core in cores for cpu in core)
    warnings = found.warnings
    if several(host) and not found.part_of:
        # The engine's own warning counts cores as if they were vCPUs.
        warnings = (*one.cores.warnings, "no node has room for a whole socket of it: spread")
    threads: dict[CpuSet, int] = {}
    order = []
    for core in cores:
        i = threads[core] = threads.get(core, -1) + 1
        order.append(list(core)[i % len(core)])
    placement = replace(
        found,
        home=home,
        applied=home,
        order=tuple(order),
        parts=(home,),
        part_of=(),
        spans=(),
        pinned=False,
        warnings=warnings,
    )
    return OnCores(placement, cores, decision)
