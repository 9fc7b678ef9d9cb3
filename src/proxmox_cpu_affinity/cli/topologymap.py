"""A host's CPUs as text: each core with its SMT siblings, in its cache group, node and package.

    package 0  node 0  cache group 0  0/8  1/9  2/10  3/11

Pure. Out of scope: who holds which CPU (hostmap).
"""

from textwrap import wrap

from proxmox_cpu_affinity.cli.hostmap import legend, level_lines
from proxmox_cpu_affinity.cli.words import cpus_named
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.topology import CoreKind, NumaNode, Topology
from proxmox_cpu_affinity.render.words import counted

SIBLING, ISOLATED, RESERVED = "/", "i", "r"
KINDS = {CoreKind.PERFORMANCE: "", CoreKind.EFFICIENCY: "e", CoreKind.LOW_POWER: "l"}


def topology_map(topology: Topology, *, reserved: CpuSet, width: int) -> list[str]:
    """The lines of the map; `width` in columns bounds them where it can."""

    def drawn(cpus: CpuSet) -> str:
        words = [
            f"{cpu}{KINDS[topology.place(cpu).kind]}"
            f"{ISOLATED * (cpu in topology.isolated)}{RESERVED * (cpu in reserved)}"
            for cpu in cpus
        ]
        return SIBLING.join(words)

    offline = topology.present - topology.online
    return [
        _headline(topology),
        "",
        *level_lines(topology, drawn, width=width, align=True),
        *([f"offline: {cpus_named(offline)}"] if offline else []),
        "",
        *(line for node in topology.nodes for line in _node(node, width)),
        *_signs(topology, reserved, width),
    ]


def _headline(topology: Topology) -> str:
    counts = {
        "package": len(topology.packages),
        "node": len(topology.nodes),
        "cache group": len(topology.cache_groups),
        "core": len(topology.cores),
        "CPU": len(topology.online),
    }
    words = [counted(count, noun) for noun, count in counts.items()]
    virtual = ", a virtual machine" if topology.virtual else ""
    return f"{topology.model_name or 'unknown model'}: {', '.join(words)}{virtual}"


def _node(node: NumaNode, width: int) -> list[str]:
    memory = "memory unknown" if node.memory_mib is None else f"{node.memory_mib} MiB"
    parts = [f"node {node.node}: {memory}", cpus_named(node.cpus) if node.cpus else "no CPUs"]
    if len(node.distances) > 1:
        parts.append("distance " + ", ".join(f"{d} to node {n}" for n, d in node.distances))
    return wrap("; ".join(parts), width, subsequent_indent="    ", break_long_words=False)


def _signs(topology: Topology, reserved: CpuSet, width: int) -> list[str]:
    """The meanings of the signs that were used."""
    kinds = {place.kind for place in topology.places}
    used = {
        "a/b SMT siblings of one core": any(len(core) > 1 for core in topology.cores),
        "e efficiency core": CoreKind.EFFICIENCY in kinds,
        "l low-power core": CoreKind.LOW_POWER in kinds,
        "i isolated by the kernel": topology.isolated.overlaps(topology.online),
        "r reserved for the host": reserved.overlaps(topology.online),
    }
    words = [word for word, is_used in used.items() if is_used]
    return ["", *legend(words, width)] if words else []
