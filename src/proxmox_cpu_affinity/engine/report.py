"""Decisions and widths in words: one reporter for log, hook, API and scenarios.

Pure. Out of scope: what was read back (reconcile.telling, render.lines), and how an administrator's
question is answered as a whole (cli.explaining).
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from operator import or_

from proxmox_cpu_affinity.engine.facts import Host, Occupancy
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.engine.width import crowded
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Width

_LISTED = 4  # cache groups or nodes; more are counted


class Reach(StrEnum):
    """How far a guest's threads may go."""

    EXACT = "exact"  # on its own CPUs
    DOMAIN = "domain"  # in the cache groups these lie in
    NODE = "node"  # in their NUMA nodes: it waited for CPUs


def named(cpus: CpuSet) -> str:
    """`CPU 3`, `CPUs 0-3`."""
    return f"CPU {cpus}" if len(cpus) == 1 else f"CPUs {cpus}"


def decided(decision: Decision) -> str:
    """The CPUs that were chosen, why, and what is to be warned of."""
    placement = decision.placement
    return "; ".join((f"{named(placement.home)}: {decision.reason}", *placement.warnings))


@dataclass(frozen=True, slots=True)
class Reporter:
    """Says what guests were given, and why, as things stand. `wide`: the cache groups that are;
    `strained`: the guests that float in their nodes because they waited."""

    host: Host
    wide: Set[CpuSet]
    strained: Set[Vmid]
    crowded: Set[CpuSet]
    committed: int  # vCPUs of all placed guests, in per cent of the CPUs for guests

    @staticmethod
    def of(host: Host, occupancy: Occupancy, wide: Set[CpuSet], strained: Set[Vmid]) -> "Reporter":
        vcpus = sum(len(placement.order) for placement in occupancy.placements)
        committed = round(100 * vcpus / max(1, len(host.usable)))
        return Reporter(host, wide, strained, crowded(host, occupancy), committed)

    def reach(self, placement: Placement) -> Reach:
        if placement.exclusive or placement.pinned or not self._around(placement):
            return Reach.EXACT
        return Reach.NODE if placement.vmid in self.strained else Reach.DOMAIN

    def width(self, placement: Placement) -> str:
        """`host committed 180 %: floats in L3 0, CPUs 0-15`: what its threads may use, and why."""
        if placement.exclusive:
            whose = "its" if len(placement.home) == 1 else "their"
            return f"dedicated: {named(placement.home)} and {whose} SMT siblings are its own"
        if placement.pinned:
            return _pinned(placement)
        around = self._around(placement)
        if not around:
            return f"{self._because_exact(placement)}: exact, {named(placement.applied)}"
        why = f"host committed {self.committed} %{self._because(placement, around)}"
        where = f"{self._where(placement, around)}, {named(placement.applied)}"
        if placement.applied == placement.home and not self._fills(placement, around):
            return f"{why}: would float in {where}, but the others there are not for it"
        return f"{why}: floats in {where}"

    def _around(self, placement: Placement) -> tuple[CpuSet, ...]:
        """The wide cache groups that its CPUs lie in."""
        groups = self.host.topology.cache_groups
        return tuple(g for g in groups if g in self.wide and g.overlaps(placement.home))

    def _fills(self, placement: Placement, around: tuple[CpuSet, ...]) -> bool:
        return reduce(or_, around, EMPTY) & self.host.usable <= placement.home

    def _because(self, placement: Placement, around: tuple[CpuSet, ...]) -> str:
        rules = self.host.rules
        if placement.vmid in self.strained:
            return f", it waited for CPUs more than {100 * rules.widening.above:g} % of the time"
        if rules.width is Width.DOMAIN:
            return ", PCA_WIDTH=domain"
        if not any(group in self.crowded for group in around):
            return ", vCPUs shared CPUs there within the last minute"
        return "" if self.committed > 100 else ", vCPUs share CPUs there"

    def _because_exact(self, placement: Placement) -> str:
        rules = self.host.rules
        if rules.strategy is Strategy.ROUND_ROBIN:
            why = "PCA_STRATEGY=round-robin"
        elif rules.width is Width.EXACT:
            why = "PCA_WIDTH=exact"
        else:
            why = f"no vCPUs share CPUs in {self._groups(placement.home)}"
        return f"host committed {self.committed} %, {why}"

    def _where(self, placement: Placement, around: tuple[CpuSet, ...]) -> str:
        if placement.vmid in self.strained:
            nodes = self.host.topology.nodes_of(placement.home)
            return _some("node", "nodes", nodes)
        return self._groups(reduce(or_, around, EMPTY))

    def _groups(self, cpus: CpuSet) -> str:
        return _some("L3", "L3", self.host.topology.cache_groups_of(cpus))


def _pinned(placement: Placement) -> str:
    home, vcpus = placement.home, len(placement.order)
    if len(home) == 1:
        return f"pinned: {'its vCPU' if vcpus == 1 else f'all {vcpus} vCPUs'} on {named(home)}"
    if vcpus > len(home):
        return f"pinned: each of {vcpus} vCPUs on one of {named(home)}, several on the same"
    return f"pinned: each vCPU on its own of {named(home)}"


def _some(one: str, several: str, numbers: tuple[int, ...]) -> str:
    """`L3 0`, `nodes 0, 1`; of many, how many."""
    if len(numbers) > _LISTED:
        return f"{len(numbers)} {'L3 groups' if one == 'L3' else several}"
    return f"{one if len(numbers) == 1 else several} {', '.join(map(str, numbers))}"
