"""Guests with virtual NUMA: on which host node each guest node goes, and on which of its CPUs.

Each guest node is placed like a guest of its own inside of one host node, those first whose host
nodes the administrator chose, then in order. Host nodes are used once as long as there are enough.
Out of scope: what single CPUs cost (price), and memory, which PVE binds where `hostnodes=` says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from proxmox_cpu_affinity.engine import nearest
from proxmox_cpu_affinity.engine.facts import Bools, Host, Ints
from proxmox_cpu_affinity.engine.occupancy import Load
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import GuestNode, Request

Room = tuple[int, ...]
"""Numbers of host nodes, nearly always of one."""

Cheapest = Callable[[Load, int, Bools], Ints]
"""The cheapest set of that many CPUs among these, beside this load, the starting CPU first."""


@dataclass(frozen=True, slots=True, eq=False)
class Seating:
    """CPUs of each guest node (indexes as in Host) and the host nodes they lie on."""

    parts: tuple[Ints, ...]
    rooms: tuple[Room, ...]
    shared: int  # other guests' vCPUs on these CPUs
    reused: int  # guest nodes on a host node that has another of them

    @property
    def members(self) -> Ints:
        return np.concatenate(self.parts)

    @property
    def rank(self) -> tuple[int, int]:
        """What comes before the price: no CPU shared, then a host node for each. Lower first."""
        return self.shared, self.reused

    def origin(self) -> str:
        """Plain words: where its parts are."""
        rooms = ", ".join("+".join(map(str, room)) for room in self.rooms)
        return f"host node{'' if len(self.rooms) == 1 else 's'} {rooms}"


@dataclass(slots=True)
class Search:
    """One guest's search. `may_use` are the CPUs that it may have, `rank` whose turn it is."""

    host: Host
    load: Load
    request: Request
    may_use: Bools
    rank: Ints
    cheapest: Cheapest
    warnings: list[str] = field(default_factory=list)
    _rooms: list[list[Room]] = field(init=False)  # where each guest node may go
    _known: dict[tuple[int, Room, frozenset[int]], Ints] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rooms = [self._rooms_of(k, node) for k, node in enumerate(self.request.guest_nodes)]

    def seatings(self) -> list[Seating]:
        """One for each host node that the first guest node may go on, as their turn is; empty
        where some guest node fits on none. O(host nodes x sizes) searches for cheapest sets."""
        nodes = self.request.guest_nodes
        order = sorted(range(len(nodes)), key=lambda k: (not nodes[k].hosts, k))
        found = (self._seated(order, room) for room in self._rooms[order[0]])
        return [seating for seating in found if seating is not None]

    def old(self) -> Seating | None:
        """Where its nodes were before, if they may be there now and are as large as they were."""
        nodes = self.request.guest_nodes
        parts = self.request.previous_parts or self._split(self.request.previous or EMPTY)
        if [len(part) for part in parts] != [len(node.vcpus) for node in nodes]:
            return None
        rooms: list[Room] = []
        for k, part in enumerate(parts):
            fits = [room for room in self._rooms[k] if part <= self.host.cpuset(self._inside(room))]
            if not fits:
                return None
            rooms.append(fits[0])
        members = [self.host.indexes(part) for part in parts]
        return self._seating(members, rooms) if _disjoint(members) else None

    # -- host nodes --------------------------------------------------------------------------------

    def _rooms_of(self, k: int, node: GuestNode) -> list[Room]:
        """Where a guest node may go: host nodes with enough CPUs; of those that were chosen for it
        all together, if none has."""
        turn = {n: self.rank[self._inside((n,))].min(initial=len(self.rank)) for n in self._all()}
        chosen = tuple(number for number in self._all() if number in node.hosts)
        if node.hosts and not chosen:
            named = ", ".join(map(str, sorted(node.hosts)))
            text = f"hostnodes={named} of guest node {k}: no CPUs for it there, so it is elsewhere"
            self.warnings.append(text)
        among = chosen or self._all()
        large = [n for n in among if len(self._inside((n,))) >= len(node.vcpus)]
        if large or not chosen:
            return [(number,) for number in sorted(large, key=turn.__getitem__)]
        count = len(self._inside(chosen))
        if count < len(node.vcpus):
            text = f"guest node {k}: {len(node.vcpus)} vCPUs on the {count} CPUs of its hostnodes"
            self.warnings.append(f"{text}: they share")
        return [chosen]

    def _all(self) -> list[int]:
        return [
            node.node for node in self.host.topology.nodes if len(self._inside((node.node,))) > 0
        ]

    def _inside(self, room: Room) -> Ints:
        """The CPUs there that the guest may have."""
        cpus = EMPTY
        for node in self.host.topology.nodes:
            cpus |= node.cpus if node.node in room else EMPTY
        members = self.host.indexes(cpus)
        found: Ints = members[self.may_use[members]]
        return found

    # -- seats -------------------------------------------------------------------------------------

    def _seated(self, order: Sequence[int], first: Room) -> Seating | None:
        """Every guest node where it is cheapest beside those before it; the first one there."""
        parts: dict[int, Ints] = {}
        rooms: dict[int, Room] = {}
        for k in order:
            best: tuple[tuple[int, ...], Room, Ints] | None = None
            for room in [first] if not parts else self._rooms[k]:
                members = self._part(k, room, parts)
                if members is None:
                    continue
                key = self._key(members, room, parts, rooms)
                if best is None or key < best[0]:
                    best = key, room, members
            if best is None:
                return None
            _, rooms[k], parts[k] = best
        count = range(len(order))
        return self._seating([parts[k] for k in count], [rooms[k] for k in count])

    def _part(self, k: int, room: Room, parts: dict[int, Ints]) -> Ints | None:
        """CPUs for a guest node there, apart from those of the others; None for too few. Where an
        administrator chose a node that is too small, they are not kept apart."""
        node = self.request.guest_nodes[k]
        inside = self._inside(room)
        taken = np.concatenate([np.empty(0, dtype=np.int64), *parts.values()])
        free = np.setdiff1d(inside, taken)
        if len(free) < len(node.vcpus):
            if not node.hosts or self._rooms[k] != [room]:
                return None
            free = inside
        old = self._stays(k, free)
        if old is not None:
            return old
        there = frozenset(np.intersect1d(inside, taken).tolist())
        known = (len(node.vcpus), room, there)
        if known not in self._known:
            usable = np.zeros(len(self.may_use), dtype=np.bool_)
            usable[free] = True
            count = min(len(node.vcpus), len(free))
            self._known[known] = self.cheapest(self.load.beside(sorted(there)), count, usable)
        return self._known[known]

    def _stays(self, k: int, free: Ints) -> Ints | None:
        """The CPUs of a running guest's node that is bound to its host node and has not grown."""
        node, parts = self.request.guest_nodes[k], self.request.previous_parts
        if not node.hosts or k >= len(parts) or len(parts[k]) != len(node.vcpus):
            return None
        members = self.host.indexes(parts[k])
        whole = len(members) == len(parts[k]) and bool(np.isin(members, free).all())
        return members if whole else None

    def _key(
        self, members: Ints, room: Room, parts: dict[int, Ints], rooms: dict[int, Room]
    ) -> tuple[int, ...]:
        """Lower is better: CPUs that are shared, host nodes used again, how far from the others."""
        near = sum(int(self.host.latency[np.ix_(members, part)].sum()) for part in parts.values())
        reused = any(set(room) & set(other) for other in rooms.values())
        return self._shared(members), reused, near + self._beside(members)

    def _beside(self, members: Ints) -> int:
        """What SMT siblings of other guests cost these CPUs, roughly."""
        beside = np.append(self.load.vcpus, 0.0)[self.host.siblings[members]].sum()
        return round(self.host.charges.smt_cross * float(beside))

    def _shared(self, members: Ints) -> int:
        return round(float(self.load.vcpus[members].sum()))

    def _seating(self, parts: Sequence[Ints], rooms: Sequence[Room]) -> Seating:
        flat = [number for room in rooms for number in room]
        shared = self._shared(np.concatenate(parts))
        return Seating(tuple(parts), tuple(rooms), shared, len(flat) - len(set(flat)))

    def _split(self, previous: CpuSet) -> tuple[CpuSet, ...]:
        """The CPUs that a stopped guest had, given out to its nodes again, in order."""
        parts: list[CpuSet] = []
        for k, node in enumerate(self.request.guest_nodes):
            left = [previous & self.host.cpuset(self._inside(room)) for room in self._rooms[k]]
            part = next((cpus for cpus in left if len(cpus) >= len(node.vcpus)), EMPTY)
            parts.append(CpuSet.of(list(part)[: len(node.vcpus)]))
            previous -= parts[-1]
        return tuple(parts)


def several(host: Host) -> bool:
    """Whether there are nodes to choose among."""
    return sum(node.cpus.overlaps(host.usable) for node in host.topology.nodes) > 1


def too_large(host: Host, request: Request, may_use: Bools) -> str:
    """Why a guest is placed as if it had no nodes, and which nodes would fit."""
    largest = max(range(len(request.guest_nodes)), key=lambda k: len(request.guest_nodes[k].vcpus))
    count = len(request.guest_nodes[largest].vcpus)
    room = np.bincount(host.node[may_use]).tolist()
    fits = nearest.guest_nodes(len(request.guest_nodes), room)
    text = f"its guest nodes (node {largest} has {count} vCPUs) do not fit on host nodes"
    return "; ".join(filter(None, (f"{text}: placed as if it had none", fits)))


def _disjoint(parts: Sequence[Ints]) -> bool:
    flat = np.concatenate(parts).tolist()
    return len(flat) == len(set(flat))
