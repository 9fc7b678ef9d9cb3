"""`reassign`: place running guests anew, or let them go; the service does it."""

from collections.abc import Sequence
from pathlib import Path

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.answers import read, read_list
from proxmox_cpu_affinity.cli.client import LONG, Client, client_of
from proxmox_cpu_affinity.cli.command import (
    VMID,
    Command,
    Session,
    as_json,
    exit_status,
    require_pve,
    socket,
)
from proxmox_cpu_affinity.formats import jsonvalue, wire, wire_bodies
from proxmox_cpu_affinity.model.errors import UsageError
from proxmox_cpu_affinity.model.guest import Exclusion
from proxmox_cpu_affinity.model.ids import Vmid

COLUMNS = ("VMID", "Status", "Notes", "CPUs", "Changed")
NOT_ENABLED = "proxmox-cpu-affinity hook not enabled"


@click.command(
    cls=Command,
    examples=("reassign 100", "reassign --all --dry-run", "reassign 100 --undo"),
)
@click.argument("vmid", type=VMID, required=False)
@click.option("--all", "everyone", is_flag=True, help="All running guests.")
@click.option("--undo", is_flag=True, help="Let them go until their next start or reassign.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@as_json
@socket
@click.pass_obj
def reassign(
    session: Session,
    /,
    *,
    vmid: Vmid | None,
    everyone: bool,
    undo: bool,
    dry_run: bool,
    as_json: bool,
    socket: Path | None,
) -> int:
    """Give running guests their CPUs anew, or let them go.

    CPUs are those chosen for a guest, Changed the ones it had before, if they were others; what it
    may use beyond them while guests share CPUs is said by ps and explain.
    Guests that are not managed or do not run are skipped, which is no failure. Exit status 1 if
    every guest that was not skipped failed, 3 if only some did, else 0.
    """
    if (vmid is None) is not everyone:
        raise UsageError("give either a VMID or --all", hint="see: reassign --help")
    if not undo:  # letting go needs nothing of PVE's
        require_pve(session)
    client = client_of(session, socket)
    if dry_run:
        rows = foreseen(_guests(client, vmid), undo=undo)
    elif vmid is None:
        rows = _all(client, undo=undo)
    else:
        body = wire_bodies.ReassignBody(undo)
        answer = client.post("reassign_guest", body, vmid=vmid, timeout=LONG)
        rows = [read(wire.ReassignRow, answer)]
    if as_json:
        ui.document(jsonvalue.plain(rows))
    else:
        ui.table(COLUMNS, map(_cells, rows))
    statuses = [row.status for row in rows]
    return exit_status(good=statuses.count("success"), bad=statuses.count("failed"))


def _cells(row: wire.ReassignRow) -> ui.Row:
    return (row.vmid, row.status, row.notes, row.cpus or "-", _change(row))


def _change(row: wire.ReassignRow) -> str:
    """Whether a guest has other CPUs than before; nothing where nothing was done."""
    if row.changed:
        return f"from {row.before}" if row.before else "had none"
    return "no" if row.status == "success" else "-"


def foreseen(guests: Sequence[wire.GuestView], *, undo: bool) -> list[wire.ReassignRow]:
    """What reassigning these guests would come to."""
    would = "would let go" if undo else "would reassign"
    return [
        wire.ReassignRow(guest.vmid, "skipped", note, guest.cpus, guest.cpus)
        if (note := _why_not(guest, undo=undo))
        else wire.ReassignRow(guest.vmid, "dry-run", would, guest.cpus, guest.cpus)
        for guest in guests
    ]


def _why_not(guest: wire.GuestView, *, undo: bool) -> str:
    """Why a guest is skipped; empty if it is not."""
    if undo:
        return "" if guest.running and guest.cpus else "nothing to undo"
    if not guest.managed:
        return NOT_ENABLED if guest.reason_code == Exclusion.NOT_CHOSEN else guest.reason
    return "" if guest.running else "VM is not running"


def _guests(client: Client, vmid: Vmid | None) -> list[wire.GuestView]:
    """The guest asked for, or all running ones."""
    if vmid is not None:
        return [read(wire.GuestView, client.get("guest", vmid=vmid))]
    return [g for g in read_list(wire.GuestView, client.get("guests")) if g.running]


def _all(client: Client, *, undo: bool) -> list[wire.ReassignRow]:
    """All running guests; those that the service has nothing to do with are named too."""
    answer = client.post("reassign_all", wire_bodies.ReassignBody(undo), timeout=LONG)
    done = {row.vmid: row for row in read_list(wire.ReassignRow, answer)}
    rest = [guest for guest in _guests(client, None) if guest.vmid not in done]
    left = [row for row in foreseen(rest, undo=undo) if row.status == "skipped"]
    return sorted([*done.values(), *left], key=lambda row: row.vmid)
