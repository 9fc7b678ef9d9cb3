"""Answers of the API, made from the state. Pure: nothing here reads or waits."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from proxmox_cpu_affinity.engine.facts import Occupancy
from proxmox_cpu_affinity.engine.occupancy import overlapping
from proxmox_cpu_affinity.engine.plan import Plan
from proxmox_cpu_affinity.engine.report import Reporter, decided
from proxmox_cpu_affinity.engine.score import guest_scores as score_of_each
from proxmox_cpu_affinity.engine.score import score
from proxmox_cpu_affinity.engine.trace import Candidate, Decision
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Request, described
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.model.placement import Held
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.reconcile import State, Tracked
from proxmox_cpu_affinity.reconcile.placing import review
from proxmox_cpu_affinity.render import lines
from proxmox_cpu_affinity.service.reading import Found

UNREAD = "its configuration cannot be read"
TICKS = 100
"""A second's clock ticks in /proc (USER_HZ, proc(5)); the same on every processor PVE runs on."""


def topology(host: Topology) -> wire.TopologyView:
    return wire.TopologyView(
        model_name=host.model_name,
        virtual=host.virtual,
        possible=str(host.possible),
        present=str(host.present),
        online=str(host.online),
        isolated=str(host.isolated),
        cpus=[
            wire.CpuView(p.cpu, p.core, p.l2, p.llc, p.die, p.package, p.node, p.kind)
            for p in host.places
        ],
        cores=[str(cpus) for cpus in host.cores],
        cache_groups=[str(cpus) for cpus in host.cache_groups],
        packages=[str(cpus) for cpus in host.packages],
        nodes=[
            wire.NodeView(n.node, str(n.cpus), n.memory_mib, {str(k): v for k, v in n.distances})
            for n in host.nodes
        ],
        notes=list(host.notes),
    )


def ranking(host: Topology, matrix: LatencyMatrix) -> Iterator[wire.Ranking]:
    """For each CPU the others, nearest first, with the kernel's package and core numbers.

    One after the other: on a host of 512 CPUs all of them together are 100 MB of objects.
    """

    def neighbor(cpu: Cpu, latency: float) -> wire.Neighbor:
        place = host.place(cpu)
        return wire.Neighbor(cpu, place.package_id, place.core_id, round(latency, 2))

    for cpu in matrix.cpus:
        yield wire.Ranking(cpu, [neighbor(other, ns) for other, ns in matrix.ranking(cpu)])


def summary(host: Topology, matrix: LatencyMatrix) -> wire.RankingSummary:
    figures = matrix.summary()
    return wire.RankingSummary(
        cpu_count=figures.cpus,
        socket_count=len(host.packages),
        min_latency_ns=round(figures.low, 2),
        max_latency_ns=round(figures.high, 2),
        median_latency_ns=round(figures.median, 2),
        mean_latency_ns=round(figures.mean, 2),
        verdict=matrix.verdict,
    )


def core_vm_affinity(state: State) -> dict[str, list[int]]:
    return {str(v): list(t.placement.home) for v, t in sorted(state.tracked.items())}


def scored(state: State) -> wire.ScoreView | None:
    """How good the placements are, beside the best that could be and beside doing without."""
    found = score(state.host, [t.placement for t in state.tracked.values()])
    if found is None:
        return None
    return wire.ScoreView(
        slowdown=round(found.slowdown, 4),
        bound=round(found.bound, 4),
        gap=round(found.gap, 4),
        no_pinning=round(found.no_pinning, 4),
        round_robin=round(found.round_robin, 4),
        packed=round(found.packed, 4),
    )


Scores = Mapping[Vmid, tuple[float, float]]
"""Of each placed guest its score and its bound."""
NO_SCORES: Scores = {}


def guest_scores(state: State) -> Scores:
    return score_of_each(state.host, [t.placement for t in state.tracked.values()])


def guests(state: State, found: Found) -> list[wire.GuestView]:
    """The guests of this node, and whoever else holds CPUs of it. Whose configuration cannot be
    read now is shown as it was read before, as it was placed, or as it runs; and that is said."""
    placed, report, scores = state.tracked.keys(), state.reporter(), guest_scores(state)
    unread = set(found.unreadable)
    if found.trouble:
        unread |= state.configs.keys() | placed | found.processes.keys()
    known = {v: config for v, config in state.configs.items() if v in unread | placed}
    configs = {**known, **found.configs}
    views = []
    for vmid in sorted(configs.keys() | placed | (unread & found.processes.keys())):
        config, process = configs.get(vmid), found.processes.get(vmid)
        if config is None:
            view = _without_config(state, vmid, process, scores, report)
        else:
            view = guest(state, config, process, scores, report)
        if vmid not in found.configs and vmid in unread:
            view = replace(view, warnings=[*view.warnings, f"{UNREAD}: this was known before"])
        views.append(view)
    return views


def _without_config(
    state: State, vmid: Vmid, process: GuestProcess | None, scores: Scores, report: Reporter
) -> wire.GuestView:
    """A guest of which nobody ever read the configuration in this life of the service."""
    tracked = state.tracked.get(vmid)
    vcpus = 0 if tracked is None else len(tracked.placement.order)
    tags = () if tracked is None else (f"cpu-{tracked.policy}",)
    view = guest(state, described(vmid, vcpus, tags=tags), process, scores, report)
    if tracked is not None:  # so it is managed, whatever makes it so
        return replace(view, managed=True, reason="", reason_code="", managed_by="")
    if view.reason_code == wire.RELEASED:
        return view
    return replace(view, managed=False, reason=UNREAD, reason_code="", managed_by="", policy="")


def guest(
    state: State,
    config: GuestConfig,
    process: GuestProcess | None = None,
    scores: Scores = NO_SCORES,
    report: Reporter | None = None,
) -> wire.GuestView:
    """One guest. `process` matters for guests that are not tracked; `report` is the state's, for
    those who ask for many."""
    tracked = state.tracked.get(config.vmid)
    reason = config.exclusion(state.manage)
    if tracked is not None and tracked.process is not None:
        process = tracked.process
    confined = None if tracked is None else tracked.confined
    report = state.reporter() if report is None else report
    code, why = ("", "") if reason is None else (reason.value, lines.excluded(reason))
    if config.vmid in state.released:
        code, why = wire.RELEASED, "let go by hand until its next start"
    score, bound = scores.get(config.vmid, (None, None))
    return wire.GuestView(
        vmid=config.vmid,
        name=config.name,
        managed=reason is None,
        reason=why,
        policy=config.policy,
        vcpus=config.vcpu_count,
        running=process is not None,
        pid=None if process is None else process.pid,
        cpus="" if tracked is None else str(tracked.placement.home),
        applied="" if tracked is None else str(tracked.placement.applied),
        outcome=outcome(tracked),
        confinement="none" if confined is None else confined.confinement,
        threads=0 if confined is None else confined.threads,
        faults=[]
        if confined is None
        else [f"{f.name or f.tid}: {f.reason}" for f in confined.faults],
        warnings=[] if tracked is None else list(tracked.placement.warnings),
        reason_code=code,
        refused=state.refused.get(config.vmid, ""),
        held_since="" if tracked is None or tracked.held is None else tracked.held,
        managed_by="" if reason is not None else str(config.chosen_by(state.manage)),
        nodes=[] if tracked is None else list(state.host.topology.nodes_of(tracked.placement.home)),
        score=None if score is None else round(score, 4),
        bound=None if bound is None else round(bound, 4),
        drift=0 if tracked is None else tracked.drift,
        confined_after_s=None if tracked is None else confined_after(tracked),
        width="" if tracked is None else report.reach(tracked.placement),
        width_why="" if tracked is None else report.width(tracked.placement),
    )


def confined_after(tracked: Tracked) -> float | None:
    """Seconds from the start of a guest's process until it was held as wanted; 0 for one that was
    from its first instruction."""
    if tracked.process is None or tracked.confined_at is None:
        return None
    if tracked.held is Held.BIRTH:
        return 0.0
    return round(max(0.0, tracked.confined_at - tracked.process.start_time / TICKS), 2)


def matrix(found: LatencyMatrix) -> wire.MatrixView:
    count = len(found.cpus)
    rows = [range(i * count + i + 1, (i + 1) * count) for i in range(count)]
    return wire.MatrixView(
        cpus=list(found.cpus),
        ns=[[round(found.ns[cell], 1) for cell in row] for row in rows],
        measured=["".join("01"[bool(found.measured[cell])] for cell in row) for row in rows],
        method=found.method,
        verdict=found.verdict,
    )


def outcome(tracked: Tracked | None) -> str:
    if tracked is None:
        return ""
    if tracked.process is None:
        return "reserved"
    return "pending" if tracked.confined is None else tracked.confined.outcome


def decisions(
    state: State, earlier: Iterable[tuple[str, Vmid, Decision]], vmid: Vmid | None = None
) -> list[wire.DecisionView]:
    """Each guest's own decision, by VMID, then the others of `earlier` (time, guest, decision),
    newest first; of one guest alone, if asked for. The own one may be older than all that were
    kept; where the candidates are not known, the place is priced anew."""
    kept = list(earlier)
    times = {id(made): time for time, _, made in kept}
    chosen = sorted(state.tracked if vmid is None else state.tracked.keys() & {vmid})
    report = state.reporter()
    own = [_own_decision(state, one, times, report) for one in chosen]
    holding = {id(state.tracked[one].decision) for one in chosen}
    past = ((t, v, d) for t, v, d in kept if vmid in (None, v) and id(d) not in holding)
    return [*own, *(decision(*one) for one in past)]


def _own_decision(
    state: State, vmid: Vmid, times: Mapping[int, str], report: Reporter
) -> wire.DecisionView:
    """A guest that was moved, grown or shrunk was not compared with others when it was."""
    tracked = state.tracked[vmid]
    made = tracked.decision
    priced = review(state, vmid) if made is None or not made.candidates else None
    known = made or priced
    assert known is not None
    shown = known if priced is None else replace(known, candidates=priced.candidates)
    return replace(
        decision(times.get(id(made), ""), vmid, shown),
        current=True,
        width=report.width(tracked.placement),
        recomputed=priced is not None and bool(priced.candidates or made is None),
    )


def decision(time: str, vmid: Vmid, made: Decision) -> wire.DecisionView:
    placement = made.placement
    return wire.DecisionView(
        time=time,
        vmid=vmid,
        cpus=str(placement.home),
        start=placement.start,
        reason=made.reason,
        warnings=list(placement.warnings),
        candidates=[_candidate(candidate) for candidate in made.candidates],
        told=decided(made),
    )


def _candidate(candidate: Candidate) -> wire.CandidateView:
    terms = candidate.terms
    return wire.CandidateView(
        cpus=str(candidate.home),
        cost=round(terms.total, 4),
        contention=round(terms.contention, 4),
        smt=round(terms.smt, 4),
        latency=round(terms.latency, 4),
        kind=round(terms.kind, 4),
        spread=round(terms.spread, 4),
        origin=candidate.origin,
    )


def planned(state: State, made: Plan, requests: Iterable[Request]) -> wire.PlanAnswer:
    """A plan beside the guests that stand."""
    found = {d.placement.vmid: d for d in made.decisions}
    refused = dict(made.refused)
    rows = []
    for request in requests:
        placed = found.get(request.vmid)
        if placed is None:
            row = wire.PlanRow(request.vmid, request.vcpus, "", None, refused[request.vmid], [])
        else:
            row = wire.PlanRow(
                request.vmid,
                request.vcpus,
                str(placed.placement.home),
                placed.placement.start,
                placed.reason,
                list(placed.placement.warnings),
            )
        rows.append(row)
    planned_ones = tuple(d.placement for d in made.decisions)
    standing = tuple(
        t.placement for v, t in state.tracked.items() if v not in {p.vmid for p in planned_ones}
    )
    together = Occupancy((*standing, *planned_ones))
    return wire.PlanAnswer(rows, str(overlapping(together)))
