"""`hookscript`: which guests call the service at their start; switched on and off by `qm set`."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.command import (
    VMID,
    Command,
    Group,
    Session,
    as_json,
    exit_status,
    quiet,
)
from proxmox_cpu_affinity.cli.switch import Change, Did, Hookscripts, failed
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve.storage import hook_volume

COLUMNS = ("VMID", "Hook-Status", "Notes")

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
    """The guests of this node, and whether our hookscript is theirs.

    Skipped are guests that the HA manager holds, and those with `affinity:` in their configuration.
    """
    scripts = Hookscripts(session.tree)
    _show(scripts, scripts.guests, as_json=as_json)
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
    _show(scripts, [scripts.guest(vmid)], as_json=as_json)


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
    configuration, and, without --force, for those that have another hookscript.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    config = scripts.guest(vmid)
    scripts.refuse(config, force=force)
    _check_storage(scripts, storage, force=force)
    change = scripts.enable(config, hook_volume(storage), force=force)
    return _report([change], as_json=as_json)


@hookscript.command(examples=("hookscript disable 100",))
@click.argument("vmid", type=VMID)
@dry_run
@as_json
@click.pass_obj
def disable(session: Session, /, *, vmid: Vmid, dry_run: bool, as_json: bool) -> int:
    """Take our hookscript from a guest; another's stays."""
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    return _report([scripts.disable(scripts.guest(vmid))], as_json=as_json)


@hookscript.command("enable-all", examples=("hookscript enable-all", "hookscript enable-all nfs"))
@storage
@dry_run
@force
@as_json
@click.pass_obj
def enable_all(
    session: Session, /, *, storage: str, dry_run: bool, force: bool, as_json: bool
) -> int:
    """Give every guest of this node our hookscript, from STORAGE (default: local).

    Skips guests that the HA manager holds, templates, guests with `affinity:` in their
    configuration, and, without --force, those that have another hookscript. Exit status 3 if only
    a part could be done.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    _check_storage(scripts, storage, force=force)
    volume = hook_volume(storage)
    return _for_all(scripts, lambda c: scripts.enable(c, volume, force=force), as_json=as_json)


@hookscript.command("disable-all", examples=("hookscript disable-all",))
@dry_run
@as_json
@click.pass_obj
def disable_all(session: Session, /, *, dry_run: bool, as_json: bool) -> int:
    """Take our hookscript from every guest of this node; others' stay.

    Exit status 3 if only a part could be done.
    """
    scripts = Hookscripts(session.tree, dry_run=dry_run)
    return _for_all(scripts, scripts.disable, as_json=as_json)


def state(scripts: Hookscripts, config: GuestConfig) -> tuple[str, str]:
    """Hook-Status and notes of a guest."""
    obstacles = scripts.obstacles(config)
    notes = ", ".join(obstacle.note for obstacle in obstacles)
    if any(obstacle.skips for obstacle in obstacles):
        return "Skipped", notes
    return ("Enabled" if config.has_hook else "Disabled"), notes


def _show(scripts: Hookscripts, guests: Sequence[GuestConfig], *, as_json: bool) -> None:
    rows = [(config.vmid, *state(scripts, config)) for config in guests]
    if as_json:
        names = ("vmid", "status", "notes")
        ui.document([dict(zip(names, row, strict=True)) for row in rows])
    else:
        ui.table(COLUMNS, rows)


def _check_storage(scripts: Hookscripts, storage: str, *, force: bool) -> None:
    for warning in scripts.check_storage(storage, force=force):
        ui.warn(warning)


def _for_all(
    scripts: Hookscripts, change: Callable[[GuestConfig], Change], *, as_json: bool
) -> int:
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
    return _report([*changes, *unread], as_json=as_json)


def _report(changes: Sequence[Change], *, as_json: bool) -> int:
    """One line a guest, failures as errors."""
    if as_json:
        ui.document([{"vmid": c.vmid, "status": c.did, "notes": c.text} for c in changes])
    for change in changes:
        if change.remark:
            ui.warn(change.remark)
        if change.did is Did.FAILED:
            ui.error(change.text)
        elif not as_json:
            ui.result(change.text)
    bad = sum(change.did is Did.FAILED for change in changes)
    skipped = sum(change.did is Did.SKIPPED for change in changes)
    return exit_status(good=len(changes) - bad - skipped, bad=bad)
