"""PURE: which pairs of CPUs are measured in which round, so that a cut run says most.

A round's pairs are measured at the same time. They have no CPU and no core in common, so that no
SMT sibling of a CPU works while it is measured. Out of scope: when a round runs (probe.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.topology import Topology

Pair = tuple[Cpu, Cpu]
"""Two CPUs, the lower number first: latency is the same both ways."""

MATCHINGS = 8
"""Rounds of all cores in the coarse picture: more of them gain nothing (nine real matrices)."""


class Stage(IntEnum):
    """The parts of the picture, the coarsest first."""

    SIBLINGS = 0  # one pair within each core
    NEIGHBOURS = 1  # a ring of the cores of each cache group
    ACROSS = 2  # each cache group with each other, by cores in turn
    MATCHINGS = 3  # each core with a few others, near and far
    CORES = 4  # the other pairs of cores
    REST = 5  # pairs that differ from a former one in the SMT sibling only


COARSE = Stage.MATCHINGS
"""Up to this stage each block of the matrix has been seen, and the rest can be filled."""


@dataclass(frozen=True, slots=True)
class Round:
    """Pairs that are measured at the same time."""

    stage: Stage
    pairs: tuple[Pair, ...]


def cores_at_once(topology: Topology, share: float) -> int:
    """Cores that may be busy measuring: a share of all, but at least one pair's two."""
    return max(2, int(len(topology.cores) * share))


def rounds(
    cpus: CpuSet, topology: Topology, *, cores: int, touching: CpuSet | None = None
) -> tuple[Round, ...]:
    """Rounds that hold every unordered pair of these CPUs exactly once. O(n²).

    At most `cores` cores are busy in a round, but at least one pair. `touching`: only pairs with
    at least one of these CPUs. KeyError for a CPU that is not online.
    """
    seen: set[Pair] = set()
    found = []
    for stage, matching in _matchings(_cores(cpus, topology), topology):
        fresh = []
        for first, second in matching:
            pair = (first, second) if first < second else (second, first)
            if pair not in seen and (touching is None or _touches(pair, touching)):
                seen.add(pair)
                fresh.append(pair)
        busy = 1 if stage is Stage.SIBLINGS else 2  # cores of a pair
        found += [Round(stage, part) for part in split(fresh, max(1, cores // busy))]
    return tuple(found)


def split(pairs: Sequence[Pair], most: int) -> Iterator[tuple[Pair, ...]]:
    """The pairs in parts of at most `most`, of about the same size."""
    parts = -(-len(pairs) // most)
    for part in range(parts):
        yield tuple(pairs[part::parts])


def _touches(pair: Pair, cpus: CpuSet) -> bool:
    return pair[0] in cpus or pair[1] in cpus


_Core = tuple[Cpu, ...]


def _cores(cpus: CpuSet, topology: Topology) -> list[_Core]:
    """The CPUs by core; those of a cache group stand together."""
    groups: dict[tuple[int, int], list[Cpu]] = {}
    for cpu in cpus:
        place = topology.place(cpu)
        groups.setdefault((place.llc, place.core), []).append(cpu)
    return [tuple(groups[key]) for key in sorted(groups)]


def _matchings(cores: list[_Core], topology: Topology) -> Iterator[tuple[Stage, list[Pair]]]:
    """Pairs without a core in common, stage by stage; a pair may come again in a later stage."""
    heads = [(core[0],) for core in cores]
    groups = _by_cache_group(cores, topology)
    yield Stage.SIBLINGS, [(core[0], core[1]) for core in cores if len(core) > 1]
    yield from ((Stage.NEIGHBOURS, pairs) for pairs in _ring(groups))
    yield from ((Stage.ACROSS, pairs) for pairs in _across(groups))
    turns = list(tournament(len(cores)))
    step = max(1, len(turns) // MATCHINGS)
    first = turns[::step][:MATCHINGS]
    yield from ((Stage.MATCHINGS, _paired(heads, turn, 0)) for turn in first)
    yield from ((Stage.CORES, _paired(heads, turn, 0)) for turn in turns)
    widest = max(map(len, cores), default=0)
    yield from ((Stage.REST, pairs) for pairs in _within(cores))
    for shift in range(widest * widest):
        yield from ((Stage.REST, _paired(cores, turn, shift)) for turn in turns)


def tournament(players: int) -> Iterator[list[tuple[int, int]]]:
    """Rounds in which each meets each other once, nobody twice in a round (the circle method).

    players - 1 rounds for an even number of players, else `players`, one of them idle in each.
    """
    count = players + players % 2
    for turn in range(count - 1):
        circle = [0, *(1 + (turn + i) % (count - 1) for i in range(count - 1))]
        both = zip(circle[: count // 2], reversed(circle[count // 2 :]), strict=True)
        yield [(a, b) for a, b in both if a < players and b < players]


def _paired(cores: Sequence[_Core], turn: Iterable[tuple[int, int]], shift: int) -> list[Pair]:
    """For each two cores that meet the shift-th pair of one CPU of each, where there is one."""
    pairs = []
    for a, b in turn:
        first, second = cores[a], cores[b]
        if shift < len(first) * len(second):
            pairs.append((first[shift % len(first)], second[shift // len(first)]))
    return pairs


def _within(cores: Iterable[_Core]) -> Iterator[list[Pair]]:
    """The pairs within each core, one of each core at a time."""
    every = [[(a, b) for i, a in enumerate(core) for b in core[i + 1 :]] for core in cores]
    for turn in range(max(map(len, every), default=0)):
        yield [pairs[turn] for pairs in every if turn < len(pairs)]


def _by_cache_group(cores: Iterable[_Core], topology: Topology) -> list[list[Cpu]]:
    """The first CPU of each core, by cache group."""
    groups: dict[int, list[Cpu]] = {}
    for core in cores:
        groups.setdefault(topology.place(core[0]).llc, []).append(core[0])
    return list(groups.values())


def _ring(groups: Iterable[Sequence[Cpu]]) -> Iterator[list[Pair]]:
    """Each core with the next one of its cache group, the last with the first: three matchings."""
    turns: list[list[Pair]] = [[], [], []]
    for group in groups:
        count = len(group)
        for i in range(count if count > 2 else count - 1):
            closing = 2 if count % 2 and i == count - 1 else i % 2
            turns[closing].append((group[i], group[(i + 1) % count]))
    yield from turns


def _across(groups: Sequence[Sequence[Cpu]]) -> Iterator[list[Pair]]:
    """Each cache group with each other once, each time by the next of its cores."""
    for number, turn in enumerate(tournament(len(groups))):
        yield [
            (groups[a][number % len(groups[a])], groups[b][number % len(groups[b])])
            for a, b in turn
        ]
