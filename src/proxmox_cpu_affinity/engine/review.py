"""A place that a guest has already, priced anew: of what was decided long ago, nobody knows the
candidates any more. Nothing is chosen here."""

from proxmox_cpu_affinity.engine import candidates
from proxmox_cpu_affinity.engine.facts import Host, Ints, Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import load_of
from proxmox_cpu_affinity.engine.place import SHOWN, board, place
from proxmox_cpu_affinity.engine.policy import Admission
from proxmox_cpu_affinity.engine.trace import Candidate, Decision
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.placement import Placement

BEFORE = "decided, or found so, before the service was started"
REASON = f"{BEFORE}; priced now, beside the guests that are there now"
NO_CHOICE = f"{BEFORE}; there is no other place to choose now"


def reviewed(
    host: Host, occupancy: Occupancy, turn: Turn, placement: Placement, request: Request
) -> Decision:
    """What its place costs beside the others, and what the places would that it might be given
    now. Without candidates where there is nothing to choose from. Costs as much as a decision."""
    others = occupancy.without(placement.vmid)
    try:
        shown = place(host, others, turn, request)[0].candidates
    except UnplaceableError:
        shown = ()
    if all(candidate.home != placement.home for candidate in shown):
        own = _own(host, others, turn, placement, request)
        least = sorted(shown, key=lambda one: one.terms.total)[: SHOWN - len(own)]
        shown = tuple(sorted((*own, *least), key=lambda one: one.terms.total)) if shown else ()
    return Decision(placement, shown, REASON if shown else NO_CHOICE)


def _own(
    host: Host, others: Occupancy, turn: Turn, placement: Placement, request: Request
) -> list[Candidate]:
    """Its own place as a candidate; none of a guest whose vCPUs share its CPUs."""
    members: Ints = host.indexes(placement.home)
    if len(members) != len(placement.order) or len(members) != request.vcpus:
        return []
    load = load_of(host, others)
    policy = Policy.DEDICATED if placement.exclusive else request.policy
    may_use = host.is_usable.copy()
    may_use[members] = True
    here = board(host, load, others.configured_vcpus, turn, request, Admission(may_use, policy))
    cost = candidates.cost(here, members)
    (terms,) = candidates.terms(here, members[None, :], [cost])
    return [Candidate(placement.home, terms, "its place")]
