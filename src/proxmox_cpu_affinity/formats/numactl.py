"""`numactl --hardware`: the nodes of a host, their CPUs, memory and distances. numactl(8).

It knows nothing of cores and caches: lscpu's text has to come with it.
"""

import re
from collections.abc import Iterable

from proxmox_cpu_affinity.formats.sysfiles import NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

_FORMS = {
    "cpus": re.compile(r"node ([0-9]{1,4}) cpus:((?: [0-9]{1,5})*) *"),
    "size": re.compile(r"node ([0-9]{1,4}) size: ([0-9]{1,10}) MB *"),
    "distances": re.compile(r" *([0-9]{1,4}):((?: +[0-9]{1,5})+) *"),
}
_AVAILABLE = re.compile(r"available: ([0-9]{1,5}) nodes? \([0-9,-]+\) *")
_SILENT = re.compile(
    r"node [0-9]+ free: .*|node distances: *|node( +[0-9]+)+ *"
    r"|No distance information available\. *"
)
_ONCE = "give the whole output of one run"


def is_line(line: str) -> bool:
    """Whether numactl writes such a line."""
    return any(form.fullmatch(line) for form in (*_FORMS.values(), _AVAILABLE, _SILENT))


def files(lines: Iterable[str], online: CpuSet) -> dict[str, str]:
    """The nodes as the kernel's files would tell them. SyntaxFault where they are of another host,
    or told twice or in part.

    `online` are the host's CPUs, as lscpu names them.
    """
    told = _told(lines)
    cpus = {node: _cpus(node, text) for node, text in told["cpus"].items()}
    counts = set(told["available"])
    if counts - {len(cpus)}:
        text = f"it tells of {min(counts)} nodes, and names the CPUs of {len(cpus)}"
        raise SyntaxFault(f"numactl: {text}", hint=_ONCE)
    named = _together(cpus.values())
    if not named:
        raise SyntaxFault("numactl: its text names no node's CPUs", hint=_ONCE)
    if named != online:
        differ = (named - online) | (online - named)
        raise SyntaxFault(
            f"numactl and lscpu speak of different hosts: only one of them has CPUs {differ}"
        )
    found = {f"{NODE_DIR}/node{node}/cpulist": str(here) for node, here in cpus.items()}
    for node, mib in told["size"].items():
        text = f"Node {node} MemTotal: {int(mib) * 1024} kB"
        found[f"{NODE_DIR}/node{node}/meminfo"] = text
    for node, row in told["distances"].items():
        found[f"{NODE_DIR}/node{node}/distance"] = " ".join(row.split())
    return found


def _told(lines: Iterable[str]) -> dict[str, dict[int, str]]:
    """What the lines tell, by what it is and by node; of `available` the number in its place."""
    told: dict[str, dict[int, str]] = {what: {} for what in (*_FORMS, "available")}
    forms = {**_FORMS, "available": _AVAILABLE}
    for line in lines:
        for what, form in forms.items():
            match = form.fullmatch(line)
            if not match:
                continue
            number = int(match[1])
            if number in told[what]:
                raise SyntaxFault(f"numactl: node {number} {what}: told twice", hint=_ONCE)
            told[what][number] = match[form.groups]
    return told


def _cpus(node: int, text: str) -> CpuSet:
    numbers = [int(word) for word in text.split()]
    if any(number >= CPU_LIMIT for number in numbers):
        raise SyntaxFault(f"numactl: node {node} has a CPU that is out of range")
    return CpuSet.of(numbers)


def _together(sets: Iterable[CpuSet]) -> CpuSet:
    found = EMPTY
    for cpus in sets:
        if cpus.overlaps(found):
            raise SyntaxFault(f"numactl: CPUs {cpus & found} are in two nodes", hint=_ONCE)
        found |= cpus
    return found


def contradicted(ours: dict[str, str], theirs: dict[str, str]) -> bool:
    """Whether lscpu puts a CPU into another node than numactl does."""
    lists = {path: text for path, text in ours.items() if path.startswith(f"{NODE_DIR}/")}
    return any(theirs.get(path) != text for path, text in lists.items())
