"""What one service works on: the adapters to the kernel, to PVE's files and to its own."""

from dataclasses import dataclass

from proxmox_cpu_affinity.linux.confine import GuestConfiner
from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.scopewatch import ScopeWatch, hindrance
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.ports import Confiner, GuestReader, StateKeeper
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.service.host import HostWatch
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.store import JsonFile


@dataclass(frozen=True, slots=True)
class World:
    """The production one is made by `world_below`."""

    tree: Tree
    guests: GuestReader
    confiner: Confiner
    keeper: StateKeeper
    host: HostWatch
    scopes: ScopeWatch | None = None
    hindrance: str = ""  # why there are no scopes to confine


def world_below(paths: Paths) -> World:
    """The adapters below a root."""
    tree = Tree(paths.root)
    guests = NodeGuests(tree)
    confiner = GuestConfiner(ThreadMasks(tree, guests.proven))
    why_not = hindrance(tree)
    return World(
        tree=tree,
        guests=guests,
        confiner=confiner,
        keeper=JsonFile(paths.state),
        host=HostWatch(tree, JsonFile(paths.matrix)),
        scopes=None if why_not else ScopeWatch(tree, confiner, DropIns(paths.root)),
        hindrance=why_not,
    )
