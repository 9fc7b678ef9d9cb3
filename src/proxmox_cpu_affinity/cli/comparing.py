"""Two hosts' latencies beside each other: by what the CPUs have in common, and pair by pair."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from statistics import median

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.hosts import Described
from proxmox_cpu_affinity.latency.predict import Level, steps
from proxmox_cpu_affinity.model.errors import UsageError
from proxmox_cpu_affinity.model.latency import restricted

LEVELS = ("In common", "Pairs", "A (ns)", "B (ns)", "B / A")
PAIRS = ("First", "Second", "A (ns)", "B (ns)", "B / A")
SHOWN = 10
"""Pairs that are shown: those whose ratio is farthest from the usual one."""

_WORDS = {
    Level.CORE: "core",
    Level.L2: "L2 cache",
    Level.CACHE_GROUP: "cache group",
    Level.DIE: "die",
    Level.PACKAGE: "package",
    Level.NOTHING: "nothing",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One pair on both hosts, in ns."""

    first: int
    second: int
    level: Level
    a: float
    b: float

    @property
    def ratio(self) -> float:
        if self.a:
            return self.b / self.a
        return inf if self.b else 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The pairs that both hosts have, and the CPUs that only one has."""

    rows: tuple[Row, ...]
    only_a: str
    only_b: str

    @property
    def ratio(self) -> float:
        """The usual ratio: the median of the pairs'."""
        return median(row.ratio for row in self.rows)

    def odd(self) -> list[Row]:
        """The pairs, those farthest from the usual ratio first; then by CPU."""
        usual = self.ratio if isfinite(self.ratio) and self.ratio else 1.0

        def key(row: Row) -> tuple[float, int, int]:
            relative = row.ratio / usual
            return -max(relative, 1 / relative if relative else 0.0), row.first, row.second

        return sorted(self.rows, key=key)


def compared(a: Described, b: Described) -> Comparison:
    """Both hosts' latencies; levels are those of the first. UsageError without a pair in common."""
    online = a.topology.online & b.topology.online
    left, right = restricted(a.matrix, online), restricted(b.matrix, online)
    count = len(left.cpus)
    if count < 2:
        raise UsageError(
            "the two have no pair of CPUs in common",
            hint="compare two measurements of one host, or of two alike",
        )
    places = [a.topology.place(cpu) for cpu in left.cpus]
    rows = tuple(
        Row(left.cpus[i], left.cpus[j], step[0], left.ns[i * count + j], right.ns[i * count + j])
        for i, j, step in steps(a.topology, places)
    )
    return Comparison(rows, str(a.topology.online - online), str(b.topology.online - online))


def show(comparison: Comparison) -> None:
    """Both tables, and what one of them lacks."""
    ui.table(LEVELS, _level_rows(comparison))
    ui.heading("Pairs farthest from the usual ratio:")
    ui.table(PAIRS, [(r.first, r.second, *_values(r)) for r in comparison.odd()[:SHOWN]])
    for name, cpus in (("A", comparison.only_a), ("B", comparison.only_b)):
        if cpus:
            ui.talk(f"only {name} has CPUs {cpus}: left out")


def document(comparison: Comparison) -> object:
    """All pairs, as JSON has it."""
    return {
        "ratio": round(comparison.ratio, 4) if isfinite(comparison.ratio) else None,
        "only_a": comparison.only_a,
        "only_b": comparison.only_b,
        "pairs": [
            {
                "first": row.first,
                "second": row.second,
                "in_common": _WORDS[row.level],
                "a_ns": round(row.a, 3),
                "b_ns": round(row.b, 3),
            }
            for row in comparison.rows
        ],
    }


def _level_rows(comparison: Comparison) -> Iterator[ui.Row]:
    for level in Level:
        rows = [row for row in comparison.rows if row.level is level]
        if rows:
            yield _WORDS[level], len(rows), *_values(_middle(rows))
    yield "all pairs", len(comparison.rows), *_values(_middle(comparison.rows))


def _middle(rows: Sequence[Row]) -> Row:
    """The medians of both hosts, as a pair of no CPUs."""
    return Row(-1, -1, Level.NOTHING, median(r.a for r in rows), median(r.b for r in rows))


def _values(row: Row) -> tuple[str, str, str]:
    return f"{row.a:.2f}", f"{row.b:.2f}", f"{row.ratio:.2f}"
