"""How far each guest costs more than it could have alone: what it might gain by a move, at most
about. All guests of one size are reckoned at once. Out of scope: where they would do better."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from proxmox_cpu_affinity.engine.bound import least_alone
from proxmox_cpu_affinity.engine.facts import Floats, Host, Ints
from proxmox_cpu_affinity.engine.occupancy import Load
from proxmox_cpu_affinity.engine.price import whole
from proxmox_cpu_affinity.model.placement import Placement


def excesses(
    host: Host, load: Load, placements: Iterable[Placement]
) -> Iterator[tuple[float, Placement]]:
    """Each guest's excess, in shares of one vCPU's time, summed over its vCPUs. Guests that have a
    CPU which is not online are left out. O(sum of the squares of their sizes)."""
    by_size: dict[int, list[Placement]] = defaultdict(list)
    for placement in placements:
        by_size[len(placement.order)].append(placement)
    for size, several in sorted(by_size.items()):
        members, online = _members(host, several)
        alone = least_alone(host, size)
        costs = _costs(host, load, members).tolist()
        for placement, cost, there in zip(several, costs, online, strict=True):
            if there:
                yield cost - alone, placement


def _members(host: Host, placements: Sequence[Placement]) -> tuple[Ints, list[bool]]:
    """Indexes of their CPUs, a row each, and which of them have all online (others count as 0)."""
    numbers = np.array([p.order for p in placements], dtype=np.int64)
    known = numbers < len(host.index)
    members = host.index[np.where(known, numbers, 0)]
    known &= members < len(host.cpus)
    return np.where(known, members, 0), known.all(axis=1).tolist()


def _costs(host: Host, load: Load, members: Ints) -> Floats:
    """What guests of one size cost now, in shares."""
    charges, size = host.charges, members.shape[1]
    siblings = host.siblings[members]
    own = (siblings[..., None] == members[:, None, None, :]).any(axis=3).sum(axis=(1, 2))
    beside = whole(charges.smt_cross * np.append(load.vcpus, 0.0)[siblings]).sum(axis=(1, 2))
    units = whole(charges.thread * (load.vcpus - 1))[members].sum(axis=1) + beside
    units += (charges.smt_own // 2 - charges.smt_cross) * own
    units += charges.ecore * host.efficiency[members].sum(axis=1)
    pairs = host.latency[members[:, :, None], members[:, None, :]].sum(axis=(1, 2))
    costs: Floats = (units + pairs / (2 * max(1, size - 1))) * charges.unit
    return costs
