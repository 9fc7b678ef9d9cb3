"""A lower bound: what these guests cost at the least, wherever they are put.

Contention is least when the vCPUs are filled in as if they had no latency; each guest's latency is
least when it is alone. The pairs of siblings may be counted in either, but not in both: any share
of them may be given to the first and the rest to the second, and the best share is taken.
"""

from collections.abc import Sequence

import numpy as np

from proxmox_cpu_affinity.engine.facts import Floats, Host, Ints

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def lower_bound(host: Host, sizes: Sequence[int]) -> float:
    """No placement of guests of these sizes costs less, summed over their vCPUs, in shares of one
    vCPU's time. Each guest is on distinct CPUs while there are enough; what it has beyond them is
    not counted as contention."""
    usable = int(host.is_usable.sum())
    vcpus = sum(min(size, usable) for size in sizes)
    counts = np.bincount(np.array(sizes, dtype=np.int64))
    several = np.flatnonzero(counts).tolist()
    return max(
        least_contention(host, vcpus, share)
        + sum(int(counts[size]) * least_alone(host, size, 1 - share) for size in several)
        for share in SHARES
    )


def least_contention(host: Host, vcpus: int, share: float = 1.0) -> float:
    """Cost of so many vCPUs filled in where each costs least: a core's cost is convex in its load,
    so the cheapest steps of all cores add up to the least. `share` of it is counted, of slow cores
    all."""
    steps: list[float] = []
    for threads, efficiency, cores in _kinds(host):
        longest = -(-vcpus // cores) + threads
        one = _steps(host, threads, longest, share, slow=efficiency)
        steps += one * cores
    return sum(sorted(steps)[:vcpus])


def _kinds(host: Host) -> list[tuple[int, bool, int]]:
    """Usable cores by their number of usable CPUs and by kind: (CPUs, efficiency, how many)."""
    usable = np.flatnonzero(host.is_usable)
    _, first, threads = np.unique(host.core[usable], return_index=True, return_counts=True)
    kinds = zip(threads.tolist(), host.efficiency[usable[first]].tolist(), strict=True)
    counted: dict[tuple[int, bool], int] = {}
    for kind in kinds:
        counted[kind] = counted.get(kind, 0) + 1
    return [(threads, slow, cores) for (threads, slow), cores in sorted(counted.items())]


def _steps(host: Host, threads: int, count: int, share: float, *, slow: bool) -> list[float]:
    """What each further vCPU on a core costs. Own siblings are at most as many as the guests that
    have a vCPU on both; where they cost more than strangers there need be none."""
    weights = host.rules.weights
    cross = 2 * share * weights.smt_cross
    own = min(cross, 2 * share * weights.smt_own)
    load = [0] * threads
    found: list[float] = []
    for _ in range(count):
        prices = [
            2 * share * weights.thread * here
            + sum(
                cross * there - (cross - own) * (here < there)
                for k, there in enumerate(load)
                if k != i
            )
            for i, here in enumerate(load)
        ]
        best = min(range(threads), key=prices.__getitem__)
        found.append(prices[best] + weights.ecore * slow)
        load[best] += 1
    return found


def least_alone(host: Host, vcpus: int, own_share: float = 1.0) -> float:
    """Latency and `own_share` of the own siblings of a guest that is alone, at the least."""
    usable = int(host.is_usable.sum())
    held = min(vcpus, usable)
    if held < 2:
        return 0.0
    pairs = _partners(host, own_share, held)
    least = 0.5 * float(np.sort(pairs)[:held].sum())
    return least * vcpus / held


def _partners(host: Host, own_share: float, held: int) -> Floats:
    """For each usable CPU what its cheapest held - 1 partners cost it, as shares. O(CPUs squared),
    once for each host, share and size."""
    known = host.partners.get((own_share, held))
    if known is None:
        known = host.partners[own_share, held] = _partners_of(host, own_share, held)
    return known


def _partners_of(host: Host, own_share: float, held: int) -> Floats:
    unit = host.charges.unit
    usable = np.flatnonzero(host.is_usable)
    pairs = host.latency[np.ix_(usable, usable)] * (unit / (held - 1))
    position: Ints = np.full(len(host.cpus) + 1, len(usable), dtype=np.int64)
    position[usable] = np.arange(len(usable))
    padded = np.concatenate((pairs, np.zeros((len(usable), 1))), axis=1)
    beside = position[host.siblings[usable]]
    rows = np.arange(len(usable))[:, None]
    padded[rows, beside] += 2 * own_share * host.rules.weights.smt_own
    costs = padded[:, :-1].copy()
    np.fill_diagonal(costs, np.inf)
    nearest = np.partition(costs, held - 2, axis=1)[:, : held - 1]
    partners: Floats = nearest.sum(axis=1)
    return partners
