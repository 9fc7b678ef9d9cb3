"""Latency matrices as CSV, the form that core-to-core-latency prints: no header, a row a CPU.

Its rows hold what is below the diagonal; the other cells are empty. Reading takes any of the two
triangles or both (then their mean). Out of scope: which CPUs the rows are; they are counted from 0.
"""

import math

from proxmox_cpu_affinity.formats.snapshot import Latencies
from proxmox_cpu_affinity.model.cpuset import CPUS_MOST
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.latency import LatencyMatrix

_EMPTY = ("", "nan")


def parse(text: str, *, where: str = "") -> Latencies:
    """The full, symmetrical matrix in ns. SyntaxFault, located by `where`, for anything else."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    count = len(lines)
    if count > CPUS_MOST:
        raise SyntaxFault(f"{count} rows: more than {CPUS_MOST} CPUs", where=where)
    rows = [_row(line, number, count, where) for number, line in enumerate(lines)]
    if count < 2:
        raise SyntaxFault("a matrix has two rows at least", where=where)
    return tuple(
        tuple(0.0 if i == j else _cell(rows, i, j, where) for j in range(count))
        for i in range(count)
    )


def to_text(matrix: LatencyMatrix) -> str:
    """The lower triangle, in ns to the thousandth; rows and columns in the order of its CPUs."""
    count = len(matrix.cpus)
    lines = []
    for i in range(count):
        cells = [f"{matrix.ns[i * count + j]:.3f}" if j < i else "" for j in range(count)]
        lines.append(",".join(cells) + "\n")
    return "".join(lines)


def _row(line: str, number: int, count: int, where: str) -> list[float | None]:
    """The cells of a row, as many as there are rows; cells that are missing are empty."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) > count:
        raise SyntaxFault(f"row {number + 1}: {len(cells)} cells in {count} rows", where=where)
    return [_value(cell, number, where) for cell in cells] + [None] * (count - len(cells))


def _value(cell: str, number: int, where: str) -> float | None:
    if cell.lower() in _EMPTY:
        return None
    try:
        ns = float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        ns = math.nan
    if not (math.isfinite(ns) and ns >= 0):
        raise SyntaxFault(f"row {number + 1}: {cell[:20]!r} is no latency", where=where)
    return ns


def _cell(rows: list[list[float | None]], i: int, j: int, where: str) -> float:
    known = [ns for ns in (rows[i][j], rows[j][i]) if ns is not None]
    if not known:
        raise SyntaxFault(f"no latency between CPUs {min(i, j)} and {max(i, j)}", where=where)
    return sum(known) / len(known)
