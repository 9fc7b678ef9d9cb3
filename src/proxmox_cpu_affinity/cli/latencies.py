"""How latencies are shown: as a square with spreads, a row a pair, figures with their pairs, JSON.

Out of scope: where they come from (commands.cpuinfo), comparing two hosts' (comparing).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median_low

from proxmox_cpu_affinity.cli import ranking, ui
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample
from proxmox_cpu_affinity.model.topology import Topology

PAIRS = (*ranking.COLUMNS, "± (ns)")

Pair = tuple[Cpu, Cpu]


def show(topology: Topology, matrix: LatencyMatrix) -> None:
    """The matrix where a terminal has room for it, with spreads if it can, else a row a pair."""
    for cell in (with_spread(matrix), without_spread(matrix)):
        headers, rows = square(matrix, cell)
        if ui.fits(headers, rows):
            ui.table(headers, rows)
            return
    ui.table(PAIRS, _pair_rows(topology, matrix))


def square(
    matrix: LatencyMatrix, cell: Callable[[int, int], str]
) -> tuple[list[str], list[ui.Row]]:
    """A row and a column for each CPU."""
    count = range(len(matrix.cpus))
    rows: list[ui.Row] = [
        (cpu, *("." if i == j else cell(i, j) for j in count)) for i, cpu in enumerate(matrix.cpus)
    ]
    return ["CPU", *map(str, matrix.cpus)], rows


def with_spread(matrix: LatencyMatrix) -> Callable[[int, int], str]:
    """Cells in whole ns with their spread; what was not measured has a question mark."""

    def cell(i: int, j: int) -> str:
        at = i * len(matrix.cpus) + j
        spread = f"±{matrix.spread[at]:.0f}" if matrix.spread[at] else ""
        return f"{matrix.ns[at]:.0f}{spread if matrix.measured[at] else '?'}"

    return cell


def without_spread(matrix: LatencyMatrix) -> Callable[[int, int], str]:
    return lambda i, j: f"{matrix.ns[i * len(matrix.cpus) + j]:.0f}"


def _pair_rows(topology: Topology, matrix: LatencyMatrix) -> Iterator[ui.Row]:
    for cpu in matrix.cpus:
        for other, ns in matrix.ranking(cpu):
            place = topology.place(other)
            spread = _spread(matrix, cpu, other)
            text = f"{spread:.2f}" if spread else "-" if _known(matrix, cpu, other) else "?"
            yield cpu, other, place.package_id, place.core_id, f"{ns:.2f}", text


def figures(topology: Topology, matrix: LatencyMatrix) -> list[tuple[str, object]]:
    """The inherited figures; those that are of one pair name it, with its spread."""
    from proxmox_cpu_affinity.service import views

    lines = ranking.figures(views.summary(topology, matrix))
    named = {
        name: f"  (CPUs {pair[0]} and {pair[1]}{_give_or_take(matrix, pair)})"
        for name, pair in zip(("Min", "Max", "Median"), _landmarks(matrix), strict=False)
    }
    return [(name, f"{value}{named.get(name.partition(' ')[0], '')}") for name, value in lines]


def ranking_document(topology: Topology, matrix: LatencyMatrix) -> object:
    """The inherited ranking; each neighbour with its spread and whether it was measured."""
    from proxmox_cpu_affinity.service import views

    return [
        {
            "cpu": entry.cpu,
            "ranking": [
                {
                    **_object(jsonvalue.plain(other)),
                    "spread_ns": round(_spread(matrix, entry.cpu, other.cpu), 2),
                    "measured": _known(matrix, entry.cpu, other.cpu),
                }
                for other in entry.ranking
            ],
        }
        for entry in views.ranking(topology, matrix)
    ]


def summary_document(topology: Topology, matrix: LatencyMatrix) -> object:
    """The inherited figures, the pairs they are of, and what is to be known of the run."""
    from proxmox_cpu_affinity.service import views

    marks = zip(("min_pair", "max_pair", "median_pair"), _landmarks(matrix), strict=False)
    return {
        **_object(jsonvalue.plain(views.summary(topology, matrix))),
        **{name: list(pair) for name, pair in marks},
        "method": str(matrix.method),
        "measured_share": round(matrix.share_measured(), 4),
        "conditions": list(matrix.conditions),
    }


def growing(cpus: Sequence[Cpu], found: Mapping[Pair, PairSample | None]) -> list[str]:
    """The lines of the lower triangle as far as it was measured; None: it could not be."""
    width = max(4, *(len(str(cpu)) for cpu in cpus))
    lines = ["".join(f"{name:>{width}}" for name in ("", *cpus))]
    for cpu in cpus:
        cells = [f"{cpu:>{width}}"]
        for other in cpus[: cpus.index(cpu)]:
            pair = (other, cpu)
            sample = found.get(pair)
            text = ("-" if pair in found else "") if sample is None else f"{sample.value:.0f}"
            cells.append(f"{text:>{width}}")
        lines.append("".join(cells))
    return lines


def _landmarks(matrix: LatencyMatrix) -> list[Pair]:
    """The pairs of the lowest, the highest and the median latency; empty for a single CPU."""
    count = len(matrix.cpus)
    cells = {
        (matrix.cpus[i], matrix.cpus[j]): matrix.ns[i * count + j]
        for i in range(count)
        for j in range(i + 1, count)
    }
    if not cells:
        return []
    middle = median_low(cells.values())
    return [
        min(cells, key=lambda pair: cells[pair]),
        max(cells, key=lambda pair: cells[pair]),
        next(pair for pair, ns in cells.items() if ns == middle),
    ]


def _give_or_take(matrix: LatencyMatrix, pair: Pair) -> str:
    if not _known(matrix, *pair):
        return ", predicted"
    spread = _spread(matrix, *pair)
    return f", ±{spread:.2f}" if spread else ""


def _spread(matrix: LatencyMatrix, first: int, second: int) -> float:
    return matrix.spread[matrix.cell(first, second)]


def _known(matrix: LatencyMatrix, first: int, second: int) -> bool:
    return bool(matrix.measured[matrix.cell(first, second)])


def _object(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
