"""Placements in the words of those who set them by hand: qm, libvirt, rhv-pinning-calculator.

Pure; each function gives the lines of one guest. Out of scope: choosing CPUs, and running qm.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.placement import Placement
from proxmox_cpu_affinity.model.topology import Topology


def qm(placement: Placement) -> list[str]:
    """A command line for `qm`. PVE takes the value `0` for none at all (it is false in Perl), and
    `0,0` for CPU 0."""
    cpus = str(placement.applied)
    return [f"qm set {placement.vmid} --affinity {'0,0' if cpus == '0' else cpus}"]


def libvirt(topology: Topology, placement: Placement) -> list[str]:
    """The elements `cputune` and `numatune` of a domain, as `virsh edit` shows them.

    Memory is preferred on the CPUs' nodes, not bound to them: on a node that is full a bound guest
    is killed. A guest with nodes of its own needs cells for them, which are not written here.
    """
    lines = [f"<!-- guest {placement.vmid} -->", "<cputune>"]
    lines += [
        f"  <vcpupin vcpu='{vcpu}' cpuset='{placement.mask_of(vcpu)}'/>"
        for vcpu in range(len(placement.order))
    ]
    lines += [f"  <emulatorpin cpuset='{placement.applied}'/>", "</cputune>"]
    nodes = _with_memory(topology, placement.applied)
    if not nodes:
        return lines
    if not placement.part_of:
        return [*lines, "<numatune>", f"  <memory {_memory(nodes)}/>", "</numatune>"]
    cells = []
    for cell, guest_node in enumerate(placement.guest_nodes):
        cpus = reduce(or_, map(placement.mask_of, guest_node.vcpus))
        there = _with_memory(topology, cpus)
        vcpus = CpuSet.of(guest_node.vcpus)
        lines.append(f"<!-- the guest's cell {cell} has its vCPUs {vcpus} -->")
        if there:
            cells.append(f"  <memnode cellid='{cell}' {_memory(there)}/>")
    return [*lines, "<numatune>", *cells, "</numatune>"]


def _with_memory(topology: Topology, cpus: CpuSet) -> CpuSet:
    """The nodes of these CPUs, without those that are known to have no memory."""
    return CpuSet.of(n.node for n in topology.nodes if n.cpus.overlaps(cpus) and n.memory_mib != 0)


def _memory(nodes: CpuSet) -> str:
    """Until 9.3 libvirt's `preferred` took a single node only."""
    return f"mode='{'preferred' if len(nodes) == 1 else 'interleave'}' nodeset='{nodes}'"


def rhv(cores: Sequence[CpuSet]) -> str:
    """rhv-pinning-calculator's string, of each vCPU the CPUs of its core: `0#1,5_1#1,5_2#2,6`."""
    return "_".join(f"{vcpu}#{','.join(map(str, cpus))}" for vcpu, cpus in enumerate(cores))
