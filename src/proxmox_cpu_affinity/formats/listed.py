"""CPUs as lists and tables name them, turned into the files that a kernel would show of them.

Pure. For sources that number a host's cores, packages and caches instead of listing their CPUs.
Understanding the files is the work of formats.sysfs.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault


@dataclass(frozen=True, slots=True)
class Listed:
    """One online CPU and the numbers of what it lies in; None: not said.

    Numbers of cores and caches need to be unique inside of their package only.
    """

    cpu: int
    package: int = 0
    core: int | None = None
    node: int | None = None
    l2: int | None = None
    l3: int | None = None


def files(cpus: Sequence[Listed], *, present: CpuSet, model: str = "") -> dict[str, str]:
    """Path to text, as formats.sysfs.topology takes it. SyntaxFault where a CPU is named twice."""
    online = CpuSet.of(each.cpu for each in cpus)
    if len(online) < len(cpus):
        raise SyntaxFault("a CPU is named twice", hint="give the output of one run only")
    found = {f"{CPU_DIR}/online": str(online)}
    found |= dict.fromkeys((f"{CPU_DIR}/present", f"{CPU_DIR}/possible"), str(present | online))
    if model:
        found[CPUINFO] = f"model name\t: {model}"
    for each in cpus:
        found[f"{_folder(each.cpu)}/topology/physical_package_id"] = str(each.package)
        if each.core is not None:
            found[f"{_folder(each.cpu)}/topology/core_id"] = str(each.core)
    for cpu, members in _together((each.cpu, each.package, each.core) for each in cpus):
        found[f"{_folder(cpu)}/topology/core_cpus_list"] = str(members)
    for level, caches in (
        (2, [(each.cpu, each.package, each.l2) for each in cpus]),
        (3, [(each.cpu, each.package, each.l3) for each in cpus]),
    ):
        for cpu, members in _together(caches):
            cache = f"{_folder(cpu)}/cache/index{level}"
            found[f"{cache}/level"], found[f"{cache}/type"] = str(level), "Unified"
            found[f"{cache}/shared_cpu_list"] = str(members)
    for node in sorted({each.node for each in cpus if each.node is not None}):
        members = CpuSet.of(each.cpu for each in cpus if each.node == node)
        found[f"{NODE_DIR}/node{node}/cpulist"] = str(members)
    return found


def _folder(cpu: int) -> str:
    return f"{CPU_DIR}/cpu{cpu}"


def _together(named: Iterable[tuple[int, int, int | None]]) -> list[tuple[int, CpuSet]]:
    """Each CPU whose group has a number, with all CPUs of its package that name the same."""
    known = [(cpu, (package, number)) for cpu, package, number in named if number is not None]
    members: dict[Hashable, int] = {}
    for cpu, key in known:
        members[key] = members.get(key, 0) | 1 << cpu
    return [(cpu, CpuSet(members[key])) for cpu, key in known]
