"""`plan`: where guests would go, on this host or on one described in a file. Changes nothing.

Asks no service: it is the same engine, run here, with an empty host to begin with.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import (
    CPULIST_HINT,
    Command,
    Session,
    as_json,
    complete_file,
    exit_status,
)
from proxmox_cpu_affinity.cli.configured import settings_here
from proxmox_cpu_affinity.cli.hostmap import colours, host_map
from proxmox_cpu_affinity.cli.planning import Made, Row, Scored, planned, planned_on_cores
from proxmox_cpu_affinity.cli.wanted import FORM, given, of_node
from proxmox_cpu_affinity.cli.words import cpus_named
from proxmox_cpu_affinity.formats import by_hand, jsonvalue
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, UsageError
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Strategy
from proxmox_cpu_affinity.model.topology import Topology

if TYPE_CHECKING:  # it imports numpy
    from proxmox_cpu_affinity.engine.facts import Rules

COLUMNS = ("VMID", "vCPUs", "CPUs", "Start", "Cache-Groups", "Nodes", "Reason")


class Format(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    QM = "qm"
    LIBVIRT = "libvirt"
    RHV = "rhv"


@click.command(
    cls=Command,
    needs_root=False,
    examples=(
        "plan",
        "plan --guest 100:4 --guest 101:8:2:cpu-pinned",
        "plan --host generated:2x2x4x2 --guest 100:4 --strategy round-robin",
        "plan --host lscpu.txt --guest 100:4 --format libvirt",
    ),
)
@click.option(
    "--host",
    metavar="FILE|generated:SPEC",
    shell_complete=complete_file,
    help="A host in a file or a directory, or PACKAGESxL3xCORESxTHREADS; default: this host.",
)
@click.option(
    "--latency",
    metavar="FILE",
    shell_complete=complete_file,
    help="That host's latencies, like core-to-core-latency's CSV.",
)
@click.option(
    "--guest",
    "guests",
    multiple=True,
    metavar=FORM,
    help="A guest to place, may be repeated; several sockets lie on a host node each; tags like"
    " cpu-pinned. Default: the guests of this node.",
)
@click.option(
    "--strategy",
    type=click.Choice([rule.value for rule in Strategy]),
    help="Default: as configured.",
)
@click.option("--reserved", metavar="LIST", help="CPUs for the host, like 0-1,8.")
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Format]),
    help="qm set lines, libvirt's cputune and numatune, or rhv-pinning-calculator's strings (whole"
    " cores; without --reserved the first core of each node is left to the host).",
)
@click.option(
    "--json-lines",
    is_flag=True,
    help="Talk: a machine, starts and stops as JSON lines on stdin, each answered with a line.",
)
@as_json
@click.pass_obj
def plan(
    session: Session,
    /,
    *,
    host: str | None,
    latency: str | None,
    guests: Sequence[str],
    strategy: str | None,
    reserved: str | None,
    form: str | None,
    json_lines: bool,
    as_json: bool,
) -> int:
    """Show where guests would go; changes nothing.

    As if they were started one after the other on an empty host. Exit status 1 if no guest can be
    placed, 3 if only some can.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each CPU
    if json_lines:
        if host or latency or guests or strategy or reserved or form or as_json:
            raise UsageError(
                "--json-lines stands alone: what it needs comes by the lines",
                hint="leave the other options out",
            )
        return _converse()
    chosen = _format(form, strategy, as_json=as_json)
    from proxmox_cpu_affinity.cli.hosts import named_host, this_host, with_latencies

    configured = settings_here(session.tree)
    rules = _rules(configured, strategy, reserved, here=host is None)
    wanted = given(guests) if guests else of_node(session.tree, configured)
    where = this_host(session.tree) if host is None else named_host(host)
    if latency is not None:
        where = with_latencies(where, latency)
    if reserved is not None:
        _check_reserved(rules.reserved, where.topology)
    if chosen is Format.RHV:
        made = planned_on_cores(where, rules, wanted, spare_first=reserved is None)
    else:
        made = planned(where, rules, wanted)
    _print(chosen, where.topology, made)
    placed = len(made.placements)
    return exit_status(good=placed, bad=len(wanted.requests) - placed)


def _converse() -> int:
    from proxmox_cpu_affinity.cli.jsonlines import converse

    converse(sys.stdin.buffer, ui.line_out)
    return 0


def _format(form: str | None, strategy: str | None, *, as_json: bool) -> Format:
    if as_json and form not in (None, Format.JSON):
        raise UsageError(f"--json and --format {form} are two forms", hint="give one of them")
    if form == Format.RHV and strategy == Strategy.ROUND_ROBIN:
        raise UsageError(
            "--format rhv gives whole cores, and round-robin knows no cores",
            hint="leave --strategy out",
        )
    return Format.JSON if as_json else Format(form or Format.TABLE)


def _rules(
    configured: Settings, strategy: str | None, reserved: str | None, *, here: bool
) -> "Rules":
    """The service's rules with those of the options; reserved CPUs hold for this host only."""
    from proxmox_cpu_affinity.engine.facts import Rules

    kept = configured.reserved if here else EMPTY
    if reserved is not None:
        try:
            kept = CpuSet.parse(reserved)
        except SyntaxFault as fault:
            hint = fault.hint or CPULIST_HINT
            raise UsageError(f"--reserved {reserved}: {fault.text}", hint=hint) from None
    chosen = configured.strategy if strategy is None else Strategy(strategy)
    return Rules(chosen, configured.weights, kept, configured.dedicated_fallback, configured.width)


def _check_reserved(reserved: CpuSet, topology: Topology) -> None:
    """UsageError for CPUs that the host has not: a plan without them would mean nothing."""
    missing = reserved - topology.possible - topology.online
    if missing:
        raise UsageError(
            f"--reserved {reserved}: the host has no {cpus_named(missing)}",
            hint=f"it has {cpus_named(topology.online)}",
        )


# -- printing --------------------------------------------------------------------------------------


def _print(form: Format, topology: Topology, made: Made) -> None:
    match form:
        case Format.TABLE:
            _show(topology, made)
        case Format.JSON:
            ui.document(jsonvalue.plain(made.answer))
        case Format.QM | Format.LIBVIRT | Format.RHV:
            ui.lines(*_by_hand(form, topology, made))
            _remarks(form, topology, made)
        case _:
            assert_never(form)


def _by_hand(form: Format, topology: Topology, made: Made) -> Iterator[str]:
    """The lines of the guests that are placed, in the order of the answer."""
    for row in made.answer.guests:
        placement = made.placements.get(Vmid(row.vmid))
        if placement is None:
            continue
        if form is Format.QM:
            yield from by_hand.qm(placement)
        elif form is Format.LIBVIRT:
            yield from by_hand.libvirt(topology, placement)
        else:
            yield f"# guest {row.vmid}"
            yield by_hand.rhv(made.cores[placement.vmid].cores)


def _remarks(form: Format, topology: Topology, made: Made) -> None:
    """What the lines cannot say."""
    answer = made.answer
    for row in answer.guests:
        placement = made.placements.get(Vmid(row.vmid))
        if placement is None:
            ui.warn(f"VM {row.vmid}: not placed: {row.reason}")
        elif form is Format.QM and (placement.pinned or placement.part_of):
            ui.warn(
                f"VM {row.vmid}: affinity is one set for all its threads, not one for each vCPU"
            )
        elif form is Format.LIBVIRT and placement.part_of:
            ui.talk(f"note: VM {row.vmid}: its memnode elements need cells in <cpu><numa>")
    _warnings(answer.guests)
    if form is Format.QM and made.placements:
        ui.talk("note: the service leaves guests with an affinity of their own alone")
    unused = topology.online - CpuSet.parse(answer.usable)
    if form is Format.RHV and unused:
        ui.talk(f"note: {cpus_named(unused)} left to the host; --reserved names others")


def _show(topology: Topology, made: Made) -> None:
    answer, placements = made.answer, made.placements
    held = {vmid: placement.home for vmid, placement in placements.items()}
    ui.table(COLUMNS, map(_cells, answer.guests))
    usable = CpuSet.parse(answer.usable)
    ui.lines("")
    picture = host_map(topology, held, usable, width=ui.width())
    if ui.in_colour():
        ui.raw("".join(f"{ui.coloured(words)}\n" for words in colours(picture)))
    else:
        ui.lines(*picture)
    if answer.score is not None:
        ui.lines("", *_score_words(answer.score))
    _warnings(answer.guests)
    for note in topology.notes:
        ui.talk(f"note: {note}")
    ui.talk(f"strategy {answer.strategy}; latencies: {answer.latencies}")


def _warnings(rows: Sequence[Row]) -> None:
    for row in rows:
        for warning in row.warnings:
            ui.warn(f"VM {row.vmid}: {warning}")


def _score_words(score: Scored) -> tuple[str, str]:
    least = f"wherever placed, at least {score.bound:.1f} %."
    others = f"round-robin: {score.round_robin:.1f} %, packed: {score.packed:.1f} %."
    return (
        f"Estimated slowdown of a vCPU {score.slowdown:.1f} %; {least}",
        f"Not pinned: {score.no_pinning:.1f} %, {others}",
    )


def _cells(row: Row) -> ui.Row:
    floats = f"; floats in {row.applied}" if row.applied != row.cpus else ""
    return (
        row.vmid,
        row.vcpus,
        row.cpus or "-",
        "-" if row.start is None else row.start,
        ",".join(map(str, row.cache_groups)) or "-",
        ",".join(map(str, row.nodes)) or "-",
        f"{row.reason}{floats}",
    )
