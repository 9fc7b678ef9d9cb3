"""Starting and stopping a guest: PVE's order of locks, checks, hooks and files.

After qemu-server's vm_start, vm_stop, vm_reboot and `qm cleanup`. Out of scope so far: migration,
snapshots with memory, hibernation, backup. There is no systemd scope around a guest here.
"""

import contextlib
import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.formats.pveschema import split_list
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim import configs, guests, hooks, pending, qmp, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import guest_pid, wait_until
from proxmox_cpu_affinity.sim.settings import PostStop
from proxmox_cpu_affinity.sim.tree import Tree

_QEMU_START_S = 30.0
_CLEANUP_LOCK_S = 60.0
_CLEANUP_WAIT_S = 30.0
_LAST_WORDS_S = 1.0  # between a monitor that breaks off and the end of its process


@dataclass(frozen=True, slots=True)
class StopOptions:
    """How a guest is to be stopped; seconds until the force, None for the usual."""

    shutdown: bool = False  # ask the guest; else end QEMU
    force: bool = False  # SIGTERM, then SIGKILL, when that does not help
    timeout: float | None = None
    skiplock: bool = False


def start(tree: Tree, vmid: int, *, skiplock: bool = False) -> None:
    """Start a guest and return when QEMU has set its machine up and post-start is done. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if file.main.values.get("template") == "1":
            raise Fault("you can't start a vm if it's a template")
        if not skiplock and file.main.values.get("lock") != "suspended":
            configs.check_lock(file)
        if guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} already running")
        _reboot_flag(tree, vmid).unlink(missing_ok=True)
        file = pending.apply(tree, vmid)
        # Perl puts an undefined value into the environment as an empty string.
        os.environ["PVE_MIGRATED_FROM"] = ""
        hooks.run(tree, vmid, file, "pre-start")
        _run_qemu(tree, vmid, file)
        if tree.settings.post_stop is PostStop.PVE9:
            _cleanup_flag(tree, vmid).touch()
        hooks.run_or_warn(tree, vmid, file, "post-start")


def stop(tree: Tree, vmid: int, options: StopOptions) -> None:
    """Stop or shut a guest down; nothing to do for one that is not running. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if not options.skiplock:
            configs.check_lock(file)
        if guest_pid(tree, vmid):
            _stop(tree, vmid, file, options)


def reboot(tree: Tree, vmid: int, *, timeout: float | None = None) -> None:
    """Shut a guest down and leave a note for `qm cleanup`, which starts it again. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        configs.check_lock(file)
        if not guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} not running")
        flag = _reboot_flag(tree, vmid)
        flag.touch()
        try:
            _stop(tree, vmid, file, StopOptions(shutdown=True, timeout=timeout))
        except Fault:
            flag.unlink(missing_ok=True)
            raise


def cleanup(tree: Tree, vmid: int, *, clean: bool, by_guest: bool) -> None:
    """What qmeventd starts when a guest's QEMU has gone. Fault."""
    if not configs.path_of(tree, vmid).exists():
        return
    if tree.settings.post_stop is PostStop.PVE9:
        wait_until(lambda: not guest_pid(tree, vmid), seconds=_CLEANUP_WAIT_S)
    with configs.locked(tree, vmid, seconds=_CLEANUP_LOCK_S):
        file = configs.load(tree, vmid)
        if guest_pid(tree, vmid):
            raise Fault("vm still running")
        if tree.settings.post_stop is PostStop.PVE9:
            _after_stop(tree, vmid, file)
        else:
            if not clean or by_guest:
                _after_stop(tree, vmid, file)
            hooks.run_or_warn(tree, vmid, file, "post-stop")
        restart = _reboot_flag(tree, vmid).exists()
        _reboot_flag(tree, vmid).unlink(missing_ok=True)
    if restart:
        start(tree, vmid)


def _stop(tree: Tree, vmid: int, file: GuestFile, options: StopOptions) -> None:
    pid = guest_pid(tree, vmid)
    if pid is None:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # gone this moment: `qm cleanup` sees to it
    try:
        hooks.run_or_warn(tree, vmid, file, "pre-stop")
        if not _ask_to_end(tree, vmid, file, handle, options):
            _end(tree, handle)
    finally:
        os.close(handle)
    _after_stop(tree, vmid, file)


def _ask_to_end(tree: Tree, vmid: int, file: GuestFile, handle: int, options: StopOptions) -> bool:
    """Ask QEMU or the guest and wait; False where force is needed. Fault without force."""
    limit = options.timeout
    if limit is None:
        limit = _down_time(file) if options.shutdown else None
    try:
        command = "system_powerdown" if options.shutdown else "quit"
        qmp.ask(tree.qmp(vmid), command, timeout=tree.settings.qmp_timeout)
        if _gone(handle, tree.settings.stop_timeout if limit is None else limit):
            return True
        trouble = "VM still running" if options.force else "VM quit/powerdown failed - got timeout"
    except qmp.QmpError:
        if _gone(handle, _LAST_WORDS_S):
            return True
        trouble = "VM quit/powerdown failed"
    if not options.force:
        raise Fault(trouble)
    say.warn(f"{trouble} - terminating now with SIGTERM")
    return False


def _end(tree: Tree, handle: int) -> None:
    _send(handle, signal.SIGTERM)
    if not _gone(handle, tree.settings.kill_timeout):
        say.warn("VM still running - terminating now with SIGKILL")
        _send(handle, signal.SIGKILL)
        _gone(handle, tree.settings.kill_timeout)


def _down_time(file: GuestFile) -> float | None:
    """The `down=` of the guest's startup order, if it has one."""
    for part in split_list(file.main.values.get("startup", "")):
        name, _, value = part.partition("=")
        if name == "down" and value.isdigit():
            return float(value)
    return None


def _after_stop(tree: Tree, vmid: int, file: GuestFile) -> None:
    """vm_stop_cleanup: the gone process's files, pending changes, and from 9.1.13 the hook."""
    for extension in ("mon", "qmp", "pid", "vnc", "qga"):
        (tree.run / f"{vmid}.{extension}").unlink(missing_ok=True)
    with contextlib.suppress(Fault):
        pending.apply(tree, vmid)
    flag = _cleanup_flag(tree, vmid)
    if flag.exists():
        flag.unlink()
        if tree.settings.post_stop is PostStop.PVE9:
            hooks.run_or_warn(tree, vmid, file, "post-stop")


def _run_qemu(tree: Tree, vmid: int, file: GuestFile) -> None:
    argv = guests.command(tree, vmid, file)
    allowed = os.sched_getaffinity(0)
    try:
        _take_affinity(file)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    finally:
        os.sched_setaffinity(0, allowed)
    try:
        status = process.wait(_QEMU_START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Fault(f"start failed: command '{tree.shown(argv[0])}' got timeout") from None
    if status:
        raise Fault(f"start failed: QEMU exited with code {status}")


def _take_affinity(file: GuestFile) -> None:
    """As PVE's prefix `taskset --cpu-list --all-tasks`: QEMU inherits the worker's mask."""
    cpulist = guests.affinity_of(file)
    if cpulist is None:
        return
    try:
        os.sched_setaffinity(0, CpuSet.parse(cpulist))
    except OSError as error:
        reason = f"taskset: failed to set pid 0's affinity: {error.strerror}"
        say.warn(reason)
        raise Fault("start failed: QEMU exited with code 1") from error


def _gone(handle: int, seconds: float) -> bool:
    return bool(select.select([handle], [], [], seconds)[0])


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _reboot_flag(tree: Tree, vmid: int) -> Path:
    return tree.run / f"{vmid}.reboot"


def _cleanup_flag(tree: Tree, vmid: int) -> Path:
    return tree.run / f"{vmid}.cleanup"
