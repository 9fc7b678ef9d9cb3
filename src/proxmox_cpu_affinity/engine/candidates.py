"""Sets of CPUs worth considering for a guest: grown from a starting CPU, then polished.

Shapes: n CPUs of the host, m rows grown at once. Everything is deterministic; equal costs are
settled by the order that starts behind the last starting CPU, so that starts go round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxmox_cpu_affinity.engine.facts import Bools, Floats, Host, Ints
from proxmox_cpu_affinity.engine.occupancy import Load
from proxmox_cpu_affinity.engine.price import SPREAD, Prices
from proxmox_cpu_affinity.engine.trace import Terms

GROUPS_KEPT = 16  # cache groups that are looked into
SEEDS_KEPT = 2  # starting CPUs of each
EQUAL = 1e-9  # costs nearer than this are the same: sums of the same terms in another order


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """One decision's figures, with the CPUs in the order of turn: index 0 comes next."""

    order: Ints  # n: position in turn -> index in Host
    cpu: Floats  # n: price, in the order of turn
    pair: Floats  # n x n
    group: Ints  # n
    group_load: Floats  # groups


def board(host: Host, load: Load, prices: Prices, last_start: int | None) -> Board:
    """Put the figures into the order of turn, which begins behind the last starting CPU."""
    order = np.roll(host.sequence, -_next(host, last_start))
    groups = int(host.group.max()) + 1
    return Board(
        order=order,
        cpu=prices.cpu[order],
        pair=prices.pair[np.ix_(order, order)],
        group=host.group[order],
        group_load=np.bincount(host.group, weights=load.vcpus, minlength=groups).astype(np.float64),
    )


def _next(host: Host, last_start: int | None) -> int:
    """Where the turn goes on in the host's sequence; for a CPU that is gone, at its successor."""
    if last_start is None:
        return 0
    index = int(np.searchsorted(np.array(host.cpus), last_start)) % len(host.cpus)
    place = int(np.flatnonzero(host.sequence == index)[0])
    return place + 1 if host.cpus[index] == last_start else place


def ranked_groups(here: Board, vcpus: int) -> list[int]:
    """Cache groups by the price of their cheapest CPUs (as many as the guest has vCPUs), lower
    first; equal ones in turn."""
    found: list[tuple[float, int, int]] = []
    turn = {int(g): place for place, g in reversed(list(enumerate(here.group)))}
    for group, first in turn.items():
        prices = here.cpu[here.group == group]
        cheapest = np.sort(prices[np.isfinite(prices)])[:vcpus]
        if len(cheapest):
            missing = (vcpus - len(cheapest)) * float(here.cpu[np.isfinite(here.cpu)].mean())
            found.append((round(float(cheapest.sum()) + missing, 9), first, group))
    return [group for _, _, group in sorted(found)][:GROUPS_KEPT]


def grown(here: Board, vcpus: int) -> list[Ints]:
    """Candidate sets (positions in turn, start first): grown from the cheapest CPUs of the best
    cache groups, once inside the group where the guest fits, and once freely."""
    starts: list[int] = []
    limits: list[Bools] = []
    everywhere = np.isfinite(here.cpu)
    for group in ranked_groups(here, vcpus):
        inside = everywhere & (here.group == group)
        cheapest = _cheapest(here.cpu, inside, SEEDS_KEPT)
        for allowed in (inside, everywhere):
            if int(allowed.sum()) >= vcpus:
                starts += cheapest
                limits += [allowed] * len(cheapest)
    if not starts:
        return []
    return list(_grow(here, np.array(starts), np.array(limits), vcpus))


def _cheapest(price: Floats, where: Bools, count: int) -> list[int]:
    places = np.flatnonzero(where)
    order = np.argsort(np.round(price[places], 9), kind="stable")
    return [int(places[i]) for i in order[:count]]


def _grow(here: Board, starts: Ints, limits: Bools, vcpus: int) -> Ints:
    """m sets at once: add the CPU that is cheapest beside those already in, vcpus - 1 times."""
    rows = np.arange(len(starts))
    cost = np.where(limits, here.cpu[None, :], np.inf)
    chosen = np.empty((len(starts), vcpus), dtype=np.int64)
    newest = starts
    for step in range(vcpus):
        if step:
            newest = np.round(cost, 9).argmin(axis=1)
        chosen[:, step] = newest
        cost += here.pair[newest]
        cost[rows, newest] = np.inf
    return chosen


def cost(here: Board, members: Ints) -> float:
    """Cost of a set, in shares of one vCPU's time."""
    inside = here.pair[np.ix_(members, members)]
    groups = np.unique(here.group[members])
    spread = SPREAD * float(here.group_load[groups].sum())
    return float(here.cpu[members].sum()) + 0.5 * float(inside.sum() - inside.trace()) + spread


def polished(here: Board, members: Ints, swaps: int = 4) -> Ints:
    """Up to `swaps` times, the one exchange of a member for another CPU that saves most."""
    members = members.copy()
    for _ in range(swaps):
        beside = here.pair[members].sum(axis=0)
        joining = here.cpu + beside
        joining[members] = np.inf
        leaving = here.cpu[members] + beside[members] - here.pair[members, members]
        gain = joining[None, :] - here.pair[members] - leaving[:, None]
        best = int(np.round(gain, 9).argmin())
        out, into = divmod(best, len(here.cpu))
        if not gain[out, into] < -EQUAL:
            break
        before = cost(here, members)
        trial = members.copy()
        trial[out] = into
        if not cost(here, trial) < before - EQUAL:
            break
        members = trial
    return members


def terms(host: Host, load: Load, prices: Prices, members: Sequence[int]) -> Terms:
    """The cost of a set (indexes as in Host) taken apart; the sum equals `cost`."""
    inside = np.array(members, dtype=np.int64)
    vcpus = max(1, len(inside) - 1)
    nanos = float(host.latency[np.ix_(inside, inside)].sum()) / 2
    latency = nanos * 2 * host.rules.weights.lat_ns / vcpus
    pairs = prices.pair[np.ix_(inside, inside)]
    own = 0.5 * float(pairs.sum() - pairs.trace()) - latency
    group_load = np.bincount(host.group, weights=load.vcpus)
    return Terms(
        contention=float(prices.contention[inside].sum()),
        smt=float(prices.smt[inside].sum()) + own,
        latency=latency,
        kind=float(prices.kind[inside].sum()),
        spread=SPREAD * float(group_load[np.unique(host.group[inside])].sum()),
    )
