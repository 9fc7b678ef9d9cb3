"""The guests of this node: configurations, pidfiles, and the proof that a process is a guest.

Reads PVE's files below the root; writes nothing, starts nothing. As its AbstractConfig.pm and
QemuServer/Helpers.pm have it, these are /etc/pve/nodes/NODE/qemu-server/VMID.conf and
/run/qemu-server/VMID.pid.
"""

import os
from dataclasses import dataclass

from proxmox_cpu_affinity.formats import procfs, pveconf
from proxmox_cpu_affinity.linux.threads import stat_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import (
    ForbiddenError,
    GuestNotFoundError,
    NotPveHostError,
    RefusedError,
)
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid, vmid_of

CONFIG_LIMIT = 1 << 20  # pmxcfs allows no larger file
PIDFILE_FOLDERS = ("/var/run/qemu-server", "/run/qemu-server")  # spellings in QEMU's arguments


@dataclass(frozen=True, slots=True)
class NodeGuests:
    """The guests below one root."""

    tree: Tree

    @property
    def node(self) -> str:
        """This node's name. NotPveHostError where /etc/pve is missing or not mounted: an
        unmounted one is an empty folder, and must not be taken for a node without guests."""
        link = self.tree.link("etc/pve/local")
        if link is None:
            raise NotPveHostError("/etc/pve is missing or not mounted: this is no Proxmox VE node")
        return link.rstrip("/").rpartition("/")[2]

    def vmids(self) -> tuple[Vmid, ...]:
        """Every guest with a configuration on this node, ascending. NotPveHostError; RefusedError
        where their folder cannot be read: that is not a node without guests."""
        folder = f"etc/pve/nodes/{self.node}/qemu-server"
        try:
            names = os.listdir(self.tree.at(folder))
        except FileNotFoundError:
            names = []  # made at the first start of a node (PVE/Cluster/Setup.pm, gen_local_dirs)
        except OSError as error:
            text = f"{self.tree.shown(folder)} cannot be read: {error.strerror}"
            raise RefusedError(text, hint="see: systemctl status pve-cluster") from None
        found = (vmid_of(name.removesuffix(".conf")) for name in names if name.endswith(".conf"))
        return tuple(sorted(vmid for vmid in found if vmid is not None))

    def configs(self) -> tuple[dict[Vmid, GuestConfig], frozenset[Vmid]]:
        """The guests of this node, and those whose file is there and could not be read."""
        node = self.node
        configs: dict[Vmid, GuestConfig] = {}
        unreadable: set[Vmid] = set()
        for vmid in self.vmids():
            config = self._config(node, vmid)
            if config is None:
                unreadable.add(vmid)
            else:
                configs[vmid] = config
        return configs, frozenset(unreadable)

    def config(self, vmid: Vmid) -> GuestConfig:
        """One guest; on a migration's target its file is still in the source node's folder.

        GuestNotFoundError; RefusedError where its file is there and cannot be read.
        """
        here = self.node
        others = (n for n in self.tree.listing("etc/pve/nodes") if n != here)
        for node in (here, *others):
            config = self._config(node, vmid)
            if config is not None:
                return config
        if vmid in self.vmids():
            raise RefusedError(
                f"VM {vmid}: its configuration cannot be read", hint="run this as root"
            )
        raise GuestNotFoundError(f"there is no guest {vmid} on this node")

    def _config(self, node: str, vmid: Vmid) -> GuestConfig | None:
        path = f"etc/pve/nodes/{node}/qemu-server/{vmid}.conf"
        text = self.tree.text(path, limit=CONFIG_LIMIT)
        return None if text is None else pveconf.guest_config(text, vmid=vmid, node=node)

    def processes(self) -> dict[Vmid, GuestProcess]:
        """The running guests, each one proved. ForbiddenError, RefusedError."""
        folder = self.tree.at("run/qemu-server")
        try:
            names = os.listdir(folder)
            os.stat(folder / ".")  # may be listed, and none of it opened
        except FileNotFoundError:
            return {}
        except PermissionError:
            raise ForbiddenError(
                "/run/qemu-server may not be read: no telling which guests run",
                hint="run this as root",
            ) from None
        except OSError as error:
            raise RefusedError(
                f"/run/qemu-server cannot be read: {error.strerror}: no telling which guests run",
                hint="see the log of the kernel: journalctl -k",
            ) from None
        vmids = (vmid_of(name.removesuffix(".pid")) for name in names if name.endswith(".pid"))
        found = (self.process(vmid) for vmid in vmids if vmid is not None)
        return {process.vmid: process for process in found if process is not None}

    def process(self, vmid: Vmid) -> GuestProcess | None:
        """The process that the pidfile names, if its own arguments name that pidfile too.

        Start time is read before and after, so that a pid used again between is not believed.
        """
        pid = procfs.pidfile(self.tree.text(f"run/qemu-server/{vmid}.pid") or "")
        if pid is None:
            return None
        before = stat_of(self.tree, pid)
        if before is None or not self._names_pidfile(pid, vmid):
            return None
        after = stat_of(self.tree, pid)
        if after is None or after.start_time != before.start_time:
            return None
        return GuestProcess(vmid, pid, after.start_time)

    def proven(self, process: GuestProcess) -> bool:
        """Whether this very process is still the guest."""
        return self.process(process.vmid) == process

    def _names_pidfile(self, pid: Pid, vmid: Vmid) -> bool:
        arguments = procfs.argv(self.tree.text(f"proc/{pid}/cmdline") or "")
        named = procfs.pidfile_argument(arguments)
        if named is None:
            return False
        root = str(self.tree.root).rstrip("/")
        return any(named == f"{root}{folder}/{vmid}.pid" for folder in PIDFILE_FOLDERS)
