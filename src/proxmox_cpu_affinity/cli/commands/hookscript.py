"""`hookscript`: which guests call the service at their start; switched on and off by `qm set`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import (
    DONE,
    VMID,
    Command,
    Group,
    Session,
    as_json,
    exit_status,
    quiet,
)
from proxmox_cpu_affinity.cli.configured import manage_here
from proxmox_cpu_affinity.cli.switch import Change, Did, Hookscripts, failed
from proxmox_cpu_affinity.cli.words import managed, managed_cell
from proxmox_cpu_affinity.model.errors import AffinityError, RefusedError
from proxmox_cpu_affinity.model.guest import GuestConfig, Manage
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve import hookfile
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.pve.storage import hook_volume

if TYPE_CHECKING:  # only what switches tells the service
    from proxmox_cpu_affinity.cli.poke import Became

COLUMNS = ("VMID", "Hook-Status", "Notes", "Managed")

dry_run = click.option("--dry-run", is_flag=True, help="Print the command, and run nothing.")
force = click.option(
    "--force", is_flag=True, help="Override the storage check, and replace another's hookscript."
)
storage = click.argument("storage", default="local")


class _PveCommand(Command):
    """All of them need a Proxmox VE node."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, needs_pve=True, **kwargs)


class _PveGroup(Group):
    command_class = _PveCommand


@click.group(
    cls=_PveGroup,
    examples=("hookscript list", "hookscript enable 100", "hookscript disable-all --dry-run"),
)
def hookscript() -> None:
    """Look at guests' hookscripts, switch ours on and off."""


@hookscript.command("list", examples=("hookscript list", "hookscript list --json"))
@as_json
@quiet
@click.pass_obj
def list_(session: Session, /, *, as_json: bool, quiet: bool) -> None:
    """The guests of this node, and who has our hookscript.

    Skipped are guests that the HA manager holds, and those with `affinity:` in their configuration.
    Managed says what makes a guest ours: its hookscript (hook), its tag, PCA_MANAGE=all; or why
    not.
    """
    scripts = Hookscripts(session.tree)
    _show(scripts, scripts.guests, manage_here(session.tree, quiet=quiet), as_json=as_json)
    if not quiet:
        for vmid in scripts.unreadable:
            ui.warn(f"VM {vmid}: its configuration cannot be read")


@hookscript.command(examples=("hookscript status 100",))
@click.argument("vmid", type=VMID)
@as_json
@click.pass_obj
def status(session: Session, /, *, vmid: Vmid, as_json: bool) -> None:
    """One guest, as in the list."""
    scripts = Hookscripts(session.tree)
    _show(scripts, [scripts.guest(vmid)], manage_here(session.tree), as_json=as_json)


@hookscript.command(examples=("hookscript enable 100", "hookscript enable 100 shared --dry-run"))
@click.argument("vmid", type=VMID)
@storage
@dry_run
@force
@as_json
@click.pass_obj
def enable(
    session: Session, /, *, vmid: Vmid, storage: str, dry_run: bool, force: bool, as_json: bool
) -> int:
    """Give a guest our hookscript, from STORAGE (default: local).

    Refused for guests that the HA manager holds, templates, guests with `affinity:` in their
    configuration, and, without --force, for those that have another hookscript. A guest that runs
    is given its CPUs at once, if the service runs; exit status 3 if it has none for it.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    config = scripts.guest(vmid)
    scripts.refuse(config, force=force)
    _check_storage(scripts, storage, force=force)
    change = scripts.enable(config, hook_volume(storage), force=force)
    status = _report(session, [change], as_json=as_json)
    _tell_elsewhere(scripts, storage, [change])
    return status


@hookscript.command(examples=("hookscript disable 100",))
@click.argument("vmid", type=VMID)
@dry_run
@as_json
@click.pass_obj
def disable(session: Session, /, *, vmid: Vmid, dry_run: bool, as_json: bool) -> int:
    """Take our hookscript from a guest; another's stays.

    A guest that runs is let go at once, if the service runs.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    return _report(session, [scripts.disable(scripts.guest(vmid))], as_json=as_json)


@hookscript.command("enable-all", examples=("hookscript enable-all", "hookscript enable-all nfs"))
@storage
@dry_run
@force
@as_json
@click.pass_obj
def enable_all(
    session: Session, /, *, storage: str, dry_run: bool, force: bool, as_json: bool
) -> int:
    """Give all guests of this node our hookscript.

    From STORAGE (default: local). Skips guests that the HA manager holds, templates, guests with
    `affinity:` in their configuration, and, without --force, those that have another hookscript.
    Guests that run are given their CPUs at once, if the service runs. Exit status 3 if only a part
    could be done.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    _check_storage(scripts, storage, force=force)
    volume = hook_volume(storage)
    changes = _for_all(scripts, lambda c: scripts.enable(c, volume, force=force))
    status = _report(session, changes, as_json=as_json)
    _tell_elsewhere(scripts, storage, changes)
    return status


@hookscript.command("disable-all", examples=("hookscript disable-all",))
@dry_run
@as_json
@click.pass_obj
def disable_all(session: Session, /, *, dry_run: bool, as_json: bool) -> int:
    """Take our hookscript from all guests of this node.

    Another's stays, and snapshots keep their line. Guests that run are let go at once, if the
    service runs. Exit status 3 if only a part could be done.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    return _report(session, _for_all(scripts, scripts.disable), as_json=as_json)


@hookscript.command(examples=("hookscript install nfs", "hookscript install local --dry-run"))
@click.argument("storage")
@dry_run
@click.option(
    "--force", is_flag=True, help="Even if the storage is disabled, or is not for this node."
)
@as_json
@click.pass_obj
def install(session: Session, /, *, storage: str, dry_run: bool, force: bool, as_json: bool) -> int:
    """Put the hookscript's file on a storage, for guests to have.

    A link on a directory of this node alone; a copy, replaced in one step, where other nodes read
    it too.
    """
    tree = session.tree
    node = NodeGuests(tree).node
    place = hookfile.place_on(tree, storage)
    faults, warnings = hookfile.check_place(tree, storage, node=node)
    if faults and not force:
        raise RefusedError("; ".join(faults), hint="--force installs it all the same")
    for text in (*warnings, *(f"overridden by --force: {fault}" for fault in faults)):
        ui.warn(text)
    how = "link" if place.link else "copy"
    if hookfile.in_place(tree, place):
        status, text = "unchanged", f"{place.path}: the hookscript is there, nothing to do"
    elif dry_run:
        status, text = "dry-run", f"[DryRun] Would make a {how} at {place.path}: {place.why}"
    else:
        hookfile.put(tree, storage, node=node)
        status, text = "installed", f"{place.path}: a {how}, since {place.why}"
    if as_json:
        ui.document({"volume": place.volume, "status": status, "how": how, "notes": text})
    else:
        ui.result(text)
    return DONE


def state(scripts: Hookscripts, config: GuestConfig) -> tuple[str, str]:
    """Hook-Status and notes of a guest."""
    obstacles = scripts.obstacles(config)
    notes = ", ".join(obstacle.note for obstacle in obstacles)
    if any(obstacle.skips for obstacle in obstacles):
        return "Skipped", notes
    return ("Enabled" if config.has_hook else "Disabled"), notes


def _show(
    scripts: Hookscripts, guests: Sequence[GuestConfig], manage: Manage | None, *, as_json: bool
) -> None:
    if not as_json:
        rows = [(c.vmid, *state(scripts, c), managed_cell(c, manage)) for c in guests]
        ui.table(COLUMNS, rows)
        return
    names = ("vmid", "status", "notes", "managed_by", "reason_code")
    values = ((c.vmid, *state(scripts, c), *managed(c, manage)) for c in guests)
    ui.document([dict(zip(names, row, strict=True)) for row in values])


def _check_storage(scripts: Hookscripts, storage: str, *, force: bool) -> None:
    for warning in scripts.check_storage(storage, force=force):
        ui.warn(warning)


def _tell_elsewhere(scripts: Hookscripts, storage: str, changes: Sequence[Change]) -> None:
    """In a cluster, what the other nodes need of a hookscript that was set here."""
    text = scripts.elsewhere(storage)
    if text and any(change.did in (Did.ENABLED, Did.DRY_RUN) for change in changes):
        ui.talk(text)


def _for_all(scripts: Hookscripts, change: Callable[[GuestConfig], Change]) -> list[Change]:
    """Change every guest; one that fails does not keep the others from it."""
    changes = []
    for config in scripts.guests:
        try:
            changes.append(change(config))
        except AffinityError as error:
            changes.append(failed(config.vmid, error))
    unread = [
        Change(vmid, Did.FAILED, f"VM {vmid}: its configuration cannot be read")
        for vmid in scripts.unreadable
    ]
    return [*changes, *unread]


def _report(session: Session, changes: Sequence[Change], *, as_json: bool) -> int:
    """One line a guest, another for what became of it where it runs; failures as errors."""
    from proxmox_cpu_affinity.cli.client import client_of
    from proxmox_cpu_affinity.cli.poke import poke

    poked = poke(session.tree, client_of(session, None), changes)
    if as_json:
        ui.document([_document(change, poked.became.get(change.vmid)) for change in changes])
    for change in changes:
        if change.remark:
            ui.warn(change.remark)
        if change.did is Did.FAILED:
            ui.error(change.text)
        elif not as_json:
            ui.result(change.text)
        if change.vmid in poked.became and not as_json:
            ui.result(f"VM {change.vmid}: {poked.became[change.vmid].text}")
    if poked.trouble:
        ui.talk(poked.trouble)
    failures = sum(change.did is Did.FAILED for change in changes)
    skipped = sum(change.did is Did.SKIPPED for change in changes)
    strays = sum(became.bad for became in poked.became.values())
    return exit_status(good=len(changes) - failures - skipped, bad=failures + strays)


def _document(change: Change, became: "Became | None") -> dict[str, object]:
    running = "" if became is None else became.text
    return {"vmid": change.vmid, "status": change.did, "notes": change.text, "running": running}
