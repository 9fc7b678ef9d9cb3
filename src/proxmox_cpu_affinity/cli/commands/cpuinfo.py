"""`cpuinfo`: the latency between CPUs, measured here and now, or from a file; or two beside each
other.

Asks no service and keeps nothing: the service's own matrix is shown by `status core-ranking`.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import (
    CPULIST_HINT,
    Command,
    Session,
    as_json,
    complete_file,
    not_written,
    quiet,
)
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, UsageError
from proxmox_cpu_affinity.model.latency import Method, PairSample

if TYPE_CHECKING:  # they import asyncio, and much else
    from proxmox_cpu_affinity.cli.measuring import Measured
    from proxmox_cpu_affinity.latency.probe import Progress

PAIRS = ("First", "Second", "Median (ns)", "Lowest (ns)", "Spread (ns)", "Batches", "Verdict")
_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options."""

    verbose: bool
    summary: bool
    rounds: int | None
    iterations: int | None
    method: str
    home: str
    cpus: str | None
    csv: bool
    svg: Path | None
    hwloc: Path | None
    from_file: str | None
    compare: tuple[str, str] | None
    as_json: bool
    quiet: bool


@click.command(
    cls=Command,
    examples=(
        "cpuinfo",
        "cpuinfo --method cas,rw,msg --cpus 0-3",
        "cpuinfo --csv > latencies.csv",
        "cpuinfo --from latencies.csv --svg latencies.svg",
        "cpuinfo --compare before.csv after.csv",
        "cpuinfo --json > ranking.json",
    ),
)
@click.option("-v", "--verbose", is_flag=True, help="Say how the batches of each pair agreed.")
@click.option("--summary", is_flag=True, help="The figures only.")
@click.option(
    "--rounds",
    "--samples",
    "rounds",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Measure N batches of each pair.",
)
@click.option(
    "--iterations",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Round trips of a batch.  [default: 100]",
)
@click.option(
    "--method",
    default="cas",
    metavar="WORDS",
    help="cas: compare-exchange on one line; rw: a writer and a reader on two lines; msg: one-way "
    "messages; or several.  [default: cas]",
)
@click.option(
    "--home",
    type=click.Choice(["first", "second"]),
    default="first",
    help="The CPU of each pair on whose NUMA node the lines are.",
)
@click.option("--cpus", metavar="LIST", help="Measure these CPUs only, such as 0-3,8.")
@click.option("--csv", is_flag=True, help="Print what core-to-core-latency does: a triangle.")
@click.option("--svg", type=_FILE, metavar="FILE", help="Draw the matrix into this file.")
@click.option("--hwloc", type=_FILE, metavar="FILE", help="Write it for lstopo: hwloc's XML.")
@click.option(
    "--from",
    "from_file",
    metavar="FILE",
    shell_complete=complete_file,
    help="Show a saved one: JSON, CSV, hwloc's XML, or a host's snapshot.",
)
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    shell_complete=complete_file,
    help="Compare two saved ones.",
)
@as_json
@quiet
@click.pass_obj
def cpuinfo(session: Session, /, **options: object) -> None:
    """Measure the latency between the CPUs of this host, one way in ns.

    Without --rounds each pair is measured until its batches agree. Values of different methods
    are never compared with each other.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each CPU
    wishes = Wishes(**options)  # type: ignore[arg-type]
    _check(wishes)
    if wishes.compare:
        _compare(wishes.compare, as_json=wishes.as_json)
        return
    found = _of_file(wishes.from_file) if wishes.from_file else _measured(session, wishes)
    if wishes.as_json:
        _show_json(found, wishes)
    elif wishes.csv:
        _show_csv(found[0])
    else:
        _show_text(found, wishes)
    _write_files(found[0], wishes)
    if not wishes.quiet and not wishes.from_file:
        _talk_of(found)


def _check(wishes: Wishes) -> None:
    """Options that leave each other no meaning. UsageError."""
    methods = wishes.method.split(",")
    unknown = [word for word in methods if word not in list(Method)]
    if unknown:
        raise UsageError(
            f"--method: {unknown[0][:20]!r} is no method", hint=f"there are {', '.join(Method)}"
        )
    if len(set(methods)) < len(methods):
        raise UsageError("--method names a method twice", hint="name each once")
    if wishes.csv and (wishes.as_json or wishes.summary or wishes.verbose):
        raise UsageError(
            "--csv prints the matrix alone", hint="leave --json, --summary and --verbose out"
        )
    if len(methods) > 1 and (wishes.csv or wishes.svg or wishes.hwloc):
        raise UsageError("--csv, --svg and --hwloc are of one method", hint="give --method one")
    _check_saved(wishes, usual=methods == ["cas"] and wishes.home == "first")


def _check_saved(wishes: Wishes, *, usual: bool) -> None:
    """What has no meaning where nothing is measured, or two are compared. UsageError."""
    saved = {"--from": wishes.from_file, "--compare": wishes.compare}
    named = " and ".join(name for name, value in saved.items() if value)
    here = wishes.rounds or wishes.iterations or wishes.cpus or wishes.verbose or not usual
    if all(saved.values()) or (named and here):
        raise UsageError(
            f"{named}: nothing is measured, so no other choice has a meaning",
            hint="leave the other options out",
        )
    if wishes.compare and (wishes.csv or wishes.svg or wishes.hwloc or wishes.summary):
        raise UsageError(
            "--compare shows two beside each other, --csv, --svg, --hwloc and --summary are of one",
            hint="show one with --from",
        )


def _measured(session: Session, wishes: Wishes) -> "list[Measured]":
    from proxmox_cpu_affinity.cli.measuring import measured
    from proxmox_cpu_affinity.latency.probe import SHARE
    from proxmox_cpu_affinity.latency.protocol import Home, fixed_or_adaptive

    try:
        cpus = None if wishes.cpus is None else CpuSet.parse(wishes.cpus)
    except SyntaxFault as fault:
        raise UsageError(f"--cpus {wishes.cpus}: {fault.text}", hint=CPULIST_HINT) from None
    return [
        measured(
            session.tree,
            replace(
                fixed_or_adaptive(wishes.rounds, wishes.iterations, Method(word)),
                home=Home(wishes.home),
            ),
            cpus=cpus,
            share=SHARE,
            quiet=wishes.quiet,
        )
        for word in wishes.method.split(",")
    ]


def _of_file(name: str) -> "list[Measured]":
    from proxmox_cpu_affinity.cli.hosts import saved_host
    from proxmox_cpu_affinity.cli.measuring import Measured

    host = saved_host(name, option="--from")
    if host.matrix.share_measured() == 0 and len(host.matrix.cpus) > 1:
        ui.warn(f"{name} holds no latencies: predicted from its topology")
    return [Measured(host.topology, host.matrix)]


def _compare(names: tuple[str, str], *, as_json: bool) -> None:
    from proxmox_cpu_affinity.cli import comparing
    from proxmox_cpu_affinity.cli.hosts import saved_host

    a, b = (saved_host(name, option="--compare") for name in names)
    comparison = comparing.compared(a, b)
    if as_json:
        ui.document(comparing.document(comparison))
    else:
        comparing.show(comparison)


def _show_json(found: "list[Measured]", wishes: Wishes) -> None:
    """The inherited document; of several methods an object of them."""
    from proxmox_cpu_affinity.cli import latencies

    made = latencies.summary_document if wishes.summary else latencies.ranking_document
    documents = {str(one.matrix.method): made(one.topology, one.matrix) for one in found}
    ui.document(next(iter(documents.values())) if len(found) == 1 else documents)
    if wishes.verbose:
        for one in found:
            ui.talk_table(PAIRS, [_pair_row(outcome) for outcome in one.outcomes])


def _show_csv(found: "Measured") -> None:
    from proxmox_cpu_affinity.formats import latency_csv

    ui.raw(latency_csv.to_text(found.matrix))


def _show_text(found: "list[Measured]", wishes: Wishes) -> None:
    from proxmox_cpu_affinity.cli import latencies

    for one in found:
        if len(found) > 1:
            ui.heading(f"Method {one.matrix.method}:")
        if not wishes.summary:
            latencies.show(one.topology, one.matrix)
            ui.lines("")
        figures = latencies.figures(one.topology, one.matrix)
        # Nobody knows how a saved one was measured.
        ui.pairs(line for line in figures if line[0] != "Verdict" or not wishes.from_file)
        if wishes.verbose and one.outcomes:
            ui.heading("Pairs as measured:")
            ui.table(PAIRS, [_pair_row(outcome) for outcome in one.outcomes])


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


def _write_files(found: "Measured", wishes: Wishes) -> None:
    """The pictures and files asked for. UsageError where one cannot be written."""
    from proxmox_cpu_affinity.formats import hwloc_xml
    from proxmox_cpu_affinity.render.heatmap import heatmap_svg

    wanted = (("--svg", wishes.svg, heatmap_svg), ("--hwloc", wishes.hwloc, hwloc_xml.to_text))
    for option, path, made in wanted:
        if path is None:
            continue
        try:
            path.write_text(made(found.topology, found.matrix), encoding="utf-8")
        except OSError as error:
            raise not_written(option, path, error) from None
        ui.talk(f"written to {path}")


def _talk_of(found: "list[Measured]") -> None:
    """What was odd, and what to do about it."""
    from proxmox_cpu_affinity.render.trust import to_do

    said = dict.fromkeys(condition for one in found for condition in one.matrix.conditions)
    for condition in said:
        ui.talk(condition)
    for one in found:
        again = "measure again when the host is quiet"
        advice = to_do(one.matrix.verdict, one.matrix.conditions, again=again)
        if advice:
            ui.talk(f"Hint: {advice}")
            return
