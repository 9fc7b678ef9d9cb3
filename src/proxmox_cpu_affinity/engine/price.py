"""What a CPU costs a guest: contention that is there, and contention that is to be expected.

All prices are whole numbers of Charges.unit, counted for both who suffer, hence the factors of two.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from proxmox_cpu_affinity.engine.facts import Bools, Floats, Host, Ints
from proxmox_cpu_affinity.engine.occupancy import Load
from proxmox_cpu_affinity.model.guest import Policy


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """For one decision: what each CPU costs, and what two CPUs of one core cost one guest."""

    contention: Annotated[Ints, "n: other vCPUs on the CPU"]
    smt: Annotated[Ints, "n: other vCPUs on its siblings, and those still to come"]
    kind: Annotated[Ints, "n: cores of the kind that is not wanted"]
    room: Annotated[Ints, "n: free CPUs of the cache group that others could use together"]
    groups: Annotated[Ints, "groups: load of the cache group, where guests are to be spread"]
    cpu: Annotated[Ints, "n: the sum"]
    own: Annotated[Ints, "n x (threads - 1): own vCPUs on the CPU and on that sibling"]


def prices(
    host: Host,
    load: Load,
    *,
    vcpus: int,
    configured: int,
    policy: Policy = Policy.SHARED,
    may_use: Bools | None = None,
) -> Prices:
    """Prices for a guest of `vcpus`, when `configured` vCPUs are to be expected in all. O(n).

    `configured` counts all configured guests; a free sibling is dear while enough of them are
    still to come, for it would be sold to one of them. `may_use` are the CPUs that guests may have
    (None: the usable ones that are no dedicated guest's).
    """
    charges = host.charges
    may_use = host.is_usable & ~load.exclusive if may_use is None else may_use
    padded = np.append(load.vcpus, 0.0)
    smt = whole(charges.smt_cross * padded[host.siblings].sum(axis=1))
    unwanted = ~host.efficiency if policy is Policy.EFFICIENCY else host.efficiency
    kind = charges.ecore * unwanted.astype(np.int64)
    # Siblings that a dedicated guest takes from the others will cost them a CPU of their own.
    step = charges.thread if policy is Policy.DEDICATED else charges.smt_cross
    to_come = max(configured, load.used + vcpus) - load.used
    opening, own = _half_cores(host, load, may_use, step=step, to_come=to_come)
    groups = whole(group_load(host, load))
    # Idle groups are used in turn while the host will be half empty, else the fullest ones first.
    together = 2 * (load.used + to_come) >= int(host.is_usable.sum())
    room = charges.room * together * (groups.max(initial=0) - groups)[host.group]
    groups *= charges.spread * (not together)
    contention = whole(_stacking(host, load, smt + room) * load.vcpus)
    smt += opening
    return Prices(
        contention=contention,
        smt=smt,
        kind=kind,
        room=room,
        groups=groups,
        cpu=contention + smt + kind + room,
        own=own,
    )


def whole(amounts: Floats) -> Ints:
    """Loads are fractions where guests float: prices are whole all the same."""
    return np.rint(amounts).astype(np.int64)


def _stacking(host: Host, load: Load, other: Ints) -> int:
    """Price of a vCPU that is on the CPU already: above all else that two CPUs can differ by.

    So no CPU is shared while a less loaded one is left, however far away, slow or beside whom.
    """
    charges = host.charges
    threads = host.siblings.shape[1]
    differ = (
        (int(other.max()) - int(other.min()) if len(other) else 0)
        + charges.farthest
        + (charges.smt_own + charges.smt_cross) * threads
        + 2 * charges.smt_cross * bool(threads)
        + charges.ecore * bool(host.efficiency.any())
        + charges.spread * round(float(group_load(host, load).max(initial=0.0)))
    )
    return max(charges.thread, differ + differ // 20 + charges.of(0.01))


def group_load(host: Host, load: Load) -> Floats:
    """vCPUs in each cache group."""
    return np.bincount(host.group, weights=load.vcpus).astype(np.float64)


def _half_cores(
    host: Host, load: Load, may_use: Bools, *, step: int, to_come: int
) -> tuple[Ints, Ints]:
    """What it costs to open a core of which half will be sold to another guest later.

    Layer by layer of load: of the cores with all CPUs at load k, and those with some, a share p
    will be needed by the vCPUs still to come. Opening a core then costs p times the price of a
    neighbour on the sibling, completing one saves as much; a guest that takes both halves itself
    pays nothing, which the second array (what a pair of own siblings costs) sees to. Siblings
    that nobody may be given are not for sale and count for nothing.
    """
    half = np.zeros(len(host.cpus), dtype=np.int64)
    own = np.full(host.siblings.shape, host.charges.smt_own, dtype=np.int64)
    if own.shape[1] == 0:
        return half, own
    level = np.floor(load.vcpus).astype(np.int64)
    beside = np.append(level, -1)[host.siblings]
    present = np.append(may_use, np.False_)[host.siblings]
    equal = beside == level[:, None]
    same = (equal & present).sum(axis=1)
    above = ((beside > level[:, None]) & present).any(axis=1)
    for k in range(int(level[may_use].min(initial=0)), int(level[may_use].max(initial=0)) + 1):
        layer = may_use & (level == k)
        full, partly = layer & ~above & (same > 0), layer & above
        whole, halves = _cores(host, full), _cores(host, partly)
        if whole + halves:
            sold = min(max(0, to_come - whole), whole + halves)
            share = step * sold // (whole + halves)
            half[full] = share
            half[partly] = -share
            own[full] -= 2 * share * equal[full]
        to_come -= int((may_use & (level <= k)).sum())
        if to_come <= 0:
            break
    return half, own


def _cores(host: Host, cpus: Bools) -> int:
    """Cores that these CPUs lie in."""
    return int(np.count_nonzero(np.bincount(host.core[cpus])))
