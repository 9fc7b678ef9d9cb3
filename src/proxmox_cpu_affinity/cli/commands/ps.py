"""`ps`: the running guests, straight from PVE's files and /proc. The service is asked for nothing
but how a guest is held (-v), and need not run."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import VMID, Command, Session, as_json, quiet, require_pve
from proxmox_cpu_affinity.cli.configured import manage_here
from proxmox_cpu_affinity.cli.words import HELD_SINCE, managed, managed_cell
from proxmox_cpu_affinity.linux.threads import affinity_of, children_of, stat_of, threads_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    GuestNotFoundError,
    NotPveHostError,
    RefusedError,
)
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Manage, Thread
from proxmox_cpu_affinity.model.ids import Pid, Tid, Vmid
from proxmox_cpu_affinity.pve.guests import NodeGuests

if TYPE_CHECKING:  # only -v asks the service
    from proxmox_cpu_affinity.formats import wire

COLUMNS = ("VMID", "PID", "Cores", "Sockets", "NUMA", "Hook-Status", "Affinity", "Managed")
NOT_RUNNING = "VM is not running (PID file not found)"


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest as it runs; `error` says what could not be found, threads only if asked for."""

    vmid: Vmid
    config: GuestConfig | None = None  # None: it could not be read
    pid: Pid | None = None
    affinity: CpuSet = EMPTY
    threads: tuple[Thread, ...] = ()
    children: tuple[Thread, ...] = ()
    error: str = ""
    known: "wire.GuestView | None" = None  # what the service says of it, where it was asked


@click.command(cls=Command, examples=("ps", "ps 100 -v", "ps --json -v"))
@click.argument("vmid", type=VMID, required=False)
@click.option("-v", "--verbose", is_flag=True, help="Threads and child processes too.")
@as_json
@quiet
@click.pass_obj
def ps(
    session: Session, /, *, vmid: Vmid | None, verbose: bool, as_json: bool, quiet: bool
) -> None:
    """List running guests and the CPUs they may use.

    Hook-Status says whether the guest has our hookscript; Affinity is what the kernel says of the
    guest's main thread. Managed says what makes the guest ours: its hookscript (hook), its tag,
    PCA_MANAGE=all; or why not.
    """
    guests = running(session.tree, vmid, verbose=verbose)
    if not guests:
        require_pve(session)
    manage = manage_here(session.tree, quiet=quiet)
    if verbose:
        known = _known(session)
        guests = [replace(guest, known=known.get(guest.vmid)) for guest in guests]
    if as_json:
        ui.document([as_document(guest, manage, verbose=verbose) for guest in guests])
    else:
        ui.table(COLUMNS, [_row(guest, manage) for guest in guests])
        if verbose:
            _show_threads(guests)
    if not quiet:
        _remark(guests)


def running(tree: Tree, vmid: Vmid | None, *, verbose: bool) -> list[Guest]:
    """All running guests by VMID, or the one asked for, running or not: who runs is shown even
    where /etc/pve is not there. GuestNotFoundError, NotPveHostError; RefusedError of one that does
    not run and whose configuration cannot be read."""
    node = NodeGuests(tree)
    if vmid is None:
        processes = sorted(node.processes().values(), key=lambda process: process.vmid)
        return [_running(tree, node, process, verbose=verbose) for process in processes]
    process = node.process(vmid)
    if process is not None:
        return [_running(tree, node, process, verbose=verbose)]
    config = node.config(vmid)
    stale = tree.text(f"run/qemu-server/{vmid}.pid") is not None
    error = "VM is not running (PID file names no process of it)" if stale else NOT_RUNNING
    return [Guest(vmid, config, error=error)]


def _running(tree: Tree, node: NodeGuests, process: GuestProcess, *, verbose: bool) -> Guest:
    config, error = None, ""
    try:
        config = node.config(process.vmid)
    except GuestNotFoundError:
        error = "its configuration is not found"
    except RefusedError:
        error = "its configuration cannot be read"
    except NotPveHostError:
        error = "its configuration cannot be read: /etc/pve is missing or not mounted"
    return Guest(
        process.vmid,
        config,
        process.pid,
        affinity_of(Tid(process.pid)) or EMPTY,
        threads_of(tree, process.pid) if verbose else (),
        _children(tree, process.pid) if verbose else (),
        error,
    )


def _known(session: Session) -> "dict[int, wire.GuestView]":
    """What the service alone knows: since when guests were on their CPUs, and why they may use what
    they use. It need not run."""
    from proxmox_cpu_affinity.cli.answers import read_list
    from proxmox_cpu_affinity.cli.client import client_of
    from proxmox_cpu_affinity.formats import wire

    try:
        guests = read_list(wire.GuestView, client_of(session, None).get("guests"))
    except AffinityError:
        return {}
    return {guest.vmid: guest for guest in guests}


def _children(tree: Tree, pid: Pid) -> tuple[Thread, ...]:
    """The child processes, each as its main thread."""
    found = []
    for child in children_of(tree, pid):
        seen = stat_of(tree, child)
        if seen is not None:
            mask = affinity_of(Tid(child)) or EMPTY
            found.append(Thread(Tid(child), seen.comm, mask, seen.last_cpu))
    return tuple(found)


def as_document(guest: Guest, manage: Manage | None, *, verbose: bool) -> dict[str, object]:
    """The guest as JSON; numbers of threads are texts. What is empty is left out, and of a
    configuration that cannot be read nothing is made up."""
    config, known = guest.config, guest.known
    fields: dict[str, object] = {"vmid": guest.vmid}
    if guest.pid is not None:
        fields["pid"] = guest.pid
    fields["hook_status"] = "Unknown" if config is None else hook_status(config)
    fields["cores"] = None if config is None else config.cores
    fields["sockets"] = None if config is None else config.sockets
    fields["numa"] = None if config is None else config.numa
    if guest.affinity:
        fields["affinity"] = str(guest.affinity)
    if verbose and guest.pid is not None:
        fields["threads"] = [{"tid": str(t.tid), **_seen(t)} for t in guest.threads]
        fields["children"] = [{"pid": str(t.tid), **_seen(t)} for t in guest.children]
    if guest.error:
        fields["error"] = guest.error
    fields["managed_by"], fields["reason_code"] = managed(config, manage)
    if known is not None:
        more = ("held_since", "width", "width_why", "refused")
        fields.update({name: text for name in more if (text := getattr(known, name))})
        if released := _released(known):
            fields["released"] = released
    return fields


def _seen(thread: Thread) -> dict[str, str]:
    return {
        "psr": _last_cpu(thread),
        "command": thread.name,
        "affinity": str(thread.affinity),
    }


def _last_cpu(thread: Thread) -> str:
    return "" if thread.last_cpu is None else str(thread.last_cpu)


def hook_status(config: GuestConfig) -> str:
    return "Enabled" if config.has_hook else "Disabled"


def _row(guest: Guest, manage: Manage | None) -> ui.Row:
    config = guest.config
    shape: ui.Row = ("-", "-", "-", "-")
    if config is not None:
        shape = (config.cores, config.sockets, int(config.numa), hook_status(config))
    managed_by = managed_cell(config, manage)
    return (guest.vmid, guest.pid or "-", *shape, guest.affinity or "-", managed_by)


def _show_threads(guests: list[Guest]) -> None:
    for guest in guests:
        if guest.threads:
            ui.heading(f"Threads of VM {guest.vmid}{_held(guest.known)}:")
            ui.table(("TID", "CPU", "Affinity", "Name"), map(_thread_row, guest.threads))
        if guest.children:
            ui.heading(f"Child processes of VM {guest.vmid}:")
            ui.table(("PID", "CPU", "Affinity", "Name"), map(_thread_row, guest.children))


def _held(known: "wire.GuestView | None") -> str:
    """Since when it is on its CPUs and why it may use these, or why it is on none of ours."""
    if known is None:
        return ""
    since = HELD_SINCE.get(known.held_since)
    held = f", on its CPUs {since}" if since else ""
    refused = f"not placed: {known.refused}" if known.refused else ""
    why = refused or _released(known) or known.width_why
    return f"{held} ({why})" if why else held


def _released(known: "wire.GuestView") -> str:
    """How a guest was let go by hand; empty for one that was not."""
    from proxmox_cpu_affinity.formats.wire import RELEASED

    return known.reason if known.reason_code == RELEASED else ""


def _thread_row(thread: Thread) -> ui.Row:
    return (thread.tid, _last_cpu(thread) or "-", thread.affinity, thread.name)


def _remark(guests: list[Guest]) -> None:
    """What the table has no column for."""
    for guest in guests:
        if guest.error:
            ui.talk(f"VM {guest.vmid}: {guest.error}")
    if not guests:
        ui.talk("no guest is running")
