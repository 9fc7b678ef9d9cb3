"""What `plan` answers: the engine's decisions as rows, their score, and what threads may use.

The keys are explained in docs/plan.md. Out of scope: who is asked for (wanted), and printing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

from proxmox_cpu_affinity.cli.wanted import Wanted
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.cpuset import EMPTY
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Width
from proxmox_cpu_affinity.model.topology import Topology

if TYPE_CHECKING:  # they import numpy
    from proxmox_cpu_affinity.cli.hosts import Described
    from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules
    from proxmox_cpu_affinity.engine.score import Score
    from proxmox_cpu_affinity.engine.trace import Decision
    from proxmox_cpu_affinity.engine.whole_cores import OnCores


@dataclass(frozen=True, slots=True)
class Row(wire.PlanRow):
    """One guest's place, or why it has none. `applied` is what its threads may use: wider than
    `cpus` where PCA_WIDTH says so; `order` the CPU that each vCPU counts on; `parts` the CPUs of
    each of its nodes, one part where it has none."""

    cache_groups: list[int]
    nodes: list[int]
    policy: str
    applied: str
    order: list[int]
    parts: list[str]


@dataclass(frozen=True, slots=True)
class Scored:
    """Estimated slowdown of the average vCPU in percent: of the plan, the least that any placement
    can have, of guests that are not pinned, of the round-robin rule, and packed."""

    slowdown: float
    bound: float
    gap: float
    no_pinning: float
    round_robin: float
    packed: float


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
class Made:
    """The answer, and what it was made of."""

    answer: Planned
    placements: Mapping[Vmid, Placement]  # in the order of placing
    cores: Mapping[Vmid, "OnCores"]  # of a plan on whole cores


def planned(host: "Described", rules: "Rules", wanted: Wanted) -> Made:
    """Guests one after another on an empty host, as the service would place them."""
    from proxmox_cpu_affinity.engine.facts import Occupancy, Turn, compile_host
    from proxmox_cpu_affinity.engine.plan import plan

    compiled = compile_host(host.topology, host.matrix, rules, host.allowed)
    made = plan(compiled, Occupancy(()), Turn(), wanted.requests)
    together = Occupancy(tuple(decision.placement for decision in made.decisions))
    placements = _as_wide(compiled, together)
    decisions = {d.placement.vmid: d for d in made.decisions}
    return Made(
        _answer(compiled, wanted, decisions, placements, dict(made.refused)), placements, {}
    )


def planned_on_cores(
    host: "Described", rules: "Rules", wanted: Wanted, *, spare_first: bool = True
) -> Made:
    """The same on whole cores. Where the rules reserve nothing, each node's first core is left to
    the host; without `spare_first` nothing is."""
    from proxmox_cpu_affinity.engine.facts import compile_host
    from proxmox_cpu_affinity.engine.whole_cores import first_cores, plan_on_cores

    first = first_cores(host.topology) if spare_first else EMPTY
    reserved = rules.reserved or first
    rules = replace(rules, reserved=reserved, strategy=Strategy.BALANCED)
    compiled = compile_host(host.topology, host.matrix, rules, host.allowed)
    made = plan_on_cores(compiled, wanted.requests)
    cores = {one.placement.vmid: one for one in made.placed}
    placements = {vmid: one.placement for vmid, one in cores.items()}
    decisions = {vmid: one.decision for vmid, one in cores.items()}
    answer = _answer(compiled, wanted, decisions, placements, dict(made.refused))
    return Made(answer, placements, cores)


def _as_wide(host: "Host", occupancy: "Occupancy") -> dict[Vmid, Placement]:
    """The placements with what threads may use, as the service would have it once all run."""
    from proxmox_cpu_affinity.engine.width import crowded, widened

    groups = frozenset(host.topology.cache_groups)
    nowhere = groups - groups
    match host.rules.width:
        case Width.EXACT:
            wide = nowhere
        case Width.DOMAIN:
            wide = groups
        case Width.AUTO:
            wide = crowded(host, occupancy)
        case _:
            assert_never(host.rules.width)
    if host.rules.strategy is Strategy.ROUND_ROBIN:
        wide = nowhere
    sets = widened(host, occupancy, wide)
    return {p.vmid: sets[p.vmid] for p in occupancy.placements}


def _answer(
    host: "Host",
    wanted: Wanted,
    decisions: Mapping[Vmid, "Decision"],
    placements: Mapping[Vmid, Placement],
    refused: Mapping[Vmid, str],
) -> Planned:
    from proxmox_cpu_affinity.engine.facts import Occupancy
    from proxmox_cpu_affinity.engine.occupancy import overlapping
    from proxmox_cpu_affinity.engine.score import score

    rows = [
        _unplaced(request, refused[request.vmid])
        if request.vmid in refused
        else _row(host.topology, request, decisions[request.vmid], placements[request.vmid])
        for request in wanted.requests
    ]
    rows += [_unplaced(request, reason) for request, reason in wanted.left_alone]
    standing = tuple(placements.values())
    return Planned(
        guests=sorted(rows, key=lambda row: row.vmid) if wanted.left_alone else rows,
        overlap=str(overlapping(Occupancy(standing))),
        strategy=host.rules.strategy,
        usable=str(host.usable),
        latencies="; ".join(host.matrix.conditions) or host.matrix.verdict,
        score=_scored(score(host, standing)),
    )


def _row(topology: Topology, request: Request, decision: "Decision", placement: Placement) -> Row:
    return Row(
        vmid=request.vmid,
        vcpus=request.vcpus,
        cpus=str(placement.home),
        start=placement.start,
        reason=decision.reason,
        warnings=list(placement.warnings),
        cache_groups=list(topology.cache_groups_of(placement.home)),
        nodes=list(topology.nodes_of(placement.home)),
        policy=request.policy,
        applied=str(placement.applied),
        order=list(placement.order),
        parts=[str(part) for part in placement.parts],
    )


def _unplaced(request: Request, reason: str) -> Row:
    return Row(
        request.vmid, request.vcpus, "", None, reason, [], [], [], request.policy, "", [], []
    )


def _scored(found: "Score | None") -> Scored | None:
    if found is None:
        return None
    shares: Sequence[float] = (
        found.slowdown,
        found.bound,
        found.gap,
        found.no_pinning,
        found.round_robin,
        found.packed,
    )
    return Scored(*(round(100 * share, 2) for share in shares))
