"""The tables of `lscpu -p` (comma separated) and `lscpu -e` (columns), one line a CPU.

They say which CPUs share a core, a package, a node and each cache. They say nothing of dies, of
efficiency cores, of isolated CPUs, of distances and of memory. lscpu(1), util-linux 2.28 to 2.41.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.listed import Listed
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

_CACHE = re.compile(r"L[0-9][A-Z]?")
_KNOWN = frozenset(("CPU", "CORE", "SOCKET", "NODE", "ONLINE"))
_OF_NO_USE = frozenset(
    ("CLUSTER", "BOOK", "DRAWER", "POLARIZATION", "ADDRESS", "CONFIGURED", "MODELNAME")
) | frozenset(("MHZ", "MAXMHZ", "MINMHZ", "SCALMHZ%", "BOGOMIPS"))
_ABSENT = ("", "-")
_ON = {"yes": True, "y": True, "no": False, "n": False}


@dataclass(frozen=True, slots=True)
class Table:
    """The online CPUs of a table, and all that it names."""

    cpus: tuple[Listed, ...]
    present: CpuSet


def parsable(lines: Sequence[str]) -> Table:
    """`lscpu -p`: its last comment names the columns. SyntaxFault naming the line's text."""
    heads = [line.lstrip("# ") for line in lines if line.startswith("#")]
    head = next((h for h in reversed(heads) if "CPU" in h.upper().split(",")), None)
    if head is None:
        raise SyntaxFault("lscpu -p: its comment that names the columns is missing")
    names = [name.strip() for name in head.split(",")]
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    # A CPU without the last cache, like a low-power core, has a shorter line.
    least = len(names) - sum(bool(_CACHE.fullmatch(name.upper())) for name in names)
    rows = [[*r, *[""] * (len(names) - len(r))] if len(r) >= least else r for r in rows]
    return _table("lscpu -p", names, rows)


def columns(lines: Sequence[str]) -> Table:
    """`lscpu -e`: the first line names the columns. SyntaxFault naming the line's text."""
    names = lines[0].split()
    rows = []
    for line in lines[1:]:
        cells = line.split()
        while cells and len(cells) < len(names):
            cells.append("-")  # an offline CPU's line may end early
        rows.append(cells)
    if any(":" in name for name in names):
        at = next(i for i, name in enumerate(names) if ":" in name)
        count = names[at].count(":") + 1
        names = [*names[:at], *names[at].split(":"), *names[at + 1 :]]
        rows = [[*row[:at], *_parts(row[at], count), *row[at + 1 :]] for row in rows]
    return _table("lscpu -e", names, rows)


def _parts(cell: str, count: int) -> list[str]:
    """The ids of the caches of one CPU; those of the highest levels may be missing."""
    parts = cell.split(":")
    return parts + [""] * (count - len(parts))


def _table(form: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    heads = [name.upper() for name in names]
    for name in heads:
        if name and name not in _KNOWN | _OF_NO_USE and not _CACHE.fullmatch(name):
            raise SyntaxFault(f"{form}: it has no column {name[:20]!r}")
    if "CPU" not in heads:
        raise SyntaxFault(f"{form}: the column CPU is missing")
    cpus, present = [], []
    for row in rows:
        if len(row) != len(heads):
            text = ",".join(row)[:40]
            raise SyntaxFault(f"{form}: {len(row)} cells under {len(heads)} heads: {text!r}")
        cells = dict(zip(heads, (cell.strip() for cell in row), strict=True))
        cpu = _number(form, cells, "CPU")
        assert cpu is not None
        present.append(cpu)
        if _online(form, cells):
            cpus.append(_listed(form, cpu, cells))
    if not cpus:
        raise SyntaxFault(f"{form}: it names no CPU that is online")
    _check_cores(form, cpus)
    return Table(tuple(cpus), CpuSet.of(present))


def _online(form: str, cells: Mapping[str, str]) -> bool:
    """What its column says; without one, nothing is told of a CPU that is offline."""
    word = cells.get("ONLINE", "").lower()
    if word in _ABSENT:
        others = [cell for name, cell in cells.items() if name != "CPU"]
        return not others or any(cell not in _ABSENT for cell in others)
    if word not in _ON:
        raise SyntaxFault(f"{form}: {word[:20]!r} in column ONLINE is neither yes nor no")
    return _ON[word]


def _check_cores(form: str, cpus: Sequence[Listed]) -> None:
    """SyntaxFault where the numbers of cores repeat, as `lscpu -y` prints them."""
    seen: dict[tuple[int, int], Listed] = {}
    for each in cpus:
        if each.core is None:
            continue
        first = seen.setdefault((each.package, each.core), each)
        if (first.node, first.l2, first.l3) != (each.node, each.l2, each.l3):
            raise SyntaxFault(
                f"{form}: core {each.core} has CPUs {first.cpu} and {each.cpu}, "
                "which share neither node nor caches",
                hint="its numbers repeat: run lscpu without -y",
            )


def _listed(form: str, cpu: int, cells: Mapping[str, str]) -> Listed:
    return Listed(
        cpu,
        _number(form, cells, "SOCKET") or 0,
        _number(form, cells, "CORE"),
        _number(form, cells, "NODE"),
        _number(form, cells, "L2"),
        _number(form, cells, "L3"),
    )


def _number(form: str, cells: Mapping[str, str], name: str) -> int | None:
    text = cells.get(name, "")
    if text in _ABSENT and name != "CPU":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) < CPU_LIMIT):
        raise SyntaxFault(f"{form}: {text[:20]!r} is no number in column {name}")
    return int(text)
