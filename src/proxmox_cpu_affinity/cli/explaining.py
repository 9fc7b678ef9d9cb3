"""What the service's answers say of one guest, put into words an administrator understands. Pure.

Out of scope: asking the service, and printing (commands.explain).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.cli.words import HELD_SINCE, MANAGED_BY, cpus_named, listed
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import Exclusion, Policy
from proxmox_cpu_affinity.render.words import counted

TERMS = {
    "contention": "other guests on the same CPUs",
    "smt": "SMT siblings",
    "latency": "latency between its CPUs",
    "kind": "slow cores",
    "spread": "load of the cache groups",
}
"""The terms of a candidate's cost, in the order of the API, in words."""

WHOLE_GROUP = (
    "in the whole L3 group, as by PCA_WIDTH=domain, such guests did 1.14 to 1.50 times the work "
    "with one busy I/O thread, and no more with all vCPUs busy"
)
"""What the comparison of widths showed of guests of 1 and 2 vCPUs (docs/width.md)."""
_SMALL = 2
_APART = (Policy.DEDICATED, Policy.PINNED)

_SAME = 0.00005  # the API rounds costs to four digits


@dataclass(frozen=True, slots=True)
class Neighbours:
    """VMIDs of the other guests beside one, each only at its nearest."""

    same_cpus: list[int]
    smt_siblings: list[int]
    cache_groups: list[int]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A set that it was not given, and what it would cost beyond the one it has."""

    cpus: str
    more: float | None  # None: the price of its own set is not among the candidates
    origin: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one guest's CPUs. `words` are names and sentences, in order."""

    guest: wire.GuestView
    decision: wire.DecisionView | None
    neighbours: Neighbours
    elsewhere: list[Elsewhere]
    words: list[tuple[str, str]]


def explanation(
    vmid: int,
    *,
    guests: Sequence[wire.GuestView],
    guest: wire.GuestView,
    decisions: Iterable[wire.DecisionView],
    topology: wire.TopologyView,
    memory: Mapping[int, float] | None = None,
) -> Explanation:
    """Why a guest is where it is; `guest` may lie in another node's folder, `guests` do not.
    `memory`: MiB of it on each node, as far as known."""
    decision = next((d for d in decisions if d.vmid == vmid and d.current), None)
    others = [other for other in guests if other.vmid != vmid]
    beside = neighbours(CpuSet.parse(guest.cpus), others, topology)
    apart = [] if decision is None else _elsewhere(decision)
    words = [
        ("Asked for", _asked(guest)),
        ("Got", _got(guest, topology)),
        ("Width", _width(guest)),
        ("Held", _held(guest)),
        ("Outside", "; ".join(guest.faults)),
        ("Memory", _memory(memory or {})),
        ("Why", _why(guest, decision)),
        ("Decided", "" if decision is None else decision.time),
        ("Neighbours", _beside(guest, beside)),
        ("Elsewhere", _dearer(apart)),
        ("Warnings", "; ".join(guest.warnings)),
    ]
    told = [(name, text) for name, text in words if text]
    return Explanation(guest, decision, beside, apart, told)


def neighbours(
    cpus: CpuSet, others: Iterable[wire.GuestView], topology: wire.TopologyView
) -> Neighbours:
    """Who else is on these CPUs, on the SMT siblings of their cores, in their cache groups."""
    cores, groups = _around(cpus, topology.cores), _around(cpus, topology.cache_groups)
    found = Neighbours([], [], [])
    for other in others:
        held = CpuSet.parse(other.cpus)
        if held.overlaps(cpus):
            found.same_cpus.append(other.vmid)
        elif held.overlaps(cores):
            found.smt_siblings.append(other.vmid)
        elif held.overlaps(groups):
            found.cache_groups.append(other.vmid)
    return found


def _around(cpus: CpuSet, groups: Sequence[str]) -> CpuSet:
    """All CPUs of the groups that these CPUs lie in."""
    around = EMPTY
    for group in map(CpuSet.parse, groups):
        if group.overlaps(cpus):
            around |= group
    return around


def _asked(guest: wire.GuestView) -> str:
    if guest.managed:
        return f"{counted(guest.vcpus, 'vCPU')}, policy {guest.policy}{_by(guest)}"
    chosen = guest.reason_code != Exclusion.NOT_CHOSEN
    remedy = "" if chosen else f" (to change that: hookscript enable {guest.vmid})"
    return f"nothing: {guest.reason}{remedy}"


def _by(guest: wire.GuestView) -> str:
    by = MANAGED_BY.get(guest.managed_by)
    return f", managed by {by}" if by else ""


def _got(guest: wire.GuestView, topology: wire.TopologyView) -> str:
    if not guest.cpus:
        if guest.refused:
            return f"no CPUs: {guest.refused}"
        if not guest.running:
            return "no CPUs: it does not run"
        if not guest.managed:
            return "no CPUs of ours"
        return f"no CPUs of ours: {guest.reason or 'the next scan will see it'}"
    place = _where(CpuSet.parse(guest.cpus), topology)
    if guest.applied != guest.cpus:
        place += f", and may use {cpus_named(guest.applied)}"
    return f"{place}{'' if guest.running else ', reserved for a start that is under way'}"


def _where(cpus: CpuSet, topology: wire.TopologyView) -> str:
    groups = [
        i for i, text in enumerate(topology.cache_groups) if CpuSet.parse(text).overlaps(cpus)
    ]
    nodes = [node.node for node in topology.nodes if CpuSet.parse(node.cpus).overlaps(cpus)]
    named = f"{listed('cache group', groups)}, {listed('node', nodes)}"
    return f"{cpus_named(str(cpus))} ({named})"


def _memory(memory: Mapping[int, float]) -> str:
    return ", ".join(f"{mib:.0f} MiB on node {node}" for node, mib in sorted(memory.items()))


def _width(guest: wire.GuestView) -> str:
    """What it may use, and why; of small guests what the whole group would bring them."""
    small = guest.width == "exact" and guest.policy not in _APART and guest.vcpus <= _SMALL
    return f"{guest.width_why} ({WHOLE_GROUP})" if small else guest.width_why


def _held(guest: wire.GuestView) -> str:
    if not guest.running or not guest.cpus:
        return ""
    means = {
        "threads": "by the mask of every thread",
        "scope": "by AllowedCPUs of its systemd scope",
    }.get(guest.confinement, "by nothing")
    since = HELD_SINCE.get(guest.held_since)
    means = f"{means}, {since}" if since else means
    good = guest.threads - len(guest.faults)
    match guest.outcome:
        case "full":
            return f"{means}: {counted(guest.threads, 'thread')} read back, all on them"
        case "part":
            return f"{means}, in part: {good} of {counted(guest.threads, 'thread')} on them"
        case "failed":
            return "by nothing: no thread is on them"
        case _:
            return "not confirmed yet"


def _why(guest: wire.GuestView, decision: wire.DecisionView | None) -> str:
    if not guest.cpus:
        return ""
    if decision is None:
        return "not known"
    return f"{decision.reason}{_against(decision)}"


def _against(decision: wire.DecisionView) -> str:
    """How the set that was chosen compares with the best of the others."""
    chosen = _chosen(decision)
    others = [c for c in decision.candidates if c is not chosen]
    if not decision.candidates:
        return ""
    if not others:
        return ": there was no other"
    best = others[0]
    if chosen is None:
        return f": {cpus_named(best.cpus)} ({best.origin}) would cost {best.cost:.4f}"
    gap = best.cost - chosen.cost
    if abs(gap) < _SAME:
        return f": as cheap as {cpus_named(best.cpus)}, and first in turn"
    if gap < 0 and decision.recomputed:
        return f": {cpus_named(best.cpus)} would be {-gap:.4f} cheaper now"
    if gap < 0:
        return f": {cpus_named(best.cpus)} would be {-gap:.4f} cheaper, which is not worth a change"
    return f": {gap:.4f} cheaper than {cpus_named(best.cpus)}, by {_reasons(chosen, best)}"


def _chosen(decision: wire.DecisionView) -> wire.CandidateView | None:
    return next((c for c in decision.candidates if c.cpus == decision.cpus), None)


def _reasons(chosen: wire.CandidateView, other: wire.CandidateView) -> str:
    """The terms that speak for the chosen set, the weightiest first."""
    gains = {name: getattr(other, name) - getattr(chosen, name) for name in TERMS}
    speaking = sorted(
        (name for name in TERMS if gains[name] >= _SAME), key=lambda name: -gains[name]
    )
    return ", ".join(f"{TERMS[name]} ({gains[name]:.4f})" for name in speaking) or "rounding"


def _elsewhere(decision: wire.DecisionView) -> list[Elsewhere]:
    chosen = _chosen(decision)
    return [
        Elsewhere(
            other.cpus,
            None if chosen is None else round(other.cost - chosen.cost, 4),
            other.origin,
        )
        for other in decision.candidates
        if other is not chosen
    ]


def _dearer(apart: Sequence[Elsewhere]) -> str:
    words = [
        f"{cpus_named(place.cpus)} ({place.origin}) {place.more:+.4f}"
        for place in apart
        if place.more is not None
    ]
    return "; ".join(words)


def _beside(guest: wire.GuestView, found: Neighbours) -> str:
    if not guest.cpus:
        return ""
    parts = {
        "on the same CPUs": found.same_cpus,
        "on SMT siblings of its CPUs": found.smt_siblings,
        "in the same cache groups": found.cache_groups,
    }
    words = [f"{listed('VM', vmids)} {where}" for where, vmids in parts.items() if vmids]
    return "; ".join(words) or "none in its cache groups"
