"""A guest that runs gets a vCPU more or less: its placement grows or shrinks where it is.

What it has stays, as far as it can: memory and caches are there. Out of scope: finding it a better
place (rebalance).
"""

from dataclasses import replace

import numpy as np

from proxmox_cpu_affinity.engine import candidates
from proxmox_cpu_affinity.engine.facts import Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import Load, load_of
from proxmox_cpu_affinity.engine.place import board, in_order
from proxmox_cpu_affinity.engine.policy import Admission, admission, alone
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.placement import Placement


def resized(host: Host, occupancy: Occupancy, placement: Placement, request: Request) -> Decision:
    """The placement with `request.vcpus` vCPUs, keeping every CPU it can.

    Never refuses: where no further CPU is to be had (all are its own already, or it is dedicated
    and none is free), vCPUs share the CPUs that it has, with a warning. CPUs that guests may not
    have any more are replaced. A pinned guest's vCPUs keep their CPUs, and the last ones go first,
    as QEMU unplugs them; so do those of a guest with virtual NUMA, whose memory is where they are.
    Others are rid of the CPUs that cost them most.
    """
    load = load_of(host, occupancy.without(placement.vmid))
    had = host.indexes(dict.fromkeys(placement.order))
    admitted = _admission(host, load, placement, request)
    may_use = admitted.may_use.copy()
    kept = had[(host.is_usable | host.is_isolated)[had] & ~load.exclusive[had]]
    may_use[kept] = True
    here = board(
        host,
        load,
        occupancy.configured_vcpus,
        Turn(),
        request,
        replace(admitted, may_use=may_use),
    )
    wanted = min(request.vcpus, int(may_use.sum()))
    of_vcpus = placement.pinned or bool(placement.part_of)
    members = _shrunk(here, kept, wanted, of_vcpus=of_vcpus)
    members = _grown(here, members, wanted)
    after = tuple(host.cpus[i] for i in members.tolist()) or tuple(dict.fromkeys(placement.order))
    if members.size and not placement.pinned:
        after = in_order(host.topology, CpuSet.of(after))
    return Decision(_filled(placement, after, request), (), _reason(placement.home, after))


def _admission(host: Host, load: Load, placement: Placement, request: Request) -> Admission:
    """What it may have beside what it has: a dedicated guest stays one, no other becomes one."""
    if placement.exclusive:
        return Admission(alone(host, load), Policy.DEDICATED)
    shared = request.policy is Policy.DEDICATED
    return admission(host, load, replace(request, policy=Policy.SHARED) if shared else request)


def _shrunk(here: candidates.Board, members: Ints, wanted: int, *, of_vcpus: bool) -> Ints:
    """The members without those that cost most, one after another; `of_vcpus`: without the last
    vCPUs' ones."""
    if of_vcpus:
        return members[:wanted]
    while len(members) > wanted:
        members = np.delete(members, int(candidates.beside(here, members)[members].argmax()))
    return members


def _grown(here: candidates.Board, members: Ints, wanted: int) -> Ints:
    """The members and the CPUs that are cheapest beside them, one after another."""
    while len(members) < wanted:
        costs = np.where(here.may_use, candidates.beside(here, members), candidates.NEVER)
        costs[members] = candidates.NEVER
        members = np.append(members, int(costs.argmin()))
    return members


def _filled(placement: Placement, cpus: tuple[Cpu, ...], request: Request) -> Placement:
    home = CpuSet.of(cpus)
    warnings = request.warnings
    if request.vcpus > len(cpus):
        count = "1 CPU" if len(cpus) == 1 else f"{len(cpus)} CPUs"
        warnings += (f"{request.vcpus} vCPUs on {count}: they share",)
    order = cpus * -(-request.vcpus // len(cpus))
    parts = (home,)  # of a guest with virtual NUMA, too: its nodes cannot be told apart any more
    return replace(
        placement,
        home=home,
        applied=home,
        order=order[: request.vcpus],
        start=placement.start if placement.start in home else cpus[0],
        parts=parts,
        warnings=warnings,
        part_of=(0,) * request.vcpus if placement.part_of else (),
        spans=parts if placement.part_of else (),
    )


def _reason(before: CpuSet, after: tuple[Cpu, ...]) -> str:
    more, less = CpuSet.of(after) - before, before - CpuSet.of(after)
    words = []
    if more:
        words.append(f"further CPUs {more}, the cheapest beside its own")
    if less:
        words.append(f"without {less}")
    return "; ".join(words) or "it keeps its CPUs"
