"""How loaded each CPU is, derived from the placements that stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from proxmox_cpu_affinity.engine.facts import Bools, Floats, Host, Ints, Occupancy
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.placement import Placement


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """vCPUs on each CPU (index as in Host), and the CPUs that belong to one guest alone."""

    vcpus: Floats
    held: Bools  # by some guest, whoever was taken away since; load from outside holds nothing
    exclusive: Bools  # a dedicated guest's, with their siblings
    used: int  # vCPUs of all placements

    def without(self, members: Ints) -> "Load":
        """As if a guest with one vCPU on each of these CPUs, and not a dedicated one, were gone."""
        vcpus = self.vcpus.copy()
        vcpus[members] -= 1.0
        return replace(self, vcpus=vcpus, used=self.used - len(members))

    def beside(self, members: Sequence[int]) -> "Load":
        """As if there were one vCPU more on each of these CPUs."""
        vcpus = self.vcpus.copy()
        vcpus[list(members)] += 1.0
        return replace(self, vcpus=vcpus, used=self.used + len(members))


def load_of(host: Host, occupancy: Occupancy) -> Load:
    """Sum the placements up, whatever their order. A guest of more vCPUs than CPUs loads its CPUs
    evenly."""
    count = len(host.cpus)
    even = [p for p in occupancy.placements if len(p.order) == p.home.mask.bit_count()]
    vcpus = _counted(host, even)
    used = sum(len(p.order) for p in even)
    if len(even) < len(occupancy.placements):
        uneven = (p for p in occupancy.placements if len(p.order) != p.home.mask.bit_count())
        for placement in sorted(uneven, key=lambda p: p.vmid):
            here = host.indexes(placement.home)
            held = max(len(placement.order), len(placement.home))
            used += held
            vcpus[here] += held / max(1, len(here))
    held_by_guests = vcpus > 0
    for cpu, amount in sorted(occupancy.outside):
        if cpu < len(host.index) and host.index[cpu] < count:
            vcpus[host.index[cpu]] += amount
    return Load(vcpus, held_by_guests, _exclusive(host, occupancy.placements), used)


def _counted(host: Host, placements: Sequence[Placement]) -> Floats:
    """Guests on each CPU, where each has one vCPU a CPU."""
    here = host.indexes(chain.from_iterable(p.order for p in placements))
    return np.bincount(here, minlength=len(host.cpus)).astype(np.float64)


def _exclusive(host: Host, placements: Sequence[Placement]) -> Bools:
    exclusive = np.zeros(len(host.cpus) + 1, dtype=np.bool_)
    for placement in placements:
        if placement.exclusive:
            here = host.indexes(placement.home)
            exclusive[here] = True
            exclusive[host.siblings[here]] = True
    return exclusive[:-1]


def overlapping(occupancy: Occupancy) -> CpuSet:
    """CPUs that more than one guest holds."""
    once, twice = EMPTY, EMPTY
    for placement in occupancy.placements:
        twice |= once & placement.home
        once |= placement.home
    return twice
