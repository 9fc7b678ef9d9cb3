"""What a CPU costs a guest: contention that is there, and contention that is to be expected.

All prices are shares of one vCPU's time, counted for both who suffer, hence the factors of two.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from proxmox_cpu_affinity.engine.facts import Floats, Host
from proxmox_cpu_affinity.engine.occupancy import Load


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
    # Stacking must never be cheaper than the farthest free CPU of the lower layer.
    farthest = float(host.latency.max(initial=0.0))
    stack = max(2 * weights.thread, 1.05 * weights.lat_ns * farthest)
    padded = np.append(load.vcpus, 0.0)
    smt = 2 * weights.smt_cross * padded[host.siblings].sum(axis=1)
    opening, both = _half_cores(host, load, vcpus=vcpus, configured=configured)
    contention = stack * load.vcpus
    kind = weights.ecore * host.efficiency
    cpu = contention + smt + kind + opening
    cpu = np.where(host.is_usable & ~load.exclusive, cpu, np.inf)
    pair = (2 * weights.lat_ns / max(1, vcpus - 1)) * host.latency
    pair = pair + host.sibling * (2 * weights.smt_own) - both
    return Prices(contention, smt + opening, kind, cpu, pair)


def _half_cores(host: Host, load: Load, *, vcpus: int, configured: int) -> tuple[Floats, Floats]:
    """What it costs to open a core of which half will be sold to another guest later.

    Layer by layer of load: of the cores with all CPUs at load k, and those with some, a share p
    will be needed by the vCPUs still to come. Opening a core then costs p times the price of a
    neighbour on the sibling, completing one saves as much; a guest that takes both halves itself
    pays nothing, which the second array (n x n, to be taken off pair prices) sees to.
    """
    count = len(host.cpus)
    half = np.zeros(count)
    if host.siblings.shape[1] == 0:
        return half, np.zeros((count, count))
    step = 2 * host.rules.weights.smt_cross
    level = np.floor(load.vcpus).astype(np.int64)
    padded = np.append(level, -1)
    beside = padded[host.siblings]
    present = host.siblings < count
    same = ((beside == level[:, None]) & present).sum(axis=1)
    above = ((beside > level[:, None]) & present).sum(axis=1)
    to_come = max(configured, load.used + vcpus) - load.used
    share = np.zeros(count)
    open_cpu = host.is_usable & ~load.exclusive
    for k in np.unique(level[open_cpu]):
        layer = open_cpu & (level == k)
        full, partly = layer & (above == 0) & (same > 0), layer & (above > 0)
        whole, halves = len(np.unique(host.core[full])), len(np.unique(host.core[partly]))
        if whole + halves:
            p = min(1.0, max(0.0, (to_come - whole) / (whole + halves)))
            half[full] = step * p
            half[partly] = -step * p
            share[full] = p
        to_come -= int(layer.sum())
        if to_come <= 0:
            break
    equal = host.sibling & (level[:, None] == level[None, :])
    return half, equal * (2 * step * share)[:, None]
