"""What PVE's files say of the guests now, and that they cannot be read.

Where they cannot, nothing is concluded: guests stay as they are, and are shown as they are known
(views). Out of scope: what is in the files (pve.guests).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.ports import GuestReader
from proxmox_cpu_affinity.service.log import log


@dataclass(frozen=True, slots=True)
class Found:
    """One reading. `trouble`: why not all could be read; then nothing may be concluded from what
    is not in it."""

    configs: Mapping[Vmid, GuestConfig] = field(default_factory=dict)
    unreadable: frozenset[Vmid] = frozenset()  # their files are there
    processes: Mapping[Vmid, GuestProcess] = field(default_factory=dict)
    trouble: str = ""


@dataclass(slots=True)
class GuestFiles:
    """Reads all guests, or one; both may be called in a thread."""

    reader: GuestReader
    _trouble: str = ""  # of the last reading of all

    def all(self) -> Found:
        """All guests of this node, and all that run on it."""
        configs: Mapping[Vmid, GuestConfig] = {}
        unreadable: frozenset[Vmid] = frozenset()
        processes: Mapping[Vmid, GuestProcess] = {}
        trouble = ""
        try:
            configs, unreadable = self.reader.configs()
        except AffinityError as error:
            trouble = error.text
        try:
            processes = self.reader.processes()
        except AffinityError as error:
            trouble = trouble or error.text
        if trouble and trouble != self._trouble:
            log.warning("%s: guests stay as they are", trouble)
        self._trouble = trouble
        return Found(configs, unreadable, processes, trouble)

    def look(self, vmid: Vmid) -> tuple[GuestConfig | None, GuestProcess | None]:
        """One guest; without its configuration where that is not there, or cannot be read."""
        try:
            config = self.reader.config(vmid)
        except AffinityError:
            config = None
        return config, self.reader.process(vmid)

    def place(self) -> tuple[str, str]:
        """The name of this node, and why its guests cannot be read; one of them may be empty."""
        try:
            return self.reader.node, self._trouble
        except AffinityError as error:
            return "", error.text
