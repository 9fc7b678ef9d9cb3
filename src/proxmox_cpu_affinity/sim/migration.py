"""A guest's way to another node of the cluster, as its source does it: qemu-server's QemuMigrate.

No hook runs on this side: the process vanishes, and `qm cleanup` finds no configuration any more.
Out of scope: the way here (arrival), disks, and what the target does: that node is a folder.
"""

import time

from proxmox_cpu_affinity.sim import configs, lifecycle, qmp, ramstate, say
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree


def check(tree: Tree, vmid: int, target: str, *, online: bool, usage: str) -> None:
    """What `qm migrate` refuses before it does anything. BadParameter, Fault."""
    configs.load(tree, vmid)
    if target == tree.settings.name:
        raise BadParameter("target", "target is local node.", usage=usage)
    configs.check_node(tree, target)
    if guest_pid(tree, vmid) and not online:
        raise Fault("can't migrate running VM without --online")


def leave(tree: Tree, vmid: int, target: str) -> None:
    """Give a guest to another node, live if it runs. Fault."""
    here = tree.settings.name
    began = time.monotonic()
    with configs.locked(tree, vmid):
        configs.check_lock(configs.load(tree, vmid))
        running = guest_pid(tree, vmid) is not None
        _say(f"starting migration of VM {vmid} to node '{target}'")
        configs.update(tree, vmid, {"lock": "migrate"})
        if running:
            _send(tree, vmid)
        configs.move(tree, vmid, source=here, target=target)
        if running:
            lifecycle.vanish(tree, vmid)
        configs.update(tree, vmid, {"lock": None}, node=target)
    _say(f"migration finished successfully (duration {_clock(time.monotonic() - began)})")


def _send(tree: Tree, vmid: int) -> None:
    """Send the RAM away; the guest goes on here, without a lock, where that fails. Fault."""
    _say(f"starting online/live migration on unix:/run/qemu-server/{vmid}.migrate")
    try:
        with qmp.Monitor(tree.qmp(vmid), timeout=tree.settings.qmp_timeout) as monitor:
            ramstate.send(monitor, "exec:cat > /dev/null")
    except qmp.QmpError as error:
        configs.update(tree, vmid, {"lock": None})
        _say("migration aborted")
        raise Fault(f"online migrate failure - {error}") from error


def _say(text: str) -> None:
    say.out(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds))
