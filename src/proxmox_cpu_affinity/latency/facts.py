"""Reads what a latency matrix depends on: the facts that make the cache's fingerprint.

Out of scope: comparing fingerprints (cache.py).
"""

import hashlib
from collections.abc import Sequence

from proxmox_cpu_affinity.formats import cpuinfo
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.topology import Topology

BIOS_VERSION = "sys/class/dmi/id/bios_version"


def host_facts(topology: Topology, tree: Tree) -> dict[str, str]:
    """The facts, named as messages name them; what the host does not say is an empty text."""
    processor = cpuinfo.parse(tree.head(cpuinfo.CPUINFO, cpuinfo.HEAD) or "")
    return {
        "CPU model": processor.model_name,
        "microcode": processor.microcode,
        "online CPUs": str(topology.online),
        "caches": f"{_digest(topology.l2_groups)} {_digest(topology.cache_groups)}",
        "BIOS version": (tree.text(BIOS_VERSION) or "").strip(),
    }


def _digest(groups: Sequence[CpuSet]) -> str:
    """Short, since the groups of a large host fill pages and only their equality matters."""
    return hashlib.sha256(";".join(map(str, groups)).encode("ascii")).hexdigest()[:16]
