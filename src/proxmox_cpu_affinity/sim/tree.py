"""Where everything lies in a simulated node: one root, and PVE's paths below it."""

import os
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim import settings as settings_file
from proxmox_cpu_affinity.sim.settings import Settings

ROOT_MAX = 107 - len("/var/run/qemu-server/999999999.qmp")
"""The longest root: sun_path of a Unix socket holds 107 bytes and a NUL (unix(7))."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The paths of one node. Messages show them without the root: see `shown`."""

    root: Path
    settings: Settings

    @staticmethod
    def load(root: Path) -> "Tree":
        """The node below a root. NotPveHostError where there is none."""
        root = root.resolve()
        return Tree(root, settings_file.load(root / "etc/pve-sim.json"))

    def at(self, path: str) -> Path:
        """The file that the node's programs call by this absolute path."""
        return self.root / path.lstrip("/")

    def shown(self, text: object) -> str:
        """A text with the root cut out of its paths."""
        return str(text).replace(str(self.root), "")

    @property
    def settings_file(self) -> Path:
        return self.root / "etc/pve-sim.json"

    @property
    def pve(self) -> Path:
        return self.root / "etc/pve"

    @property
    def run(self) -> Path:
        """/var/run/qemu-server, in the spelling that PVE puts into QEMU's arguments."""
        return self.root / "var/run/qemu-server"

    @property
    def lock(self) -> Path:
        return self.root / "var/lock/qemu-server"

    @property
    def kvm(self) -> Path:
        return self.root / "usr/bin/kvm"

    @property
    def qmeventd_socket(self) -> Path:
        return self.root / "var/run/qmeventd.sock"

    @property
    def qmeventd_pid(self) -> Path:
        return self.root / "run/qmeventd.pid"

    @property
    def firmware(self) -> Path:
        return self.root / "usr/share/pve-sim/firmware.bin"

    def pidfile(self, vmid: int) -> Path:
        return self.run / f"{vmid}.pid"

    def qmp(self, vmid: int) -> Path:
        return self.run / f"{vmid}.qmp"

    def cpus(self) -> int:
        """How many CPUs the node has, as its own sys says: the limit for a guest's vCPUs."""
        try:
            online = (self.root / "sys/devices/system/cpu/online").read_text()
        except OSError:
            return os.cpu_count() or 1
        return len(CpuSet.parse(online))
