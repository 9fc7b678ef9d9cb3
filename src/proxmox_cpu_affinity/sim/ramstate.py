"""A guest's RAM in a file: for snapshots that keep it, and for hibernation.

Proxmox's QEMU has commands of its own for this (savevm-start, -loadstate); stock QEMU migrates into
a file and out of it, which comes to the same. After qemu-server's vm_suspend.
"""

import contextlib
import shlex
import shutil
import time
from pathlib import Path

from proxmox_cpu_affinity.sim import configs, qmp, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import guest_pid, wait_until
from proxmox_cpu_affinity.sim.tree import Tree

KEYS = ("vmstate", "runningmachine", "runningcpu")  # of a section whose RAM was kept
_LIMIT_S = 60.0


def volume_of(vmid: int, name: str) -> str:
    return f"local:{vmid}/vm-{vmid}-state-{name}.raw"


def path_of(tree: Tree, volume: str) -> Path:
    """The file of a state volume."""
    return _folder(tree) / volume.partition(":")[2]


def keys(tree: Tree, vmid: int, name: str) -> dict[str, str | None]:
    """What a section says of the RAM kept with it, and of the machine it belongs to."""
    version = ".".join(map(str, tree.settings.qemu_version))
    values = (volume_of(vmid, name), f"pc-i440fx-{version}+pve0", "kvm64")
    return dict(zip(KEYS, values, strict=True))


def save(tree: Tree, vmid: int, volume: str) -> None:
    """Pause a running guest and write its RAM; it can go on afterwards (`go_on`).

    Fault; the guest then goes on at once.
    """
    path = path_of(tree, volume)
    say.out("saving VM state and RAM using storage 'local'")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with qmp.Monitor(tree.qmp(vmid), timeout=tree.settings.qmp_timeout) as monitor:
            monitor.ask("stop")
            send(monitor, f"exec:cat > {shlex.quote(str(path))}")
    except (OSError, qmp.QmpError) as error:
        with contextlib.suppress(qmp.QmpError):
            qmp.ask(tree.qmp(vmid), "cont")
        raise Fault(f"unable to save VM state and RAM - {error}") from error


def send(monitor: qmp.Monitor, uri: str) -> None:
    """Migrate a guest and wait for its end. QmpError."""
    monitor.ask("migrate", {"uri": uri})
    if not wait_until(lambda: _sent(monitor) != "active", seconds=_LIMIT_S):
        raise qmp.QmpError("migrate: got timeout")
    if (state := _sent(monitor)) != "completed":
        raise qmp.QmpError(f"migrate: {state}")


def _sent(monitor: qmp.Monitor) -> str:
    answer = monitor.ask("query-migrate")
    state = str(answer.get("status", "")) if isinstance(answer, dict) else ""
    return "active" if state in {"setup", "active", "device", "pre-switchover"} else state


def words(tree: Tree, volume: str) -> list[str]:
    """QEMU's arguments to begin with the RAM in a file."""
    return ["-incoming", f"exec:cat {shlex.quote(str(path_of(tree, volume)))}"]


def go_on(tree: Tree, vmid: int) -> None:
    """Wait until the RAM was read, then let the guest run. Fault."""
    socket = tree.qmp(vmid)
    try:
        if not wait_until(lambda: qmp.run_state(socket) != "inmigrate", seconds=_LIMIT_S):
            raise Fault(f"VM {vmid} got timeout while its state was loaded")
        qmp.ask(socket, "cont")
    except qmp.QmpError as error:
        raise Fault(f"VM {vmid} could not load its state - {error}") from error


def remove(tree: Tree, volume: str) -> None:
    """Remove a state volume."""
    with contextlib.suppress(OSError):
        path_of(tree, volume).unlink()


def remove_all(tree: Tree, vmid: int) -> None:
    """Remove all that was kept of a guest."""
    shutil.rmtree(_folder(tree) / str(vmid), ignore_errors=True)


def _folder(tree: Tree) -> Path:
    return tree.root / "var/lib/vz/images"


def hibernate(tree: Tree, vmid: int, *, skiplock: bool = False) -> None:
    """Write a running guest's RAM into a file and end it; its next start goes on from there.

    No hook runs here: `qm cleanup` runs post-stop when the process is gone. Fault.
    """
    name = f"suspend-{time.strftime('%Y-%m-%d')}"
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if file.main.values.get("lock") == "backup":
            raise Fault("cannot suspend to disk during backup")
        if not skiplock:
            configs.check_lock(file)
        if not guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} not running")
        configs.update(tree, vmid, {"lock": "suspending", **keys(tree, vmid, name)})
    try:
        save(tree, vmid, volume_of(vmid, name))
    except Fault:
        with configs.locked(tree, vmid):
            configs.update(tree, vmid, {"lock": None, **dict.fromkeys(KEYS)})
        remove(tree, volume_of(vmid, name))
        raise
    with configs.locked(tree, vmid):
        if configs.load(tree, vmid).main.values.get("lock") != "suspending":
            raise Fault("lock changed unexpectedly")
        say.out("State saved, quitting")
        qmp.ask(tree.qmp(vmid), "quit", timeout=tree.settings.qmp_timeout)
        configs.update(tree, vmid, {"lock": "suspended"})
