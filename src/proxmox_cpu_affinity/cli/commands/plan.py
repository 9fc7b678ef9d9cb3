"""`plan`: where guests would go, on this host or on one described in a file. Changes nothing.

Asks no service: it is the same engine, run here, with an empty host to begin with.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import Command, Session, as_json, exit_status
from proxmox_cpu_affinity.cli.configured import settings_here
from proxmox_cpu_affinity.cli.hostmap import host_map
from proxmox_cpu_affinity.cli.words import cpus_named
from proxmox_cpu_affinity.formats import jsonvalue, wire
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import NotPveHostError, SyntaxFault, UsageError
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, Request
from proxmox_cpu_affinity.model.ids import Vmid, vmid_of
from proxmox_cpu_affinity.model.placement import Strategy
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.pve.guests import NodeGuests

if TYPE_CHECKING:  # they import numpy
    from proxmox_cpu_affinity.cli.hosts import Described
    from proxmox_cpu_affinity.engine.facts import Rules
    from proxmox_cpu_affinity.engine.score import Score
    from proxmox_cpu_affinity.engine.trace import Decision

COLUMNS = ("VMID", "vCPUs", "CPUs", "Start", "Cache-Groups", "Nodes", "Reason")


@dataclass(frozen=True, slots=True)
class Row(wire.PlanRow):
    """One guest's place, or why it has none."""

    cache_groups: list[int]
    nodes: list[int]


@dataclass(frozen=True, slots=True)
class Scored:
    """Estimated slowdown of the average vCPU in percent: of the plan, the least that any placement
    can have, of guests that are not pinned, and of the round-robin rule."""

    slowdown: float
    bound: float
    gap: float
    no_pinning: float
    round_robin: float


@dataclass(frozen=True, slots=True)
class Planned:
    """What the command answers; the first two as the API has them. CPU sets are cpulists."""

    guests: list[Row]
    overlap: str
    strategy: str
    usable: str
    latencies: str
    score: Scored | None  # None where no guest is placed


@dataclass(frozen=True, slots=True)
class Wanted:
    """The guests to place, and those of this node that are not ours, with the reason."""

    requests: tuple[Request, ...]
    left_alone: tuple[tuple[Request, str], ...] = ()


@click.command(
    cls=Command,
    needs_root=False,
    examples=(
        "plan",
        "plan --guest 100:4 --guest 101:8",
        "plan --host generated:2x2x4x2 --guest 100:4 --strategy round-robin",
    ),
)
@click.option(
    "--host",
    metavar="FILE|generated:SPEC",
    help="A host in a file or a directory, or PACKAGESxL3xCORESxTHREADS; default: this host.",
)
@click.option(
    "--latency",
    metavar="FILE",
    help="That host's latencies, like core-to-core-latency's CSV.",
)
@click.option(
    "--guest",
    "guests",
    multiple=True,
    metavar="ID:VCPUS",
    help="A guest to place, may be repeated; default: the guests of this node.",
)
@click.option("--strategy", type=click.Choice(list(Strategy)), help="Default: as configured.")
@click.option("--reserved", metavar="LIST", help="CPUs for the host, like 0-1,8.")
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
    json_lines: bool,
    as_json: bool,
) -> int:
    """Show where guests would go; changes nothing.

    As if they were started one after the other on an empty host. Exit status 1 if no guest can be
    placed, 3 if only some can.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread for each CPU
    if json_lines:
        if host or latency or guests or strategy or reserved or as_json:
            raise UsageError("--json-lines stands alone: what it needs comes by the lines")
        return _converse()
    from proxmox_cpu_affinity.cli.hosts import named_host, this_host, with_latencies

    configured = settings_here(session.tree)
    rules = _rules(configured, strategy, reserved, here=host is None)
    wanted = given(guests) if guests else _of_node(session.tree, configured)
    where = this_host(session.tree) if host is None else named_host(host)
    if latency is not None:
        where = with_latencies(where, latency)
    if reserved is not None:
        _check_reserved(rules.reserved, where.topology)
    answer, held = planned(where, rules, wanted)
    if as_json:
        ui.document(jsonvalue.plain(answer))
    else:
        _show(where.topology, answer, held)
    placed = sum(row.start is not None for row in answer.guests)
    return exit_status(good=placed, bad=len(wanted.requests) - placed)


def _converse() -> int:
    from proxmox_cpu_affinity.cli.jsonlines import converse

    converse(sys.stdin, ui.line_out)
    return 0


def given(guests: Sequence[str]) -> Wanted:
    """The guests that --guest names. UsageError naming the part that is wrong."""
    requests: dict[Vmid, Request] = {}
    for text in guests:
        number, _, count = text.partition(":")
        vmid = vmid_of(number)
        if vmid is None:
            raise UsageError(f"--guest {text}: {number!r} is no VMID", hint="write it like 100:4")
        if not (count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= VCPUS_MOST):
            raise UsageError(
                f"--guest {text}: {count!r} is no number of vCPUs (1 to {VCPUS_MOST})",
                hint="write it like 100:4",
            )
        if vmid in requests:
            raise UsageError(f"--guest {text}: guest {vmid} is given twice")
        requests[vmid] = Request(vmid, int(count))
    return Wanted(tuple(requests.values()))


def planned(
    host: "Described", rules: "Rules", wanted: Wanted
) -> tuple[Planned, dict[Vmid, CpuSet]]:
    """The answer, and the CPUs of each guest in the order of placing."""
    from proxmox_cpu_affinity.engine.facts import Occupancy, Turn, compile_host
    from proxmox_cpu_affinity.engine.occupancy import overlapping
    from proxmox_cpu_affinity.engine.plan import plan as engine_plan
    from proxmox_cpu_affinity.engine.score import score

    compiled = compile_host(host.topology, host.matrix, rules, host.allowed)
    made = engine_plan(compiled, Occupancy(()), Turn(), wanted.requests)
    placed = {decision.placement.vmid: decision for decision in made.decisions}
    rows = [
        _row(host.topology, request, placed.get(request.vmid), dict(made.refused))
        for request in wanted.requests
    ]
    rows += [_unplaced(request, reason) for request, reason in wanted.left_alone]
    held = {vmid: decision.placement.home for vmid, decision in placed.items()}
    answer = Planned(
        guests=sorted(rows, key=lambda row: row.vmid) if wanted.left_alone else rows,
        overlap=str(overlapping(Occupancy(tuple(d.placement for d in made.decisions)))),
        strategy=rules.strategy,
        usable=str(compiled.usable),
        latencies="; ".join(host.matrix.conditions) or host.matrix.verdict,
        score=_scored(score(compiled, [decision.placement for decision in made.decisions])),
    )
    return answer, held


def _scored(found: "Score | None") -> Scored | None:
    if found is None:
        return None
    shares = (found.slowdown, found.bound, found.gap, found.no_pinning, found.round_robin)
    return Scored(*(round(100 * share, 2) for share in shares))


def _row(
    topology: Topology,
    request: Request,
    decision: "Decision | None",
    refused: Mapping[Vmid, str],
) -> Row:
    if decision is None:
        return _unplaced(request, refused[request.vmid])
    placement = decision.placement
    return Row(
        vmid=request.vmid,
        vcpus=request.vcpus,
        cpus=str(placement.home),
        start=placement.start,
        reason=decision.reason,
        warnings=list(placement.warnings),
        cache_groups=list(topology.cache_groups_of(placement.home)),
        nodes=list(topology.nodes_of(placement.home)),
    )


def _unplaced(request: Request, reason: str) -> Row:
    return Row(request.vmid, request.vcpus, "", None, reason, [], [], [])


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
            raise UsageError(f"--reserved {reserved}: {fault.text}", hint=fault.hint) from None
    chosen = configured.strategy if strategy is None else Strategy(strategy)
    return Rules(chosen, configured.weights, kept)


def _check_reserved(reserved: CpuSet, topology: Topology) -> None:
    """UsageError for CPUs that the host has not: a plan without them would mean nothing."""
    missing = reserved - topology.possible - topology.online
    if missing:
        raise UsageError(
            f"--reserved {reserved}: the host has no {cpus_named(missing)}",
            hint=f"it has {cpus_named(topology.online)}",
        )


def _of_node(tree: Tree, configured: Settings) -> Wanted:
    """The guests of this node, the managed ones to be placed. UsageError where it has none."""
    from proxmox_cpu_affinity.render.lines import excluded

    try:
        configs, unreadable = NodeGuests(tree).configs()
    except NotPveHostError as error:
        raise UsageError(
            "no guest is named, and this is no Proxmox VE node",
            hint="name guests: --guest 100:4 --guest 101:8",
        ) from error
    requests, left_alone = [], []
    for vmid in sorted(configs):
        config = configs[vmid]
        request = Request(vmid, config.vcpu_count, config.policy)
        reason = config.exclusion(configured.manage)
        if reason is None:
            requests.append(request)
        else:
            left_alone.append((request, f"left alone: {excluded(reason)}"))
    for vmid in sorted(unreadable):
        ui.warn(f"VM {vmid}: its configuration cannot be read")
    return Wanted(tuple(requests), tuple(left_alone))


def _show(topology: Topology, answer: Planned, held: dict[Vmid, CpuSet]) -> None:
    ui.table(COLUMNS, map(_cells, answer.guests))
    ui.lines("", *host_map(topology, held, CpuSet.parse(answer.usable), width=ui.width()))
    if answer.score is not None:
        ui.lines("", _score_words(answer.score))
    for row in answer.guests:
        for warning in row.warnings:
            ui.warn(f"VM {row.vmid}: {warning}")
    for note in topology.notes:
        ui.talk(f"note: {note}")
    ui.talk(f"strategy {answer.strategy}; latencies: {answer.latencies}")


def _score_words(score: Scored) -> str:
    return (
        f"Estimated slowdown of a vCPU {score.slowdown:.1f} %; no placement of these guests is "
        f"below {score.bound:.1f} %. Not pinned: {score.no_pinning:.1f} %, round-robin: "
        f"{score.round_robin:.1f} %."
    )


def _cells(row: Row) -> ui.Row:
    return (
        row.vmid,
        row.vcpus,
        row.cpus or "-",
        "-" if row.start is None else row.start,
        ",".join(map(str, row.cache_groups)) or "-",
        ",".join(map(str, row.nodes)) or "-",
        row.reason,
    )
