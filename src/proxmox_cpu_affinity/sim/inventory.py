"""What a node knows of its guests, as `qm list`, `qm status` and the API show it."""

import os
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.pveconf import GuestFile, config_of
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.sim import configs, qmp
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GuestView:
    """A guest of this node with its process, if it runs."""

    config: GuestConfig
    file: GuestFile
    pid: int | None

    @property
    def shown_name(self) -> str:
        return self.config.name or f"VM {self.config.vmid}"

    @property
    def memory(self) -> int:
        """Its configured memory in MiB."""
        return int(self.file.main.values.get("memory", "512").removeprefix("current="))

    @property
    def status(self) -> str:
        return "running" if self.pid else "stopped"


def view(tree: Tree, vmid: int) -> GuestView:
    """One guest of this node. MissingGuest."""
    file = configs.load(tree, vmid)
    config = config_of(file, vmid=Vmid(vmid), node=tree.settings.name)
    return GuestView(config, file, guest_pid(tree, vmid))


def views(tree: Tree) -> list[GuestView]:
    """All guests of this node, by VMID."""
    return [view(tree, vmid) for vmid in configs.vmids(tree)]


def run_state(tree: Tree, guest: GuestView) -> str:
    """The state that QEMU tells, else just whether it runs."""
    if guest.pid is None:
        return "stopped"
    try:
        return qmp.run_state(tree.qmp(guest.config.vmid))
    except qmp.QmpError:
        return guest.status


def resource(tree: Tree, guest: GuestView) -> dict[str, object]:
    """The guest's entry in /nodes/NODE/qemu and /cluster/resources."""
    config = guest.config
    entry: dict[str, object] = {
        "vmid": int(config.vmid),
        "name": guest.shown_name,
        "status": guest.status,
        "cpu": 0,
        "cpus": min(config.vcpu_count, tree.cpus()),
        "maxcpu": min(config.vcpu_count, tree.cpus()),
        "mem": _resident(guest.pid),
        "maxmem": guest.memory * _MIB,
        "disk": 0,
        "maxdisk": 0,
        "diskread": 0,
        "diskwrite": 0,
        "netin": 0,
        "netout": 0,
        "uptime": _uptime(guest.pid),
    }
    optional = {
        "tags": ";".join(config.tags),
        "lock": config.lock,
        "template": 1 if config.template else "",
    }
    return entry | {key: value for key, value in optional.items() if value}


def _resident(pid: int | None) -> int:
    """Bytes of memory a process holds (statm's second field, proc(5))."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def _uptime(pid: int | None) -> int:
    """Seconds since a process started (stat's field 22 counts ticks after boot, proc(5))."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime") as file:
            now = float(file.read().split()[0])
    except OSError:
        return 0
    return int(now - ticks / os.sysconf("SC_CLK_TCK"))
