"""Sets of CPUs worth considering for a guest: grown from a starting CPU, then polished.

Shapes: n CPUs of the host, m rows grown at once, k vCPUs of the guest. Costs of sets are whole
numbers, `scale` times those of single CPUs: the mean over a guest's k - 1 neighbours needs no
division. Equal costs are settled by the order that starts behind the last starting CPU, so that
starts go round: each CPU's rank in it fills the lowest bits of its cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proxmox_cpu_affinity.engine.facts import TURN_BITS, Bools, Host, Ints
from proxmox_cpu_affinity.engine.price import Prices
from proxmox_cpu_affinity.engine.trace import Terms
from proxmox_cpu_affinity.model.ids import Cpu

GROUPS_KEPT = 8  # cache groups that are looked into
SEEDS_KEPT = 2  # starting CPUs of each
NEVER = 1 << 61  # above all costs


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """One decision's figures."""

    host: Host
    prices: Prices
    vcpus: int
    may_use: Bools  # n
    rank: Ints  # n: whose turn it is; 0 comes next
    spread: Ints  # groups: price of using the group, as a set's cost has it

    @property
    def scale(self) -> int:
        """Cost of a set for a price of one."""
        return max(1, self.vcpus - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """Candidate sets, a row each, the starting CPU first, and what they cost."""

    members: Ints  # m x k, indexes as in Host
    costs: Ints  # m


def board(
    host: Host,
    prices: Prices,
    *,
    vcpus: int,
    may_use: Bools,
    last_start: Cpu | None = None,
) -> Board:
    """The figures of one decision. The turn begins behind the last starting CPU."""
    count = len(host.cpus)
    rank = np.empty(count, dtype=np.int64)
    rank[np.roll(host.sequence, -_next(host, last_start))] = np.arange(count)
    return Board(host, prices, vcpus, may_use, rank, max(1, vcpus - 1) * prices.groups)


def _next(host: Host, last_start: Cpu | None) -> int:
    """Where the turn goes on in the host's sequence; for a CPU that is gone, at its successor."""
    if last_start is None:
        return 0
    index = int(np.searchsorted(np.array(host.cpus), last_start)) % len(host.cpus)
    place = int(np.flatnonzero(host.sequence == index)[0])
    return place + 1 if host.cpus[index] == last_start else place


def grown(here: Board) -> Grown | None:
    """Candidates grown from the cheapest CPUs of the best cache groups, once inside the group
    where the guest fits, and once freely; None where there are too few CPUs."""
    if int(here.may_use.sum()) < here.vcpus:
        return None
    keys = _keys(here)
    starts: list[Ints] = []
    limits: list[Bools] = []
    group = here.host.group
    for chosen, seeds in _ranked_groups(here, keys):
        inside = here.may_use & (group == chosen)
        for allowed in (inside, here.may_use):
            if allowed is not inside or int(inside.sum()) >= here.vcpus:
                starts.append(seeds)
                limits += [allowed] * len(seeds)
    return _grow(here, keys, np.concatenate(starts), np.array(limits))


def _keys(here: Board) -> Ints:
    """Price and turn of each CPU in one number."""
    return (here.prices.cpu * here.scale << TURN_BITS) + here.rank


def _ranked_groups(here: Board, keys: Ints) -> list[tuple[int, Ints]]:
    """Cache groups by the price of their cheapest CPUs (as many as the guest has vCPUs), lower
    first, equal ones in turn; with each its cheapest CPUs to start from."""
    order = np.argsort(np.where(here.may_use, keys, NEVER), kind="stable")
    order = order[: int(here.may_use.sum())]
    above = here.prices.cpu[order]
    above -= int(above.sum()) // len(order)  # a group that is too small lacks CPUs of mean price
    of_group = here.host.group[order]
    by_group = np.argsort(of_group, kind="stable")  # groups in a row, the CPUs of each in turn
    sizes = np.bincount(of_group)
    chosen = np.flatnonzero(sizes)
    ends = sizes[chosen].cumsum()
    first = ends - sizes[chosen]
    sums = np.concatenate(([0], above[by_group].cumsum()))
    costs = sums[np.minimum(first + here.vcpus, ends)] - sums[first]
    ranked = np.lexsort((by_group[first], costs))[:GROUPS_KEPT]
    return [
        (int(chosen[i]), order[by_group[first[i] : min(first[i] + SEEDS_KEPT, ends[i])]])
        for i in ranked.tolist()
    ]


def _grow(here: Board, keys: Ints, starts: Ints, limits: Bools) -> Grown:
    """m sets at once: add the CPU that is cheapest beside those already in, k - 1 times."""
    host, own = here.host, here.prices.own * here.scale << TURN_BITS
    count, rows = len(host.cpus), np.arange(len(starts))
    cost = np.full((len(starts), count + 1), NEVER)  # one column more, for siblings there are not
    cost[:, :count] = np.where(limits, keys[None, :], NEVER)
    members = np.empty((len(starts), here.vcpus), dtype=np.int64)
    used = np.zeros((len(starts), len(here.spread)), dtype=np.bool_)
    total = np.zeros(len(starts), dtype=np.int64)
    newest = starts
    for step in range(here.vcpus):
        if step:
            newest = cost.argmin(axis=1)
        members[:, step] = newest
        total += cost[rows, newest] >> TURN_BITS
        used[rows, host.group[newest]] = True
        if step + 1 < here.vcpus:
            cost[:, :count] += host.latency[newest] << TURN_BITS
            if own.shape[1]:
                cost[rows[:, None], host.siblings[newest]] += own[newest]
            cost[rows, newest] = NEVER
    return Grown(members, total + used @ here.spread)


def cost(here: Board, members: Ints) -> int:
    """Cost of a set: `scale` times units of a vCPU's time."""
    return _cost(here, members, _pairs(here, members))


def _cost(here: Board, members: Ints, pairs: Ints) -> int:
    groups = set(here.host.group[members].tolist())
    spread = int(here.spread[list(groups)].sum())
    alone = int(here.prices.cpu[members].sum()) * here.scale
    return alone + int(pairs[:, members].sum()) // 2 + spread


def beside(here: Board, members: Ints) -> Ints:
    """What each CPU of the host costs beside these members, in a set's units."""
    costs: Ints = here.prices.cpu * here.scale + _pairs(here, members)[:, :-1].sum(axis=0)
    return costs


def _pairs(here: Board, members: Ints) -> Ints:
    """What each member and each CPU of the host cost each other inside one guest: k x (n + 1)."""
    host, own = here.host, here.prices.own
    pairs: Ints = host.padded[members]
    if own.shape[1]:
        rows = np.arange(len(members))[:, None]
        pairs[rows, host.siblings[members]] += own[members] * here.scale
    return pairs


def polished(here: Board, members: Ints, swaps: int = 4) -> tuple[Ints, int]:
    """Up to `swaps` times, the one exchange of a member for another CPU that saves most; the set
    and its cost."""
    pairs = _pairs(here, members)
    now = _cost(here, members, pairs)
    prices = here.prices.cpu * here.scale
    prices[~here.may_use] = NEVER
    for _ in range(swaps):
        joining = prices + pairs[:, :-1].sum(axis=0)
        leaving = joining[members]
        joining[members] = NEVER
        gain = joining - pairs[:, :-1]
        gain -= leaving[:, None]
        out, into = divmod(int(gain.argmin()), len(prices))
        if gain[out, into] >= 0:
            break
        trial = members.copy()
        trial[out] = into
        pairs = _pairs(here, trial)
        then = _cost(here, trial, pairs)
        if then >= now:
            break
        members, now = trial, then
    return members, now


def terms(here: Board, sets: Ints, costs: Sequence[int]) -> list[Terms]:
    """The costs of sets (a row of indexes each) taken apart. Own siblings are what is left over."""
    host, prices = here.host, here.prices
    unit, scale = host.charges.unit, here.scale
    contention = unit * prices.contention[sets].sum(axis=1)
    kind = unit * prices.kind[sets].sum(axis=1)
    pairs = host.latency[sets[:, :, None], sets[:, None, :]].sum(axis=(1, 2))
    latency = unit * (pairs / 2 / scale)
    used = np.zeros((len(sets), len(here.spread)), dtype=np.bool_)
    used[np.arange(len(sets))[:, None], host.group[sets]] = True
    spread = unit * ((used @ here.spread) / scale + prices.room[sets].sum(axis=1))
    smt = unit * (np.array(costs, dtype=np.int64) / scale) - contention - kind - latency - spread
    columns = (contention, smt, latency, kind, spread)
    return [Terms(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
