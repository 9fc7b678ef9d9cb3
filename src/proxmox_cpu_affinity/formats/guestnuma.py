"""The NUMA nodes that PVE gives a guest: `numa: 1`, and the lines numa0 to numa7.

As qemu-server's Memory.pm has it: lines count with `numa: 1` only; without any line each socket is
a node. `cpus=` are the guest's, `hostnodes=` are where PVE binds the node's memory; it never binds
vCPUs. Out of scope: memory sizes and policies, which decide nothing about CPUs.
"""

import re
from collections.abc import Mapping

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, GuestNode, socket_nodes
from proxmox_cpu_affinity.model.topology import NODES_MOST

LINES = 8  # MAX_NUMA
_NODES = CpuSet((1 << NODES_MOST) - 1)  # of a host
_RANGES = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:;[0-9]{1,5}(?:-[0-9]{1,5})?)*")


def nodes_of(values: Mapping[str, str], *, cores: int, sockets: int) -> tuple[GuestNode, ...]:
    """The guest's nodes by the values of its main section; none where it sees a single one.

    A line that PVE could not read is dropped, as PVE drops it.
    """
    if values.get("numa") != "1":
        return ()
    lines = (values.get(f"numa{i}") for i in range(LINES))
    vcpus = CpuSet((1 << min(cores * sockets, VCPUS_MOST)) - 1)
    found = [node for line in lines if line is not None and (node := _node(line, vcpus))]
    if found:
        return _apart(found)
    if sockets < 2 or cores * sockets > VCPUS_MOST:
        return ()
    return socket_nodes(cores, sockets)


def _node(line: str, there: CpuSet) -> GuestNode | None:
    """One line; None where it names no vCPUs, or what no number is. Of its vCPUs those that are
    there: with others the guest does not start."""
    parts = (part.partition("=") for part in line.split(","))
    fields = {name.strip(): value.strip() for name, _, value in parts}
    vcpus, hosts = _numbers(fields.get("cpus")), _numbers(fields.get("hostnodes"))
    if not vcpus or hosts is None:
        return None
    return GuestNode(tuple(vcpus & there), frozenset(hosts & _NODES))


def _numbers(text: str | None) -> CpuSet | None:
    """The numbers a line lists, which a CPU set holds as well as any; None for another text."""
    if text is None:
        return EMPTY
    if not _RANGES.fullmatch(text):
        return None
    try:
        return CpuSet.parse(text.replace(";", ","))
    except SyntaxFault:
        return None


def _apart(nodes: list[GuestNode]) -> tuple[GuestNode, ...]:
    """The nodes without the vCPUs that an earlier one has: QEMU takes no vCPU twice."""
    seen: set[int] = set()
    found = []
    for node in nodes:
        own = tuple(vcpu for vcpu in node.vcpus if vcpu not in seen)
        seen.update(own)
        found.append(GuestNode(own, node.hosts))
    return tuple(found)
