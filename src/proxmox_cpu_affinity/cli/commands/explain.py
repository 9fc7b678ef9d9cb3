"""`explain`: why a guest is on its CPUs, and what it would cost elsewhere; the service is asked."""

from pathlib import Path

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.answers import read, read_list
from proxmox_cpu_affinity.cli.client import Client, client_of
from proxmox_cpu_affinity.cli.command import VMID, Command, Session, as_json, socket
from proxmox_cpu_affinity.cli.explaining import TERMS, Explanation, explanation
from proxmox_cpu_affinity.formats import jsonvalue, wire
from proxmox_cpu_affinity.linux.memory import memory_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.ids import Pid, Vmid

COLUMNS = ("CPUs", "Cost", *(name.capitalize() for name in TERMS), "Found", "Chosen")


@click.command(cls=Command, examples=("explain 100", "explain 100 --json"))
@click.argument("vmid", type=VMID)
@as_json
@socket
@click.pass_obj
def explain(session: Session, /, *, vmid: Vmid, as_json: bool, socket: Path | None) -> None:
    """Say why a guest is on its CPUs, and what others would cost.

    Costs are shares of one vCPU's time (0.25 is 25 %), lower is better: contention of other guests
    on the same CPUs, smt on SMT siblings, latency between its CPUs, kind of core, spread over
    loaded cache groups.
    """
    found = explained(client_of(session, socket), vmid, session.tree)
    if as_json:
        ui.document(as_document(found))
        return
    name = f" ({found.guest.name})" if found.guest.name else ""
    ui.result(f"VM {vmid}{name}")
    ui.pairs(found.words)
    if found.decision is not None and found.decision.candidates:
        when = ", priced now" if found.decision.recomputed else ""
        ui.heading(f"Candidates, cheapest first{when} (shares of one vCPU's time):")
        ui.table(COLUMNS, [_row(found.decision, c) for c in found.decision.candidates])


def explained(client: Client, vmid: Vmid, tree: Tree) -> Explanation:
    """Ask the service for all that concerns a guest, the kernel for its memory. Errors as of
    Client.get."""
    guest = read(wire.GuestView, client.get("guest", vmid=vmid))
    return explanation(
        vmid,
        guest=guest,
        memory={} if guest.pid is None else memory_of(tree, Pid(guest.pid)),
        guests=read_list(wire.GuestView, client.get("guests")),
        decisions=read_list(wire.DecisionView, client.get("decisions", query={"vmid": str(vmid)})),
        topology=read(wire.TopologyView, client.get("topology")),
    )


def as_document(found: Explanation) -> dict[str, object]:
    """The explanation as JSON: guest and decision as the API has them."""
    return {
        "guest": jsonvalue.plain(found.guest),
        "decision": jsonvalue.plain(found.decision),
        "neighbours": jsonvalue.plain(found.neighbours),
        "elsewhere": jsonvalue.plain(found.elsewhere),
        "words": dict(found.words),
    }


def _row(decision: wire.DecisionView, candidate: wire.CandidateView) -> ui.Row:
    return (
        candidate.cpus,
        f"{candidate.cost:.4f}",
        *(f"{getattr(candidate, name):.4f}" for name in TERMS),
        candidate.origin,
        "*" if candidate.cpus == decision.cpus else "",
    )
