"""The latency matrix: what a cache line's way from each CPU to each other takes, in ns, one way."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, NodeId


class Method(StrEnum):
    """How a pair is measured. Values of different methods are never compared with each other."""

    CAS = "cas"  # compare-exchange on one shared line
    RW = "rw"  # one writer and one reader, two lines
    MSG = "msg"  # one-way messages, time stamps of the time stamp counter


class Verdict(StrEnum):
    """How far a value, or a whole matrix, can be trusted."""

    TRUSTED = "trusted"
    UNSTABLE = "unstable"
    PREDICTED = "predicted"


ONLY_PREDICTED = "predicted from the topology, nothing measured"
"""The condition of a matrix that is nothing but a prediction: it says what the verdict says."""


@dataclass(frozen=True, slots=True)
class PairSample:
    """What measuring one unordered pair gave: batches' values in ns one way, lowest first."""

    first: Cpu
    second: Cpu
    batches: tuple[float, ...]
    verdict: Verdict
    node: NodeId | None = None  # NUMA node of the lines; None: not known, or several

    @property
    def pair(self) -> tuple[Cpu, Cpu]:
        return self.first, self.second

    @property
    def value(self) -> float:
        """The median of the batches, in ns one way."""
        return median(self.batches)

    @property
    def spread(self) -> float:
        """Distance of the upper from the lower quartile, in ns; 0 for fewer than three batches."""
        count = len(self.batches)
        if count < 3:
            return 0.0
        ordered = sorted(self.batches)
        return ordered[(3 * (count - 1)) // 4] - ordered[(count - 1) // 4]


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a matrix over its unordered pairs, in ns one way; all 0 for a single CPU."""

    cpus: int
    low: float
    high: float
    median: float
    mean: float


@dataclass(frozen=True, slots=True, eq=False)
class LatencyMatrix:
    """A symmetrical matrix over `cpus`, row by row in `ns`; the diagonal is 0.

    `measured` has one byte a cell: 1 where the value was measured, 0 where it is predicted.
    `spread` is the pair's spread in ns, 0 where predicted. The arrays belong to the matrix: they
    are never written again after it was made.
    """

    cpus: tuple[Cpu, ...]
    ns: "array[float]"
    spread: "array[float]"
    measured: bytes
    verdict: Verdict
    method: Method = Method.CAS
    conditions: tuple[str, ...] = ()  # plain words: what was odd, or said of the run

    def __post_init__(self) -> None:
        cells = len(self.cpus) ** 2
        if not len(self.ns) == len(self.spread) == len(self.measured) == cells:
            raise ValueError(f"a matrix of {len(self.cpus)} CPUs needs {cells} cells")

    def between(self, first: int, second: int) -> float:
        """Latency of one pair in ns; KeyError for a CPU that the matrix does not have."""
        return self.ns[self.cell(first, second)]

    def cell(self, first: int, second: int) -> int:
        """Where a pair stands in `ns`, `spread` and `measured`; KeyError as of `between`."""
        return self._row(first) * len(self.cpus) + self._row(second)

    def row(self, cpu: int) -> "array[float]":
        """Latencies from one CPU, in the order of `cpus`."""
        start = self._row(cpu) * len(self.cpus)
        return self.ns[start : start + len(self.cpus)]

    def ranking(self, cpu: int) -> tuple[tuple[Cpu, float], ...]:
        """The other CPUs, nearest first; keys: latency (lower first), CPU number. O(n log n)."""
        pairs = ((other, ns) for other, ns in zip(self.cpus, self.row(cpu), strict=True))
        return tuple(sorted((pair for pair in pairs if pair[0] != cpu), key=lambda p: (p[1], p[0])))

    def summary(self) -> Summary:
        """The figures of all pairs, measured or not. O(CPUs squared)."""
        count = len(self.cpus)
        upper = [self.ns[i * count + j] for i in range(count) for j in range(i + 1, count)]
        if not upper:
            return Summary(count, 0.0, 0.0, 0.0, 0.0)
        return Summary(count, min(upper), max(upper), median(upper), fmean(upper))

    def share_measured(self) -> float:
        """Share of the unordered pairs that were measured, 0 to 1; 1 for a single CPU."""
        count = len(self.cpus)
        pairs = count * (count - 1)
        return sum(self.measured) / pairs if pairs else 1.0

    def _row(self, cpu: int) -> int:
        if cpu < len(self.cpus) and self.cpus[cpu] == cpu:
            return cpu
        try:
            return self.cpus.index(Cpu(cpu))
        except ValueError:
            raise KeyError(cpu) from None


def with_samples(
    base: LatencyMatrix,
    samples: Iterable[PairSample],
    *,
    verdict: Verdict,
) -> LatencyMatrix:
    """The matrix with measured pairs put in place of what it held. KeyError for CPUs it lacks."""
    count = len(base.cpus)
    index = {cpu: i for i, cpu in enumerate(base.cpus)}
    ns, spread, measured = array("d", base.ns), array("d", base.spread), bytearray(base.measured)
    for sample in samples:
        i, j = index[sample.first], index[sample.second]
        for cell in (i * count + j, j * count + i):
            ns[cell], spread[cell], measured[cell] = sample.value, sample.spread, 1
    return LatencyMatrix(
        base.cpus, ns, spread, bytes(measured), verdict, base.method, base.conditions
    )


def restricted(matrix: LatencyMatrix, cpus: CpuSet) -> LatencyMatrix:
    """The part of a matrix that speaks of these CPUs only; itself where that is all."""
    kept = [i for i, cpu in enumerate(matrix.cpus) if cpu in cpus]
    count = len(matrix.cpus)
    if len(kept) == count:
        return matrix
    cells = [i * count + j for i in kept for j in kept]
    return LatencyMatrix(
        tuple(matrix.cpus[i] for i in kept),
        array("d", (matrix.ns[c] for c in cells)),
        array("d", (matrix.spread[c] for c in cells)),
        bytes(matrix.measured[c] for c in cells),
        matrix.verdict,
        matrix.method,
        matrix.conditions,
    )
