"""Several guests one after another, as they would be placed if they started in this order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Turn
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid


@dataclass(frozen=True, slots=True)
class Plan:
    """Decisions in the order of the requests, and why some guests got none."""

    decisions: tuple[Decision, ...]
    refused: tuple[tuple[Vmid, str], ...]


Step = Decision | tuple[Vmid, str]
"""What became of one guest: its decision, or why there is none."""


def plan(host: Host, occupancy: Occupancy, turn: Turn, requests: Sequence[Request]) -> Plan:
    """Place the requests in turn beside what stands. Nothing is changed."""
    return summed(steps(host, occupancy, turn, requests))


def summed(steps: Iterable[Step]) -> Plan:
    """All steps as one plan."""
    found = list(steps)
    return Plan(
        tuple(step for step in found if isinstance(step, Decision)),
        tuple(step for step in found if not isinstance(step, Decision)),
    )


def steps(
    host: Host, occupancy: Occupancy, turn: Turn, requests: Sequence[Request]
) -> Iterator[Step]:
    """As plan, one guest at a time, for those who have something else to do in between."""
    asked = {request.vmid: request.vcpus for request in requests}
    standing = sum(len(p.order) for p in occupancy.placements if p.vmid not in asked)
    here = replace(
        occupancy, configured_vcpus=max(occupancy.configured_vcpus, standing + sum(asked.values()))
    )
    for request in requests:
        try:
            decision, turn = place(host, here, turn, request)
        except UnplaceableError as error:
            yield request.vmid, error.text
            continue
        yield decision
        others = here.without(request.vmid).placements
        here = replace(here, placements=(*others, decision.placement))
