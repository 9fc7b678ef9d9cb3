"""Where memory is: /proc/PID/numa_maps and a node's meminfo (numa_maps(5), kernel: drivers/base/
node.c). Sizes in MiB."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.model.errors import SyntaxFault

_ON_NODE = re.compile(r"N([0-9]{1,4})=([0-9]{1,12})")
_PAGE = re.compile(r"kernelpagesize_kB=([0-9]{1,8})")
_FIELD = re.compile(r"^Node [0-9]+ ([A-Za-z_()]+):\s+([0-9]{1,18}) kB$", re.MULTILINE)
_KIB = 1024


def memory_by_node(text: str) -> Mapping[int, float]:
    """MiB of a process on each node. SyntaxFault for a line that has pages and not their size."""
    found: dict[int, float] = {}
    for line in text.splitlines():
        counts = _ON_NODE.findall(line)
        if not counts:
            continue
        page = _PAGE.search(line)
        if page is None:
            raise SyntaxFault(f"{line[:60]!r} is no line of numa_maps")
        for node, pages in counts:
            found[int(node)] = found.get(int(node), 0.0) + int(pages) * int(page[1]) / _KIB
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """A node's memory; `free` includes cached files that have not been used of late."""

    total: float
    free: float


def node_memory(text: str) -> NodeMemory:
    """A node's meminfo. SyntaxFault where a figure is missing."""
    fields = {name: int(kib) / _KIB for name, kib in _FIELD.findall(text)}
    try:
        free = fields["MemFree"] + fields["Inactive(file)"]
        return NodeMemory(fields["MemTotal"], free)
    except KeyError as error:
        raise SyntaxFault(f"a node's meminfo has no {error.args[0]}") from None
