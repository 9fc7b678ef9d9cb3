"""Where the cells of a square over all CPUs lie: their order, gaps, labels and named stretches.

Px are counted from the square's corner, alike on both axes. What is drawn there is not said here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.topology import CpuPlace, Topology

ROOMY = 32
"""Up to so many CPUs a cell has room for a number."""

_COLUMN = 640
"""px of a page's column."""

CHAR_WIDTH = 0.62
"""The width of a digit in font sizes; fonts differ, so a little wide."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the axis: a NUMA node, or a package that has no node of its own."""

    start: int
    end: int
    names: tuple[str, ...]  # the longest first


@dataclass(frozen=True, slots=True)
class Grid:
    """The CPUs in the order in which they are drawn, and where each begins."""

    cpus: tuple[Cpu, ...]
    rows: tuple[int, ...]  # each one's row in the matrix
    breaks: tuple[int, ...]  # what ends before each: 0 nothing, 1 cache group, 2 node, 3 package
    at: tuple[int, ...]
    cell: int

    @staticmethod
    def over(topology: Topology, cpus: Sequence[Cpu]) -> "Grid":
        """Sorted by package, node, cache group, core, number; CPUs that are offline come last."""
        places = {place.cpu: place for place in topology.places}
        ordered = sorted(cpus, key=lambda cpu: _key(places.get(cpu), cpu))
        grouped = len(topology.cache_groups) < len(topology.cores)
        breaks = [0] * len(ordered)
        for i, (before, cpu) in enumerate(pairwise(ordered), 1):
            level = _break(_key(places.get(before), before), _key(places.get(cpu), cpu))
            breaks[i] = level if level > 1 or grouped else 0
        cell = _cell(len(ordered))
        gaps = (0, 3, 7, 11) if cell >= 14 else (0, 1, 3, 6)
        at, here = [], 0
        for level in breaks:
            at.append(here + gaps[level])
            here = at[-1] + cell
        row_of = {cpu: row for row, cpu in enumerate(cpus)}
        rows = tuple(row_of[cpu] for cpu in ordered)
        return Grid(tuple(ordered), rows, tuple(breaks), tuple(at), cell)

    @property
    def size(self) -> int:
        return self.at[-1] + self.cell if self.at else 0

    @property
    def zoom(self) -> float:
        """How much larger texts are than in a picture that is seen as it is: one that is wider
        than a column of a page is made smaller there, and its texts with it."""
        return round(min(2.0, max(1.0, self.size / _COLUMN)), 2)

    @property
    def font(self) -> int:
        return 12 if self.cell >= 20 else int(10 * self.zoom)

    @property
    def label_width(self) -> int:
        longest = max((len(str(cpu)) for cpu in self.cpus), default=1)
        return int(longest * self.font * CHAR_WIDTH) + 1

    def labelled(self) -> Iterator[int]:
        """Indexes of the CPUs that get a label: evenly apart in each group, never too close."""
        pitch = max(self.label_width + 5, self.font + 3)
        step = 1
        while step * self.cell < pitch:
            step *= 2
        start, last = 0, -pitch
        for i, level in enumerate(self.breaks):
            start = i if level else start
            if (i - start) % step == 0 and self.at[i] - last >= pitch:
                last = self.at[i]
                yield i

    def stretches(self, cpus: CpuSet) -> Iterator[tuple[int, int]]:
        """(start, length) in px of these CPUs, neighbours joined where no gap is between them."""
        for i, cpu in enumerate(self.cpus):
            if cpu in cpus and (i == 0 or self.breaks[i] or self.cpus[i - 1] not in cpus):
                end = i + 1
                while end < len(self.cpus) and self.cpus[end] in cpus and not self.breaks[end]:
                    end += 1
                yield self.at[i], self.at[end - 1] + self.cell - self.at[i]

    def runs(self, numbers: Sequence[Sequence[int]]) -> dict[int, str]:
        """Each number's cells above the diagonal as SVG path strokes, neighbours in a row joined.

        `numbers` holds the cells row by row in the grid's order. O(cells).
        """
        paths: dict[int, list[str]] = {}
        count = len(self.cpus)
        for i, row in enumerate(numbers):
            j = i + 1
            while j < count:
                end = j + 1
                while end < count and row[end] == row[j] and not self.breaks[end]:
                    end += 1
                length = self.at[end - 1] + self.cell - self.at[j]
                paths.setdefault(row[j], []).append(f"M{self.at[j]} {self.at[i]}h{length}")
                j = end
        return {number: "".join(parts) for number, parts in paths.items()}

    def blocks(self, topology: Topology) -> list[Block]:
        """The nodes and packages along the axis; none where there is only one."""
        starts = [i for i, level in enumerate(self.breaks) if i == 0 or level > 1]
        if len(starts) < 2:
            return []
        places = {place.cpu: place for place in topology.places}
        return [
            Block(
                self.at[start],
                self.at[end - 1] + self.cell,
                _names(places.get(self.cpus[start]), packages=len(topology.packages)),
            )
            for start, end in pairwise([*starts, len(self.cpus)])
        ]


def _key(place: CpuPlace | None, cpu: Cpu) -> tuple[int, ...]:
    if place is None:
        return (1, 0, 0, 0, 0, cpu)
    return (0, place.package, place.node, place.llc, place.core, cpu)


def _break(before: tuple[int, ...], here: tuple[int, ...]) -> int:
    for level, depth in ((3, 2), (2, 3), (1, 4)):
        if before[:depth] != here[:depth]:
            return level
    return 0


def _cell(count: int) -> int:
    if count <= ROOMY:
        return max(28, min(56, 720 // max(count, 1)))
    return max(2, 900 // count)


def _names(place: CpuPlace | None, *, packages: int) -> tuple[str, ...]:
    if place is None:
        return ("offline",)
    node = f"node {place.node}"
    if packages > 1:
        return (f"package {place.package_id}, {node}", f"P{place.package_id} {node}", node)
    return (node, str(place.node))
