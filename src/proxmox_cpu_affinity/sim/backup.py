"""Backups: what vzdump does with a guest while it reads the disks that a guest here does not have.

After qemu-server's VZDump/QemuServer.pm: a guest that does not run is started paused and stopped
again, a template too; mode `stop` shuts a running guest down and starts it paused; the other modes
leave it alone. Out of scope: vzdump's own hook scripts, retention, restore.
"""

import time
from collections.abc import Callable
from enum import StrEnum

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.sim import configs, inventory, lifecycle, qmp, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.lifecycle import StartOptions, StopOptions
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree

STARTED = "started backup task"
_PAUSED = StartOptions(skiplock=True, paused=True, template=True)
_SHUTDOWN_S = 600.0


class Mode(StrEnum):
    """What becomes of a running guest."""

    SNAPSHOT = "snapshot"
    SUSPEND = "suspend"
    STOP = "stop"


def run(tree: Tree, vmid: int, mode: Mode, *, reading: Callable[[], None]) -> None:
    """Back a guest up; `reading` returns when its disks are read. Fault."""
    _info(f"starting new backup job: vzdump {vmid} --mode {mode}")
    _info(f"Starting Backup of VM {vmid} (qemu)")
    try:
        _guarded(tree, vmid, mode, reading)
    except Fault as fault:
        say.warn(f"ERROR: Backup of VM {vmid} failed - {fault.text}")
        _info("Backup job finished with errors")
        raise Fault("job errors") from fault
    _info(f"Finished Backup of VM {vmid} (00:00:00)")
    _info("Backup job finished successfully")


def _guarded(tree: Tree, vmid: int, mode: Mode, reading: Callable[[], None]) -> None:
    if not configs.path_of(tree, vmid).exists():
        raise Fault(f"unable to find VM '{vmid}'")
    running = guest_pid(tree, vmid) is not None
    _info(f"status = {'running' if running else 'stopped'}")
    _lock(tree, vmid)
    try:
        _info(f"backup mode: {mode if running else Mode.STOP}")
        _info(f"VM Name: {inventory.view(tree, vmid).shown_name}")
        if running and mode is Mode.STOP:
            _info("stopping virtual guest")
            how = StopOptions(shutdown=True, timeout=_SHUTDOWN_S, skiplock=True)
            lifecycle.stop(tree, vmid, how)
        _archive(tree, vmid, reading, was_running=running)
    finally:
        _unlock(tree, vmid)


def _archive(tree: Tree, vmid: int, reading: Callable[[], None], *, was_running: bool) -> None:
    started = not guest_pid(tree, vmid)
    if started:
        _info("starting kvm to execute backup task")
        lifecycle.start(tree, vmid, _PAUSED)
    stamp = time.strftime("%Y_%m_%d-%H_%M_%S")
    archive = tree.root / f"var/lib/vz/dump/vzdump-qemu-{vmid}-{stamp}.vma"
    _info(f"creating vzdump archive '{tree.shown(archive)}'")
    archive.write_text(_text(configs.load(tree, vmid)), errors="surrogateescape")
    try:
        if started and was_running:
            _info("resuming VM again")
            qmp.ask(tree.qmp(vmid), "cont", timeout=tree.settings.qmp_timeout)
        _info(STARTED)
        reading()
    finally:
        if not was_running:
            _end(tree, vmid)


def _end(tree: Tree, vmid: int) -> None:
    """Stop the guest that only ran for this, unless somebody has started it meanwhile."""
    state = inventory.run_state(tree, inventory.view(tree, vmid))
    if state == "prelaunch":
        _info("stopping kvm after backup task")
        lifecycle.stop(tree, vmid, StopOptions(force=True, skiplock=True))
    elif state != "stopped":
        _info(f"kvm status changed after backup ('{state}') - keep VM running")


def _text(file: GuestFile) -> str:
    """The main section alone, without lock and parent."""
    main = pveconf.changed(file.main, {"lock": None, "parent": None})
    return pveconf.write(GuestFile(main))


def _lock(tree: Tree, vmid: int) -> None:
    with configs.locked(tree, vmid):
        configs.check_lock(configs.load(tree, vmid))
        configs.update(tree, vmid, {"lock": "backup"})


def _unlock(tree: Tree, vmid: int) -> None:
    with configs.locked(tree, vmid):
        if configs.load(tree, vmid).main.values.get("lock") == "backup":
            configs.update(tree, vmid, {"lock": None})


def _info(text: str) -> None:
    say.out(f"INFO: {text}")
