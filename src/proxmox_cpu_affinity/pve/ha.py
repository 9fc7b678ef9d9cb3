"""Which guests the HA manager holds, from its resources file below the root."""

import os

from proxmox_cpu_affinity.formats.pvesections import ha_managed
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import RefusedError
from proxmox_cpu_affinity.model.ids import Vmid

RESOURCES = "etc/pve/ha/resources.cfg"


class HaGuests:
    """The HA resources as they were when this was made; no file, no resources.

    RefusedError where the file is there and cannot be read: nobody may then be taken for free.
    """

    def __init__(self, tree: Tree) -> None:
        text = tree.text(RESOURCES)
        if text is None and os.path.lexists(tree.at(RESOURCES)):
            raise RefusedError(f"{tree.shown(RESOURCES)} cannot be read", hint="run this as root")
        self._text = text or ""

    def __contains__(self, vmid: Vmid) -> bool:
        return ha_managed(self._text, vmid)
