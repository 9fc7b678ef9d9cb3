"""What containers load: the CPU sets of their control groups, as pvestatd or an administrator set
them. They are read and never written: pvestatd moves them as it sees fit."""

from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu, vmid_of

# cgroup v2, and v1 with its own tree for cpusets (pve-container, PVE/LXC.pm).
_FOLDERS = ("sys/fs/cgroup/lxc", "sys/fs/cgroup/cpuset/lxc")


def container_load(tree: Tree, online: CpuSet) -> tuple[tuple[Cpu, float], ...]:
    """For each CPU that containers were given, how many of them have it: as so many vCPUs.

    A container that may run anywhere loads no CPU more than another, and does not count.
    """
    load: dict[Cpu, float] = {}
    for folder in _FOLDERS:
        for name in tree.listing(folder):
            if vmid_of(name) is None:
                continue
            for cpu in _limited(tree.text(f"{folder}/{name}/cpuset.cpus"), online):
                load[cpu] = load.get(cpu, 0.0) + 1.0
    return tuple(sorted(load.items()))


def _limited(text: str | None, online: CpuSet) -> CpuSet:
    """The CPUs of a set that leaves some out; none for any other."""
    try:
        cpus = CpuSet.parse((text or "").strip()) & online
    except SyntaxFault:
        return EMPTY
    return cpus if cpus != online else EMPTY
