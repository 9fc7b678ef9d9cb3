"""How loaded each CPU is, derived from the placements that stand."""

from dataclasses import dataclass

import numpy as np

from proxmox_cpu_affinity.engine.facts import Bools, Floats, Host, Occupancy
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """vCPUs on each CPU (index as in Host), and the CPUs that belong to one guest alone."""

    vcpus: Floats
    exclusive: Bools
    used: int  # vCPUs of all placements


def load_of(host: Host, occupancy: Occupancy) -> Load:
    """Sum the placements up, whatever their order. A guest of more vCPUs than CPUs loads its CPUs
    evenly."""
    index = {cpu: i for i, cpu in enumerate(host.cpus)}
    vcpus = np.zeros(len(host.cpus))
    exclusive = np.zeros(len(host.cpus), dtype=np.bool_)
    used = 0
    for placement in sorted(occupancy.placements, key=lambda p: p.vmid):
        here = [index[cpu] for cpu in placement.home if cpu in index]
        count = max(len(placement.order), len(placement.home))
        used += count
        if here:
            vcpus[here] += count / len(here)
        if placement.exclusive:
            exclusive[here] = True
            for i in here:
                exclusive[host.sibling[i]] = True
    for cpu, amount in sorted(occupancy.outside):
        if cpu in index:
            vcpus[index[cpu]] += amount
    return Load(vcpus, exclusive, used)


def overlapping(occupancy: Occupancy) -> CpuSet:
    """CPUs that more than one guest holds."""
    once, twice = EMPTY, EMPTY
    for placement in occupancy.placements:
        twice |= once & placement.home
        once |= placement.home
    return twice
