"""Moves of running guests that pay: what to do after a stop, or when somebody asks.

One guest at a time to the best place beside the others. What a move gains is weighed against what
it costs: cold caches, and memory on another node. Dedicated guests stay. A search is long beside a
decision, so it comes in steps that are not. Out of scope: when moves are allowed, carrying them
out, and guests that would gain only by changing places.
"""

from collections.abc import Generator, Mapping, Set
from dataclasses import dataclass, field, replace

import numpy as np

from proxmox_cpu_affinity.engine import candidates
from proxmox_cpu_affinity.engine.bound import least_alone
from proxmox_cpu_affinity.engine.excess import excesses
from proxmox_cpu_affinity.engine.facts import Bools, Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import Load, load_of
from proxmox_cpu_affinity.engine.place import board, in_order, ranked
from proxmox_cpu_affinity.engine.policy import admission
from proxmox_cpu_affinity.engine.price import whole
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement

MOVE, EARNED, SAVED = 10, 3, 100  # tenths of a move: one, for a start or a stop, at most
LOOKED_AT = 40  # guests that are tried at most: those that may gain most

MOST = 1 << 30  # no ration


@dataclass(frozen=True, slots=True)
class Ration:
    """Moves that may be made: three for ten starts and stops, saved up to ten. So a host on which
    much comes and goes is not for ever moving guests about. Moves that had to be made are owed."""

    tenths: int = 0

    def earned(self, events: int) -> "Ration":
        """After so many starts and stops."""
        return Ration(min(SAVED, self.tenths + EARNED * events))

    def spent(self, moves: int) -> "Ration":
        return Ration(self.tenths - MOVE * moves)

    @property
    def moves(self) -> int:
        return max(0, self.tenths // MOVE)


@dataclass(frozen=True, slots=True)
class Move:
    """A guest's better place. `gain` is what it and its neighbours save, `cost` what moving must be
    worth, both in CPUs of time. One that shares fewer CPUs may pay though it gains less."""

    before: Placement
    after: Placement
    gain: float
    cost: float
    beside: tuple[int, int]  # vCPUs of others on its CPUs, before and after
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """What moves are looked for in. `staying` guests are not moved: those that start just now.
    `policies` are those of guests that want cores of a kind. Beyond `most` moves only those are
    made that end a needless sharing of CPUs."""

    host: Host
    occupancy: Occupancy
    most: int = MOST
    staying: Set[Vmid] = frozenset()
    policies: Mapping[Vmid, Policy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The best place of one guest, as indexes, and what it would gain and cost."""

    placement: Placement
    members: Ints
    gain: float
    cost: float
    beside: tuple[int, int]
    worth: float  # what the prices say beyond the cost: a barrier stands between shared and free


def rebalanced(question: Question) -> tuple[Move, ...]:
    """The moves that pay most, in the order in which they are to be made; at most as many as the
    rules allow.

    Each gain is reckoned after the moves before it. Deterministic: same facts, same moves.
    """
    steps = search(question)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            moves: tuple[Move, ...] = end.value
            return moves


def search(question: Question) -> Generator[None, None, tuple[Move, ...]]:
    """As `rebalanced`, in steps none of which takes much longer than a decision."""
    host, occupancy = question.host, question.occupancy
    moves: list[Move] = []
    for vcpus in sorted({len(p.order) for p in occupancy.placements}):
        least_alone(host, vcpus)  # takes long, once for each host and size
        yield
    while len(moves) < host.rules.thresholds.moves:
        found = yield from _worthy(question, needful=len(moves) >= question.most)
        if not found:
            break
        best = max(found, key=lambda one: (one.worth, -one.placement.vmid))
        move = _move(host, best)
        moves.append(move)
        # Those for whom no move paid are not tried again: a move rarely changes that.
        tried = {one.placement.vmid for one in found} - {move.after.vmid}
        staying = frozenset(p.vmid for p in occupancy.placements if p.vmid not in tried)
        occupancy = after(occupancy, move)
        question = replace(question, occupancy=occupancy, staying=staying)
    return tuple(moves)


def after(occupancy: Occupancy, move: Move) -> Occupancy:
    """The occupancy when a move was made."""
    others = occupancy.without(move.after.vmid)
    return replace(others, placements=(*others.placements, move.after))


def _worthy(question: Question, *, needful: bool) -> Generator[None, None, list[_Found]]:
    """The moves that pay, one at most of each guest; `needful`: only of those that share a CPU
    needlessly."""
    host, occupancy = question.host, question.occupancy
    load = load_of(host, occupancy)
    needless = _needless(host, load)
    worthy = []
    for placement in _worst(question, load)[:LOOKED_AT]:
        held = host.indexes(placement.order)
        if needful and not needless[held].any():
            continue
        yield
        policy = question.policies.get(placement.vmid, Policy.SHARED)
        request = Request(placement.vmid, len(placement.order), policy)
        found = _place_of(host, load, occupancy.configured_vcpus, placement, request)
        if found is not None and found.worth > 0:
            worthy.append(found)
    return worthy


def _needless(host: Host, load: Load) -> Bools:
    """CPUs that hold more than they would if all were loaded evenly."""
    usable = int(host.is_usable.sum())
    least = np.ceil(load.vcpus[host.is_usable].sum() / max(1, usable))
    needless: Bools = load.vcpus > least
    return needless


def _worst(question: Question, load: Load) -> list[Placement]:
    """The guests that may be moved, farthest above what they would cost alone first."""
    movable = [
        p for p in question.occupancy.placements if p.vmid not in question.staying and _movable(p)
    ]
    found = [(-excess, p.vmid, p) for excess, p in excesses(question.host, load, movable)]
    return [p for _, _, p in sorted(found, key=lambda entry: entry[:2])]


def _movable(placement: Placement) -> bool:
    """Not a dedicated guest, nor one of more vCPUs than CPUs, nor one on several nodes of its own:
    of these each part belongs to a node of the guest's."""
    whole = len(placement.order) == len(placement.home) and len(placement.parts) <= 1
    return whole and not placement.exclusive


def _place_of(
    host: Host, load: Load, configured: int, placement: Placement, request: Request
) -> _Found | None:
    """The best place of one guest beside the others; None where there is no other."""
    held = host.indexes(placement.order)
    beside = load.without(held)
    if request.policy is Policy.DEDICATED:  # it found no place of its own, and is not now given one
        request = replace(request, policy=Policy.SHARED)
    admitted = admission(host, beside, request)
    if placement.part_of:  # the administrator bound its memory to the host nodes it is on
        there = np.isin(host.node, host.node[held])
        admitted = replace(admitted, may_use=admitted.may_use & there)
    here = board(host, beside, configured, Turn(), request, admitted)
    sets = candidates.grown(here)
    if sets is None or request.vcpus == int(admitted.may_use.sum()):
        return None
    members, least = ranked(here, sets)[0]
    priced = (candidates.cost(here, held) - least) / here.scale * host.charges.unit
    cost = moving_cost(host, held, members)
    gain = priced - _barrier(host, here, beside, (held, members))
    others = [round(float(beside.vcpus[one].sum())) for one in (held, members)]
    return _Found(placement, members, gain, cost, (others[0], others[1]), priced - cost)


def _barrier(host: Host, here: candidates.Board, load: Load, sets: tuple[Ints, Ints]) -> float:
    """How much of the prices' difference is the barrier, above what a shared CPU slows down."""
    slowed = whole(host.charges.thread * load.vcpus)
    before, after = (int((here.prices.contention - slowed)[one].sum()) for one in sets)
    return (before - after) * host.charges.unit


def moving_cost(host: Host, before: Ints, after: Ints) -> float:
    """What a move between these CPUs (as indexes) must be worth, in shares of one vCPU's time."""
    rules = host.rules.thresholds
    if not np.isin(host.group[after], host.group[before], invert=True).any():
        return max(rules.least, rules.inside * len(before))
    leaves = bool(np.isin(host.node[after], host.node[before], invert=True).any())
    return max(rules.least, rules.move * len(before)) + rules.across_nodes * leaves * len(before)


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
        spans=(home,) if before.part_of else (),
    )
    reason = _reason(before.home, home, found)
    return Move(before, moved, found.gain, found.cost, found.beside, reason)


def _reason(before: CpuSet, home: CpuSet, found: _Found) -> str:
    had, has = found.beside
    gain = f"with its neighbours it gains {found.gain:.2f} CPUs of time"
    words = f"from {before} to {home}: {gain}, {found.cost:.2f} would be enough"
    if found.gain <= found.cost:
        words = f"from {before} to {home}: {gain}, and no CPU is shared that need not be"
    return words if had == has else f"{words}; others' vCPUs on its CPUs: {has} rather than {had}"
