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

GROUPS_KEPT = 16  # cache groups that are looked into
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
    mean = int(here.prices.cpu[order].sum()) // len(order)
    found: list[tuple[int, int, int]] = []
    members: dict[int, Ints] = {}
    of_group = here.host.group[order]
    for chosen in np.unique(of_group).tolist():
        inside = order[of_group == chosen]
        cheapest = inside[: here.vcpus]
        price = int(here.prices.cpu[cheapest].sum()) + (here.vcpus - len(cheapest)) * mean
        found.append((price, int(here.rank[inside].min()), chosen))
        members[chosen] = inside[:SEEDS_KEPT]
    return [(chosen, members[chosen]) for _, _, chosen in sorted(found)[:GROUPS_KEPT]]


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
    inside = _pairs(here, members)[:, members]
    spread = here.spread[np.unique(here.host.group[members])]
    prices = here.prices.cpu[members] * here.scale
    return int(prices.sum()) + int(inside.sum()) // 2 + int(spread.sum())


def beside(here: Board, members: Ints) -> Ints:
    """What each CPU of the host costs beside these members, in a set's units."""
    costs: Ints = here.prices.cpu * here.scale + _pairs(here, members).sum(axis=0)
    return costs


def _pairs(here: Board, members: Ints) -> Ints:
    """What each member and each CPU of the host cost each other inside one guest: k x n."""
    host, own = here.host, here.prices.own
    pairs = host.latency[members]
    if own.shape[1]:
        padded = np.concatenate((pairs, np.zeros((len(members), 1), dtype=np.int64)), axis=1)
        rows = np.arange(len(members))[:, None]
        padded[rows, host.siblings[members]] += own[members] * here.scale
        pairs = padded[:, :-1]
    return pairs


def polished(here: Board, members: Ints, swaps: int = 4) -> tuple[Ints, int]:
    """Up to `swaps` times, the one exchange of a member for another CPU that saves most; the set
    and its cost."""
    now = cost(here, members)
    prices = here.prices.cpu * here.scale
    for _ in range(swaps):
        pairs = _pairs(here, members)
        costs = prices + pairs.sum(axis=0)
        joining = np.where(here.may_use, costs, NEVER)
        joining[members] = NEVER
        gain = joining[None, :] - pairs
        gain -= costs[members][:, None]
        out, into = divmod(int(gain.argmin()), len(prices))
        if gain[out, into] >= 0:
            break
        trial = members.copy()
        trial[out] = into
        then = cost(here, trial)
        if then >= now:
            break
        members, now = trial, then
    return members, now


def terms(here: Board, members: Sequence[int]) -> Terms:
    """The cost of a set (indexes as in Host) taken apart; the sum equals `cost`."""
    host, prices = here.host, here.prices
    inside = np.array(members, dtype=np.int64)
    unit = host.charges.unit
    latency = int(host.latency[np.ix_(inside, inside)].sum()) / 2 / here.scale
    own = int(_pairs(here, inside)[:, inside].sum()) / 2 / here.scale - latency
    spread = here.spread[np.unique(host.group[inside])].sum() / here.scale
    return Terms(
        contention=unit * float(prices.contention[inside].sum()),
        smt=unit * (float(prices.smt[inside].sum()) + own),
        latency=unit * latency,
        kind=unit * float(prices.kind[inside].sum()),
        spread=unit * (float(spread) + float(prices.room[inside].sum())),
    )
