"""Several guests one after another, as they would be placed if they started in this order."""

from collections.abc import Sequence
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


def plan(host: Host, occupancy: Occupancy, turn: Turn, requests: Sequence[Request]) -> Plan:
    """Place the requests in turn beside what stands. Nothing is changed."""
    decisions: list[Decision] = []
    refused: list[tuple[Vmid, str]] = []
    asked = {request.vmid: request.vcpus for request in requests}
    standing = sum(len(p.order) for p in occupancy.placements if p.vmid not in asked)
    here = replace(
        occupancy, configured_vcpus=max(occupancy.configured_vcpus, standing + sum(asked.values()))
    )
    for request in requests:
        try:
            decision, turn = place(host, here, turn, request)
        except UnplaceableError as error:
            refused.append((request.vmid, error.text))
            continue
        decisions.append(decision)
        others = here.without(request.vmid).placements
        here = replace(here, placements=(*others, decision.placement))
    return Plan(tuple(decisions), tuple(refused))
