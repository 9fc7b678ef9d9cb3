"""The score: how much the placements slow down the average vCPU, by the weights, as an estimate.

Also for guests that are not pinned, for the Go project's rule, and for packing them. Shares of one
vCPU's time; a sum over pairs of vCPUs, so nothing is counted for what lies in the future (price
does that).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from proxmox_cpu_affinity.engine import round_robin
from proxmox_cpu_affinity.engine.bound import least_contention, lower_bound
from proxmox_cpu_affinity.engine.facts import Host, Ints, Turn
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement


@dataclass(frozen=True, slots=True)
class Score:
    """Estimated slowdown of the average vCPU, each as a share of its time (0.05: 5 %)."""

    slowdown: float
    bound: float  # no placement of these guests can be better
    no_pinning: float  # a kernel that spreads perfectly, at the host's mean latency
    round_robin: float  # the Go project's rule, the guests started in the order of their VMIDs
    packed: float  # each, by VMID, on the next free CPUs by number, and round again

    @property
    def gap(self) -> float:
        """How far above the bound; the best there is may be above it, too."""
        return self.slowdown - self.bound


def score(host: Host, placements: Sequence[Placement]) -> Score | None:
    """The score of what stands, beside its bound and its alternatives. None without guests."""
    sizes = {p.vmid: len(p.order) for p in placements}
    vcpus = sum(sizes.values())
    if not vcpus or not host.usable:
        return None
    return Score(
        slowdown=total(host, [(len(p.order), p.home) for p in placements]) / vcpus,
        bound=lower_bound(host, tuple(sizes.values())) / vcpus,
        no_pinning=_unpinned(host, list(sizes.values())) / vcpus,
        round_robin=total(host, _round_robin(host, sizes)) / vcpus,
        packed=total(host, _packed(host, sizes)) / vcpus,
    )


def guest_scores(host: Host, placements: Sequence[Placement]) -> dict[Vmid, tuple[float, float]]:
    """Of each guest the slowdown of its average vCPU, and a bound that holds for it alone, both as
    shares of its time. The mean over all vCPUs is the host's score."""
    costs = each(host, [(len(p.order), p.home) for p in placements])
    return {
        p.vmid: (cost / len(p.order), alone(host, len(p.order)))
        for p, cost in zip(placements, costs, strict=True)
    }


def alone(host: Host, vcpus: int) -> float:
    """What the average vCPU of a guest loses at the least, were it alone on the host."""
    return lower_bound(host, (vcpus,)) / vcpus if host.usable else 0.0


def total(host: Host, guests: Iterable[tuple[int, CpuSet]]) -> float:
    """Cost of guests of so many vCPUs on these CPUs, summed over their vCPUs."""
    return sum(each(host, list(guests)))


def each(host: Host, guests: Sequence[tuple[int, CpuSet]]) -> list[float]:
    """What each guest loses, summed over its vCPUs: its own distances and siblings, and its half
    of what it and the others do to one another. The sum is the total."""
    weights = host.rules.weights
    load = np.zeros(len(host.cpus) + 1)
    members = [host.indexes(home) for _, home in guests]
    for (vcpus, _), here in zip(guests, members, strict=True):
        load[here] += vcpus / max(1, len(here))
    beside = load[host.siblings].sum(axis=1)
    costs = []
    for (vcpus, _), here in zip(guests, members, strict=True):
        share = vcpus / max(1, len(here))
        own = len(here) * (share * share - share * max(0.0, share - 1))
        pairs = share * share * float(np.isin(host.siblings[here], here).sum())
        cost = weights.lat_ns * vcpus * mean_latency(host, here)
        cost += (weights.smt_own - weights.smt_cross) * pairs - weights.thread * own
        cost += weights.thread * share * float(load[here].sum())
        cost += weights.smt_cross * share * float(beside[here].sum())
        costs.append(cost + weights.ecore * share * int(host.efficiency[here].sum()))
    return costs


def mean_latency(host: Host, members: Ints) -> float:
    """Mean latency in ns between these CPUs; 0 for a single one."""
    count = len(members)
    if count < 2 or not host.rules.weights.lat_ns:
        return 0.0
    units = float(host.latency[np.ix_(members, members)].sum())
    nanos = units * host.charges.unit / (2 * host.rules.weights.lat_ns)
    return nanos / (count * (count - 1))


def _unpinned(host: Host, sizes: Sequence[int]) -> float:
    everywhere = host.indexes(host.usable)
    latency = host.rules.weights.lat_ns * mean_latency(host, everywhere)
    several = sum(size for size in sizes if size > 1)
    return least_contention(host, sum(sizes)) + several * latency


def _round_robin(host: Host, sizes: dict[Vmid, int]) -> list[tuple[int, CpuSet]]:
    """What that rule would select; guests that it refuses are left unpinned."""
    turn, found, matrix = Turn(), [], round_robin.among(host)
    for vmid in sorted(sizes):
        try:
            decision, turn = round_robin.place(
                host, turn, Request(vmid, sizes[vmid]), matrix=matrix
            )
            found.append((sizes[vmid], decision.placement.home))
        except UnplaceableError:
            found.append((sizes[vmid], host.usable))
    return found


def _packed(host: Host, sizes: dict[Vmid, int]) -> list[tuple[int, CpuSet]]:
    """The first CPUs that are free, in order; where none is left, from the first one again."""
    cpus, begin, found = tuple(host.usable), 0, []
    for vmid in sorted(sizes):
        held = min(sizes[vmid], len(cpus))
        home = CpuSet.of(cpus[(begin + i) % len(cpus)] for i in range(held))
        found.append((sizes[vmid], home))
        begin += held
    return found
