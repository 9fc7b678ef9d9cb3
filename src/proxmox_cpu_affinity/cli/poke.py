"""Tells the service at once of guests whose hookscript was switched, and says what became of them.

Only guests that run matter: the others are placed, or not, when they start. Without the service
nothing is lost, since it looks for itself when it runs again: that is said, and is no failure.
Out of scope: switching (switch), printing (commands.hookscript).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from proxmox_cpu_affinity.cli.answers import read
from proxmox_cpu_affinity.cli.client import LONG, Client
from proxmox_cpu_affinity.cli.switch import Change, Did
from proxmox_cpu_affinity.cli.words import MANAGED_BY, cpus_named, listed
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import AffinityError, ForbiddenError, ServiceDownError
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve.guests import NodeGuests


@dataclass(frozen=True, slots=True)
class Became:
    """What became of one running guest; `bad`: it is not where it should be."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Poked:
    """Running guests by VMID; `trouble` says for which ones the service could not be asked."""

    became: dict[Vmid, Became]
    trouble: str = ""


def poke(tree: Tree, client: Client, changes: Iterable[Change]) -> Poked:
    """Have the service look at every guest that was switched and runs. What it cannot do for one
    keeps none of the others from it; where it does not answer, no other is asked for."""
    node = NodeGuests(tree)
    switched = [c.vmid for c in changes if c.did in (Did.ENABLED, Did.DISABLED)]
    running = [vmid for vmid in switched if node.process(vmid) is not None]
    became: dict[Vmid, Became] = {}
    for place, vmid in enumerate(running):
        try:
            became[vmid] = _looked_at(client, vmid)
        except (ServiceDownError, ForbiddenError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            rest = listed("VM", running[place:])
            text = f"{rest}: as before until the service looks: {error.text}{hint}"
            return Poked(became, text)
        except AffinityError as error:
            became[vmid] = Became(error.text, bad=True)
    return Poked(became)


def _looked_at(client: Client, vmid: Vmid) -> Became:
    guest = read(wire.GuestView, client.get("guest", vmid=vmid))
    if guest.managed and guest.cpus and guest.outcome == "full":
        by = MANAGED_BY.get(guest.managed_by, guest.managed_by)
        return Became(f"stays on {cpus_named(guest.cpus)}, managed by {by}")
    if not guest.managed and not guest.cpus:
        return Became(f"on no CPUs of ours: {guest.reason}")
    row = read(wire.ReassignRow, client.post("reassign_guest", {}, vmid=vmid, timeout=LONG))
    return Became(row.told or row.notes, bad=row.status == "failed")
