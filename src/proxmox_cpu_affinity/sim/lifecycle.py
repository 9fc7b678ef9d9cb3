"""Starting and stopping a guest: PVE's order of locks, checks, hooks and files.

After qemu-server's vm_start, vm_stop, vm_reboot and `qm cleanup`. Out of scope: what uses them
(migration, snapshots, ramstate, backup). There is no systemd scope around a guest here.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.formats.pveschema import split_list
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim import configs, guests, hooks, pending, qmp, ramstate, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import guest_pid, wait_until
from proxmox_cpu_affinity.sim.settings import PostStop
from proxmox_cpu_affinity.sim.tree import Tree

_QEMU_START_S = 30.0
_CLEANUP_LOCK_S = 60.0
_CLEANUP_WAIT_S = 30.0
_LAST_WORDS_S = 1.0  # between a monitor that breaks off and the end of its process


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a guest is to be started."""

    skiplock: bool = False
    migrated_from: str = ""  # the node whose folder still has the guest's configuration
    listens: bool = False  # QEMU waits for a migration's stream
    breaks: bool = False  # the preparations for that stream fail, after QEMU was started
    paused: bool = False  # for a backup: the vCPUs are there and do not run
    template: bool = False  # for a backup: a template may be started
    state: str = ""  # the volume with the RAM to begin with


NORMAL = StartOptions()


@dataclass(frozen=True, slots=True)
class StopOptions:
    """How a guest is to be stopped; seconds until the force, None for the usual."""

    shutdown: bool = False  # ask the guest; else end QEMU
    force: bool = False  # SIGTERM, then SIGKILL, when that does not help
    timeout: float | None = None
    skiplock: bool = False
    migrated_from: str = ""  # a migration to here failed; the configuration is still there


def start(tree: Tree, vmid: int, options: StartOptions = NORMAL) -> None:
    """Start a guest and return when QEMU has set its machine up and post-start is done. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid, node=options.migrated_from)
        lock = file.main.values.get("lock")
        running = guest_pid(tree, vmid) is not None
        if file.main.values.get("template") == "1" and not options.template:
            raise Fault("you can't start a vm if it's a template")
        if lock == "backup" and running:
            # The backup's QEMU, which is paused, becomes the guest's.
            qmp.ask(tree.qmp(vmid), "cont", timeout=tree.settings.qmp_timeout)
            return
        if not options.skiplock and lock != "suspended":
            configs.check_lock(file)
        if running:
            raise Fault(f"VM {vmid} already running")
        start_locked(tree, vmid, file, options)


def start_locked(tree: Tree, vmid: int, file: GuestFile, options: StartOptions) -> None:
    """As start, after its checks: vm_start_nolock. The caller holds the lock. Fault."""
    _reboot_flag(tree, vmid).unlink(missing_ok=True)
    hibernated = file.main.values.get("vmstate", "")
    state = options.state or hibernated
    if not (state or options.listens):
        file = pending.apply(tree, vmid)
    # Perl puts an undefined value into the environment as an empty string.
    os.environ["PVE_MIGRATED_FROM"] = options.migrated_from
    hooks.run(tree, vmid, file, "pre-start")
    if hibernated:
        say.out("Resuming suspended VM")
    if file.main.values.get("template") == "1":
        file = guests.minimized(file)
    last = ["-S"] if options.listens or options.paused else []
    last += ramstate.words(tree, state) if state else []
    last += ["-incoming", f"unix:{stream_of(tree, vmid)}"] if options.listens else []
    _run_qemu(tree, guests.command(tree, vmid, file, last=last), file)
    if tree.settings.post_stop is PostStop.PVE9:
        _cleanup_flag(tree, vmid).touch()
    if options.listens:
        _listen(tree, vmid, fails=options.breaks)
    elif state:
        ramstate.go_on(tree, vmid)
    if hibernated:
        file = _woken(tree, vmid, hibernated)
    hooks.run_or_warn(tree, vmid, file, "post-start")


def stream_of(tree: Tree, vmid: int) -> Path:
    """The socket on which a migration's target waits."""
    return tree.root / f"run/qemu-server/{vmid}.migrate"


def _listen(tree: Tree, vmid: int, *, fails: bool) -> None:
    if fails:
        raise Fault(f"VM {vmid} qmp command 'migrate-set-capabilities' failed - got timeout")
    say.out(f"migration listens on unix:{tree.shown(stream_of(tree, vmid))}")


def _woken(tree: Tree, vmid: int, volume: str) -> GuestFile:
    say.out("Resumed VM, removing state")
    ramstate.remove(tree, volume)
    return configs.update(tree, vmid, dict.fromkeys(("lock", *ramstate.KEYS)))


def stop(tree: Tree, vmid: int, options: StopOptions) -> None:
    """Stop or shut a guest down; nothing to do for one that is not running. Fault."""
    if options.migrated_from:
        _give_up(tree, vmid, source=options.migrated_from)
        return
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if not options.skiplock:
            configs.check_lock(file)
        stop_locked(tree, vmid, file, options)


def vanish(tree: Tree, vmid: int) -> None:
    """End the QEMU of a guest that has moved to another node: without any hook. Fault."""
    with _process(tree, vmid) as handle:
        if handle is not None and not _ask_to_end(tree, vmid, handle, StopOptions(force=True)):
            _end(tree, handle)
    _remove_files(tree, vmid)
    _cleanup_flag(tree, vmid).unlink(missing_ok=True)


def _give_up(tree: Tree, vmid: int, *, source: str) -> None:
    """End what waits here for a migration that failed: no lock, no waiting, no pre-stop."""
    with _process(tree, vmid) as handle:
        if handle is not None:
            _send(handle, signal.SIGTERM)
    _after_stop(tree, vmid, configs.load(tree, vmid, node=source))


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
            stop_locked(tree, vmid, file, StopOptions(shutdown=True, timeout=timeout))
        except Fault:
            flag.unlink(missing_ok=True)
            raise


def cleanup(tree: Tree, vmid: int, *, clean: bool, by_guest: bool) -> None:
    """What qmeventd starts when a guest's QEMU has gone. Fault."""
    if not configs.path_of(tree, vmid).exists():
        return
    new = tree.settings.post_stop is PostStop.PVE9
    if new:
        wait_until(lambda: not guest_pid(tree, vmid), seconds=_CLEANUP_WAIT_S)
    with configs.locked(tree, vmid, seconds=_CLEANUP_LOCK_S):
        file = configs.load(tree, vmid)
        if new and file.main.values.get("lock") == "rollback":
            return  # the rollback itself has stopped it, and is not done yet
        if guest_pid(tree, vmid):
            raise Fault("vm still running")
        if new or not clean or by_guest:
            _after_stop(tree, vmid, file)
        if not new:
            hooks.run_or_warn(tree, vmid, file, "post-stop")
        restart = _reboot_flag(tree, vmid).exists()
        _reboot_flag(tree, vmid).unlink(missing_ok=True)
    if restart:
        start(tree, vmid)


def stop_locked(tree: Tree, vmid: int, file: GuestFile, options: StopOptions) -> None:
    """As stop, after its checks; the caller holds the lock. Fault."""
    with _process(tree, vmid) as handle:
        if handle is None:
            return  # if it is gone this moment, `qm cleanup` sees to it
        hooks.run_or_warn(tree, vmid, file, "pre-stop")
        if options.shutdown and options.timeout is None:
            options = replace(options, timeout=_down_time(file))
        if not _ask_to_end(tree, vmid, handle, options):
            _end(tree, handle)
    with contextlib.suppress(Fault):
        pending.apply(tree, vmid)
    _after_stop(tree, vmid, file)


@contextlib.contextmanager
def _process(tree: Tree, vmid: int) -> Iterator[int | None]:
    """A pidfd of the guest's process, None where it does not run."""
    handle = None
    pid = guest_pid(tree, vmid)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _ask_to_end(tree: Tree, vmid: int, handle: int, options: StopOptions) -> bool:
    """Ask QEMU or the guest and wait; False where force is needed. Fault without force."""
    limit = tree.settings.stop_timeout if options.timeout is None else options.timeout
    try:
        command = "system_powerdown" if options.shutdown else "quit"
        qmp.ask(tree.qmp(vmid), command, timeout=tree.settings.qmp_timeout)
        if _gone(handle, limit):
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
    """vm_stop_cleanup: the gone process's files, and from 9.1.13 the hook."""
    _remove_files(tree, vmid)
    flag = _cleanup_flag(tree, vmid)
    if flag.exists():
        flag.unlink()
        if tree.settings.post_stop is PostStop.PVE9:
            hooks.run_or_warn(tree, vmid, file, "post-stop")


def _remove_files(tree: Tree, vmid: int) -> None:
    for extension in ("mon", "qmp", "pid", "vnc", "qga", "migrate"):
        (tree.run / f"{vmid}.{extension}").unlink(missing_ok=True)


def _run_qemu(tree: Tree, argv: Sequence[str], file: GuestFile) -> None:
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
