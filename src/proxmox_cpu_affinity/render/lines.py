"""One line for the task log: what the hook says of a start or a stop."""

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Exclusion
from proxmox_cpu_affinity.model.placement import Confined, Outcome, Placement
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.reconcile.state import Tracked
from proxmox_cpu_affinity.render.words import counted

_EXCLUDED = {
    Exclusion.TEMPLATE: "it is a template",
    Exclusion.AFFINITY: "`affinity:` is set in its configuration",
    Exclusion.TAG_OFF: "it has the tag cpu-affinity-off",
    Exclusion.NOT_CHOSEN: "PCA_MANAGE does not choose it",
}


def excluded(reason: Exclusion) -> str:
    """Why a guest is not managed."""
    return _EXCLUDED[reason]


def where(topology: Topology, cpus: CpuSet) -> str:
    """`CPUs 2-3 (cache group 0, node 0)`; long lists of groups are counted instead."""
    groups = [str(group) for group in topology.cache_groups_of(cpus)]
    nodes = [str(node) for node in topology.nodes_of(cpus)]
    return f"{named(cpus)} ({_some('cache group', groups)}, {_some('node', nodes)})"


def reserved(topology: Topology, placement: Placement, width: str = "") -> str:
    """What a guest will have; `width` says why as much (engine.report)."""
    return f"{where(topology, placement.home)} reserved{_warned(placement)}{_more(width)}"


def running(topology: Topology, tracked: Tracked, width: str = "") -> str:
    """What a guest was given, by what was read back; `width` as in reserved."""
    placement, confined = tracked.placement, tracked.confined
    if confined is None:
        return f"{where(topology, placement.home)} chosen, not confirmed yet"
    place = where(topology, confined.wanted)
    match confined.outcome:
        case Outcome.FULL:
            back = f"{counted(confined.threads, 'thread')} read back"
            return f"runs on {place}: {back}{_warned(placement)}{_more(width)}"
        case Outcome.PART:
            good = confined.threads - len(confined.faults)
            first = confined.faults[0]
            return (
                f"{good} of {counted(confined.threads, 'thread')} are on {place}; "
                f"{first.name or first.tid}: {first.reason}{_warned(placement)}"
            )
        case Outcome.FAILED:
            reason = confined.faults[0].reason if confined.faults else "no thread was found"
            return f"not confined to {place}: {reason}"


def freed(confined: Confined) -> str:
    """What letting a guest go came to, by what was read back."""
    if confined.outcome is Outcome.FULL:
        return f"let go, {counted(confined.threads, 'thread')} read back"
    reason = confined.faults[0].reason if confined.faults else "no thread was found"
    done = "let go in part only" if confined.outcome is Outcome.PART else "not let go"
    return f"{done}: {reason}"


def _more(text: str) -> str:
    return f"; {text}" if text else ""


def _warned(placement: Placement) -> str:
    return "".join(f"; {warning}" for warning in placement.warnings)


def _some(word: str, names: list[str]) -> str:
    if len(names) > 4:
        return f"{len(names)} {word}s"
    return f"{word}{'' if len(names) == 1 else 's'} {', '.join(names)}"
