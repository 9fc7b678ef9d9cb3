"""What a CPU costs a guest: contention that is there, and contention that is to be expected.

All prices are shares of one vCPU's time, counted for both who suffer, hence the factors of two.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from proxmox_cpu_affinity.engine.facts import Floats, Host
from proxmox_cpu_affinity.engine.occupancy import Load

SPREAD = 0.002  # price of a vCPU of load in a used cache group


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """For one decision: what each CPU costs, and what each pair of CPUs costs one guest."""

    contention: Annotated[Floats, "n: other vCPUs on the CPU"]
    smt: Annotated[Floats, "n: other vCPUs on its siblings, and those still to come"]
    kind: Annotated[Floats, "n: efficiency cores"]
    cpu: Annotated[Floats, "n: the sum; infinite where the guest may not be"]
    pair: Annotated[Floats, "n x n: latency, and own vCPUs on siblings"]


def prices(host: Host, load: Load, *, vcpus: int, configured: int) -> Prices:
    """Prices for a guest of `vcpus`, when `configured` vCPUs are to be expected in all. O(n^2).

    `configured` counts all configured guests; a free sibling is dear while enough of them are
    still to come, for it would be sold to one of them.
    """
    weights = host.rules.weights
    padded = np.append(load.vcpus, 0.0)
    smt = 2 * weights.smt_cross * padded[host.siblings].sum(axis=1)
    opening, both = _half_cores(host, load, vcpus=vcpus, configured=configured)
    contention = _stacking(host, load, smt) * load.vcpus
    kind = weights.ecore * host.efficiency
    cpu = contention + smt + kind + opening
    cpu = np.where(host.is_usable & ~load.exclusive, cpu, np.inf)
    pair = (2 * weights.lat_ns / max(1, vcpus - 1)) * host.latency
    pair = pair + host.sibling * (2 * weights.smt_own) - both
    return Prices(contention, smt + opening, kind, cpu, pair)


def _stacking(host: Host, load: Load, smt: Floats) -> float:
    """Price of a vCPU that is on the CPU already: above all else that two CPUs can differ by.

    So no CPU is shared while a less loaded one is left, however far away, slow or beside whom.
    """
    weights = host.rules.weights
    group_load = np.bincount(host.group, weights=load.vcpus)
    differ = (
        float(np.ptp(smt))
        + 2 * weights.lat_ns * float(host.latency.max(initial=0.0))
        + 2 * (weights.smt_own + weights.smt_cross) * host.siblings.shape[1]
        + 4 * weights.smt_cross * bool(host.siblings.shape[1])
        + weights.ecore * bool(host.efficiency.any())
        + SPREAD * float(group_load.max(initial=0.0))
    )
    return max(2 * weights.thread, 1.05 * differ + 0.01)


def _half_cores(host: Host, load: Load, *, vcpus: int, configured: int) -> tuple[Floats, Floats]:
    """What it costs to open a core of which half will be sold to another guest later.

    Layer by layer of load: of the cores with all CPUs at load k, and those with some, a share p
    will be needed by the vCPUs still to come. Opening a core then costs p times the price of a
    neighbour on the sibling, completing one saves as much; a guest that takes both halves itself
    pays nothing, which the second array (n x n, to be taken off pair prices) sees to. Siblings
    that nobody may be given are not for sale and count for nothing.
    """
    count = len(host.cpus)
    half = np.zeros(count)
    if host.siblings.shape[1] == 0:
        return half, np.zeros((count, count))
    step = 2 * host.rules.weights.smt_cross
    level = np.floor(load.vcpus).astype(np.int64)
    padded = np.append(level, -1)
    beside = padded[host.siblings]
    open_cpu = host.is_usable & ~load.exclusive
    present = np.append(open_cpu, np.False_)[host.siblings]
    same = ((beside == level[:, None]) & present).sum(axis=1)
    above = ((beside > level[:, None]) & present).sum(axis=1)
    to_come = max(configured, load.used + vcpus) - load.used
    share = np.zeros(count)
    for k in np.unique(level[open_cpu]):
        layer = open_cpu & (level == k)
        full, partly = layer & (above == 0) & (same > 0), layer & (above > 0)
        whole, halves = len(np.unique(host.core[full])), len(np.unique(host.core[partly]))
        if whole + halves:
            p = min(1.0, max(0.0, (to_come - whole) / (whole + halves)))
            half[full] = step * p
            half[partly] = -step * p
            share[full] = p
        to_come -= int((open_cpu & (level <= k)).sum())
        if to_come <= 0:
            break
    equal = host.sibling & (level[:, None] == level[None, :])
    return half, equal * (2 * step * share)[:, None]
