"""`numactl --hardware`: the nodes of a host, their CPUs, memory and distances. numactl(8).

It knows nothing of cores and caches: lscpu's text has to come with it.
"""

import re
from collections.abc import Iterable

from proxmox_cpu_affinity.formats.sysfs import NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

_CPUS = re.compile(r"node ([0-9]{1,4}) cpus:((?: [0-9]{1,5})*) *")
_SIZE = re.compile(r"node ([0-9]{1,4}) size: ([0-9]{1,10}) MB *")
_ROW = re.compile(r" *([0-9]{1,4}):((?: +[0-9]{1,5})+) *")
_SILENT = re.compile(
    r"available: [0-9]+ nodes? \([0-9,-]+\) *|node [0-9]+ free: .*|node distances: *"
    r"|node( +[0-9]+)+ *|No distance information available\. *"
)


def is_line(line: str) -> bool:
    """Whether numactl writes such a line."""
    return any(form.fullmatch(line) for form in (_CPUS, _SIZE, _ROW, _SILENT))


def files(lines: Iterable[str], online: CpuSet) -> dict[str, str]:
    """The nodes as the kernel's files would tell them. SyntaxFault where they are of another host.

    `online` are the host's CPUs, as lscpu names them.
    """
    found: dict[str, str] = {}
    named, seen = EMPTY, set()
    for line in lines:
        what = _about(line)
        if what and what in seen:
            raise SyntaxFault(
                f"numactl: {what}: told twice", hint="give the output of one run only"
            )
        seen.add(what)
        if match := _CPUS.fullmatch(line):
            numbers = [int(word) for word in match[2].split()]
            if any(number >= CPU_LIMIT for number in numbers):
                raise SyntaxFault(f"numactl: node {match[1]} has a CPU that is out of range")
            cpus = CpuSet.of(numbers)
            if cpus.overlaps(named):
                raise SyntaxFault(f"numactl: CPUs {cpus & named} are in two nodes")
            named |= cpus
            found[f"{NODE_DIR}/node{int(match[1])}/cpulist"] = str(cpus)
        elif match := _SIZE.fullmatch(line):
            number, kib = int(match[1]), int(match[2]) * 1024
            found[f"{NODE_DIR}/node{number}/meminfo"] = f"Node {number} MemTotal: {kib} kB"
        elif match := _ROW.fullmatch(line):
            found[f"{NODE_DIR}/node{int(match[1])}/distance"] = " ".join(match[2].split())
    if not named:
        raise SyntaxFault("numactl: its text names no node's CPUs")
    if named != online:
        differ = (named - online) | (online - named)
        raise SyntaxFault(
            f"numactl and lscpu speak of different hosts: only one of them has CPUs {differ}"
        )
    return found


def _about(line: str) -> str:
    """What a line tells that no other one may tell; empty for all else."""
    for form, what in ((_CPUS, "cpus"), (_SIZE, "size"), (_ROW, "distances")):
        if match := form.fullmatch(line):
            return f"node {int(match[1])} {what}"
    return ""


def contradicted(ours: dict[str, str], theirs: dict[str, str]) -> bool:
    """Whether lscpu puts a CPU into another node than numactl does."""
    lists = {path: text for path, text in ours.items() if path.startswith(f"{NODE_DIR}/")}
    return any(theirs.get(path) != text for path, text in lists.items())
