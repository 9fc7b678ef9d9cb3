"""Moves of running guests that pay: what to do after a stop, or when somebody asks.

One guest at a time to the best place beside the others. What a move gains is weighed against what
it costs: cold caches, and memory on another node. Dedicated guests stay. Out of scope: when moves
are allowed, carrying them out, and guests that would gain only by changing places.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from proxmox_cpu_affinity.engine import candidates
from proxmox_cpu_affinity.engine.bound import least_alone
from proxmox_cpu_affinity.engine.facts import Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import Load, load_of
from proxmox_cpu_affinity.engine.place import board, in_order, ranked
from proxmox_cpu_affinity.engine.policy import admission
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement

LOOKED_AT = 12  # guests that are tried: those that are farthest from what they could have alone
NO_POLICIES: Mapping[Vmid, Policy] = {}


@dataclass(frozen=True, slots=True)
class Move:
    """A guest's better place. `gain` is what it and its neighbours save, `cost` what moving must be
    worth, both in shares of one vCPU's time, summed over the vCPUs."""

    before: Placement
    after: Placement
    gain: float
    cost: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The best place of one guest, as indexes, and what it would gain and cost."""

    placement: Placement
    members: Ints
    gain: float
    cost: float

    @property
    def worth(self) -> float:
        return self.gain - self.cost


def rebalanced(
    host: Host,
    occupancy: Occupancy,
    *,
    staying: Collection[Vmid] = (),
    policies: Mapping[Vmid, Policy] = NO_POLICIES,
) -> tuple[Move, ...]:
    """The moves that pay most, in the order in which they are to be made; at most as many as the
    rules allow. `staying` guests are not moved: those that start just now, or were asked to.
    `policies` are those of guests that want cores of a kind.

    Each gain is reckoned after the moves before it. Deterministic: same facts, same moves.
    """
    moves: list[Move] = []
    while len(moves) < host.rules.thresholds.moves:
        movable = _worst(host, occupancy, {*staying, *(m.after.vmid for m in moves)})
        found = _best_single(host, occupancy, movable, policies)
        if found is None:
            break
        move = _move(host, found)
        moves.append(move)
        occupancy = after(occupancy, move)
    return tuple(moves)


def after(occupancy: Occupancy, move: Move) -> Occupancy:
    """The occupancy when a move was made."""
    others = occupancy.without(move.after.vmid)
    return replace(others, placements=(*others.placements, move.after))


def _worst(host: Host, occupancy: Occupancy, staying: Collection[Vmid]) -> list[Placement]:
    """The guests that may be moved, farthest above what they would cost alone first."""
    load = load_of(host, occupancy)
    excess = [
        (-_excess(host, load, host.indexes(p.order)), p.vmid, p)
        for p in occupancy.placements
        if p.vmid not in staying and _movable(p)
    ]
    return [p for _, _, p in sorted(excess, key=lambda entry: entry[:2])]


def _movable(placement: Placement) -> bool:
    """Not a dedicated guest, nor one of more vCPUs than CPUs, nor one on several nodes of its own:
    of these each part belongs to a node of the guest's."""
    whole = len(placement.order) == len(placement.home) and len(placement.parts) <= 1
    return whole and not placement.exclusive


def _excess(host: Host, load: Load, members: Ints) -> float:
    """How far a guest costs more than it could, in shares."""
    charges, held = host.charges, load.vcpus[members]
    own = int(np.isin(host.siblings[members], members).sum())
    beside = np.append(load.vcpus, 0.0)[host.siblings[members]].sum() - own
    units = charges.thread * float((held - 1).sum()) + charges.smt_cross * float(beside)
    units += charges.smt_own * own / 2 + charges.ecore * int(host.efficiency[members].sum())
    units += host.latency[np.ix_(members, members)].sum() / 2 / max(1, len(members) - 1)
    return float(units) * charges.unit - least_alone(host, len(members))


def _best_single(
    host: Host,
    occupancy: Occupancy,
    movable: Sequence[Placement],
    policies: Mapping[Vmid, Policy],
) -> _Found | None:
    load = load_of(host, occupancy)
    best = None
    for placement in movable[:LOOKED_AT]:
        policy = policies.get(placement.vmid, Policy.SHARED)
        request = Request(placement.vmid, len(placement.order), policy)
        found = _place_of(host, load, occupancy.configured_vcpus, placement, request)
        if found is not None and found.worth > (best.worth if best else 0.0):
            best = found
    return best


def _place_of(
    host: Host, load: Load, configured: int, placement: Placement, request: Request
) -> _Found | None:
    """The best place of one guest beside the others; None where there is no other."""
    held = host.indexes(placement.order)
    if len(held) < len(placement.order):
        return None
    beside = load.without(held)
    if request.policy is Policy.DEDICATED:  # it found no place of its own, and is not now given one
        request = replace(request, policy=Policy.SHARED)
    admitted = admission(host, beside, request)
    here = board(host, beside, configured, Turn(), request, admitted)
    sets = candidates.grown(here)
    if sets is None or request.vcpus == int(admitted.may_use.sum()):
        return None
    members, least = ranked(here, sets)[0]
    gain = (candidates.cost(here, held) - least) / here.scale * host.charges.unit
    return _Found(placement, members, gain, moving_cost(host, held, members))


def moving_cost(host: Host, before: Ints, after: Ints) -> float:
    """What a move between these CPUs (as indexes) must be worth, in shares of one vCPU's time."""
    rules = host.rules.thresholds
    leaves = bool(np.isin(host.node[after], host.node[before], invert=True).any())
    return len(before) * (rules.move + rules.across_nodes * leaves)


def _move(host: Host, found: _Found) -> Move:
    before = found.placement
    home = host.cpuset(found.members.tolist())
    moved = replace(
        before,
        home=home,
        applied=home,
        order=in_order(host.topology, home),
        start=host.cpus[int(found.members[0])],
        parts=(home,),
    )
    reason = _reason(before.home, home, found, len(before.order))
    return Move(before, moved, found.gain, found.cost, reason)


def _reason(before: CpuSet, home: CpuSet, found: _Found, vcpus: int) -> str:
    gain, cost = 100 * found.gain / vcpus, 100 * found.cost / vcpus
    return f"from {before} to {home}: gains {gain:.1f} % per vCPU, {cost:.0f} % would be enough"
