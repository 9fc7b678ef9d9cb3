"""`cpuinfo`: measures the latency between the CPUs of this host, here and now.

Asks no service and keeps nothing: the service's own matrix is shown by `status core-ranking`.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import Command, Session, as_json, quiet
from proxmox_cpu_affinity.cli.commands.status import RANKING, ranking_rows, summary_lines
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import MeasureError
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample
from proxmox_cpu_affinity.model.topology import Topology

if TYPE_CHECKING:  # it imports asyncio
    from proxmox_cpu_affinity.latency.probe import Progress

PAIRS = ("First", "Second", "Median (ns)", "Lowest (ns)", "Spread (ns)", "Batches", "Verdict")


@dataclass(frozen=True, slots=True)
class Measured:
    """A host's latencies, and what became of each pair."""

    topology: Topology
    matrix: LatencyMatrix
    outcomes: tuple["Progress", ...]


@click.command(
    cls=Command, examples=("cpuinfo", "cpuinfo --summary", "cpuinfo --json > ranking.json")
)
@click.option("-v", "--verbose", is_flag=True, help="Say how the batches of each pair agreed.")
@click.option("--summary", is_flag=True, help="The figures only.")
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), metavar="N", help="Measure N batches of each pair."
)
@click.option(
    "--iterations",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Round trips of a batch.  [default: 100]",
)
@as_json
@quiet
@click.pass_obj
def cpuinfo(
    session: Session,
    /,
    *,
    verbose: bool,
    summary: bool,
    rounds: int | None,
    iterations: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the latency between the CPUs of this host, one way in ns.

    Without --rounds each pair is measured until its batches agree.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each CPU
    from proxmox_cpu_affinity.service import views

    found = measured(session.tree, rounds, iterations, quiet=quiet)
    topology, matrix = found.topology, found.matrix
    figures = views.summary(topology, matrix)
    if as_json:
        answer = figures if summary else views.ranking(topology, matrix)
        ui.document(jsonvalue.plain(answer))
    else:
        if not summary:
            _show_latencies(topology, matrix)
            ui.lines("")
        ui.pairs(summary_lines(figures))
    if verbose:
        _show_pairs(found, as_json=as_json)
    if not quiet:
        for condition in matrix.conditions:
            ui.talk(condition)


def measured(tree: Tree, rounds: int | None, iterations: int | None, *, quiet: bool) -> Measured:
    """Measure every pair that this process may use. MeasureError where none could be."""
    import asyncio

    from proxmox_cpu_affinity.formats.sysfs import topology as parse_topology
    from proxmox_cpu_affinity.latency import probe
    from proxmox_cpu_affinity.latency.program import find_program
    from proxmox_cpu_affinity.latency.protocol import fixed_or_adaptive
    from proxmox_cpu_affinity.linux.tree import capture_sysfs

    topology = parse_topology(capture_sysfs(tree))
    outcomes: list[probe.Progress] = []
    with ui.progress("measuring pair", quiet=quiet) as line:

        def progress(now: probe.Progress) -> None:
            outcomes.append(now)
            line.show(now.done, now.total)

        matrix = asyncio.run(
            probe.measure_host(
                topology,
                tree=tree,
                program=find_program(),
                parameters=fixed_or_adaptive(rounds, iterations),
                on_progress=progress,
            )
        )
    if len(matrix.cpus) > 1 and matrix.share_measured() == 0:
        raise MeasureError("no pair of CPUs could be measured: " + "; ".join(matrix.conditions))
    return Measured(topology, matrix, tuple(outcomes))


def _show_latencies(topology: Topology, matrix: LatencyMatrix) -> None:
    """The matrix where a terminal has room for it, else a row for each pair."""
    from proxmox_cpu_affinity.service import views

    headers, rows = _square(matrix)
    if ui.fits(headers, rows):
        ui.table(headers, rows)
    else:
        ui.table(RANKING, ranking_rows(views.ranking(topology, matrix)))


def _square(matrix: LatencyMatrix) -> tuple[list[str], list[ui.Row]]:
    """A row and a column for each CPU, latencies in whole ns."""
    headers = ["CPU", *map(str, matrix.cpus)]
    rows: list[ui.Row] = []
    for cpu in matrix.cpus:
        cells = zip(matrix.cpus, matrix.row(cpu), strict=True)
        rows.append((cpu, *("." if other == cpu else f"{ns:.0f}" for other, ns in cells)))
    return headers, rows


def _show_pairs(found: Measured, *, as_json: bool) -> None:
    """Each pair's batches: part of the result, but talk beside JSON."""
    rows = [_pair_row(outcome) for outcome in found.outcomes]
    if as_json:
        ui.talk_table(PAIRS, rows)
    else:
        ui.heading("Pairs as measured:")
        ui.table(PAIRS, rows)


def _pair_row(progress: "Progress") -> ui.Row:
    outcome = progress.outcome
    if not isinstance(outcome, PairSample):
        return (*outcome.pair, "-", "-", "-", 0, outcome.reason)
    return (
        outcome.first,
        outcome.second,
        f"{outcome.value:.1f}",
        f"{outcome.batches[0]:.1f}",
        f"{outcome.spread:.1f}",
        len(outcome.batches),
        outcome.verdict,
    )
