"""What to do about the service, in words that work where they are read: on a Proxmox VE node by
systemctl, on a simulated node, which has no systemd, by the program itself."""

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.service.paths import Paths

UNIT = "proxmox-cpu-affinity"
LOG = "/var/log/proxmox-cpu-affinity.log"
_PVE = re.compile(r"\b(?:qm|pvesm|ha-manager|pvesh)\b")


def called(name: str = UNIT) -> str:
    """How the user calls one of our programs: by its name, or as he named this one's folder."""
    given = Path(sys.argv[0])
    if given.name != UNIT or shutil.which(UNIT) == str(given) or not given.is_file():
        return name
    return shlex.quote(os.path.relpath(given.with_name(name)))


@dataclass(frozen=True, slots=True)
class Remedies:
    """Commands for the service below one root."""

    root: Path

    @property
    def start(self) -> str:
        if self.root == Path("/"):
            return f"systemctl start {UNIT}"
        service = called("proxmox-cpu-affinity-service")
        return f"{service} --root {shlex.quote(str(self.root))} --port 0 &"

    @property
    def restart(self) -> str:
        if self.root == Path("/"):
            return f"systemctl restart {UNIT}"
        lock = shlex.quote(str(Paths(self.root).lock))
        return f"kill $(cat {lock}); {self.start}"

    def with_path(self, advice: str) -> str:
        """Advice that names programs of PVE, with how a shell finds a simulated node's."""
        folders = [self.root / "usr/sbin", self.root / "usr/bin"]
        found = {os.path.dirname(shutil.which(name) or "") for name in _PVE.findall(advice)}
        if self.root == Path("/") or not found - set(map(str, folders)):
            return advice
        return f"{advice} (first: export PATH={':'.join(map(str, folders))}:$PATH)"

    @property
    def log(self) -> str:
        return f"journalctl -u {UNIT}" if self.root == Path("/") else LOG
