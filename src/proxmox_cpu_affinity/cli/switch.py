"""Switches our hookscript on and off: looks, runs `qm set`, and reads the guest's file again.

Out of scope: showing what came of it (commands.hookscript).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from proxmox_cpu_affinity.cli.words import listed
from proxmox_cpu_affinity.formats.pvesections import Storage
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    GuestNotFoundError,
    ProgramFailedError,
    RefusedError,
)
from proxmox_cpu_affinity.model.guest import TAG_OFF, GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve import qm
from proxmox_cpu_affinity.pve.cluster import other_nodes
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.pve.ha import HaGuests
from proxmox_cpu_affinity.pve.storage import check_hook, storages


class Obstacle(Enum):
    """What keeps our hookscript from a guest: note, word of a skipping line, reason, remedy."""

    TEMPLATE = ("VM Template", "VM template", "it is a template", "enable its clones instead")
    HA = ("HA Managed", "HA managed", "the HA manager holds it", "ha-manager remove vm:{vmid}")
    AFFINITY = (
        "Manual Affinity Set",
        "manual affinity set",
        "its configuration has `affinity:`",
        "qm set {vmid} --delete affinity",
    )
    OTHER = ("", "other hookscript set", "it has another hookscript", "--force replaces it")

    def __init__(self, note: str, short: str, text: str, remedy: str) -> None:
        self.note = note
        self.short = short
        self.text = text
        self.remedy = remedy

    @property
    def skips(self) -> bool:
        """Whether lists call such a guest Skipped, as they always did."""
        return self in (Obstacle.HA, Obstacle.AFFINITY)


class Did(StrEnum):
    """What became of a guest."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    DRY_RUN = "dry-run"


@dataclass(frozen=True, slots=True)
class Change:
    """One guest's outcome in words; `remark` is what --force did to it."""

    vmid: Vmid
    did: Did
    text: str
    remark: str = ""


class Hookscripts:
    """The hookscripts of this node's guests. NotPveHostError; RefusedError if HA is not readable.

    With `dry_run` nothing is started: changes then say which command would have been.
    """

    def __init__(self, tree: Tree, *, dry_run: bool = False) -> None:
        self._tree = tree
        self._dry_run = dry_run
        self._node = NodeGuests(tree)
        self._ha = HaGuests(tree)
        configs, unreadable = self._node.configs()
        self.guests = tuple(configs[vmid] for vmid in sorted(configs))
        self.unreadable = tuple(sorted(unreadable))

    def guest(self, vmid: Vmid) -> GuestConfig:
        """A guest of this node. GuestNotFoundError, RefusedError if it cannot be read."""
        config = self._node.config(vmid)
        if config.node != self._node.node:
            raise GuestNotFoundError(f"VM {vmid} is on node {config.node}", hint="run this there")
        return config

    def obstacles(self, config: GuestConfig) -> tuple[Obstacle, ...]:
        """What nobody can override: these guests are left alone."""
        met = {
            Obstacle.TEMPLATE: config.template,
            Obstacle.HA: config.vmid in self._ha,
            Obstacle.AFFINITY: config.affinity is not None,
        }
        return tuple(obstacle for obstacle, is_met in met.items() if is_met)

    def check_storage(self, storage: str, *, force: bool) -> tuple[str, ...]:
        """Whether guests would start with our hookscript on it: RefusedError, else warnings."""
        found = check_hook(self._tree, storage, node=self._node.node)
        if found.faults and not force:
            raise RefusedError("; ".join(found.faults), hint=found.hint)
        return (*found.warnings, *(f"overridden by --force: {fault}" for fault in found.faults))

    def elsewhere(self, storage: str) -> str:
        """In a cluster, what the other nodes need, so that the guest starts there and is placed."""
        others = other_nodes(self._tree, self._node.node)
        found = storages(self._tree).get(storage)
        return "" if found is None else needed_elsewhere(found, others)

    def refuse(self, config: GuestConfig, *, force: bool) -> None:
        """RefusedError where `enable` would skip this guest: in full, with a remedy."""
        obstacles = self._in_the_way(config, force=force)
        if obstacles:
            reasons = ", and ".join(obstacle.text for obstacle in obstacles)
            own = f" ({config.hookscript})" if Obstacle.OTHER in obstacles else ""
            remedies = "; ".join(o.remedy.format(vmid=config.vmid) for o in obstacles)
            raise RefusedError(f"VM {config.vmid} is left alone: {reasons}{own}", hint=remedies)

    def enable(self, config: GuestConfig, volume: str, *, force: bool) -> Change:
        """Give a guest this hookscript, if nothing is in the way. ProgramFailedError."""
        obstacles = self._in_the_way(config, force=force)
        if obstacles:
            reasons = ", ".join(obstacle.short for obstacle in obstacles)
            return Change(config.vmid, Did.SKIPPED, f"Skipping VM {config.vmid} ({reasons})...")
        if config.hookscript == volume:
            return _unchanged(config, "already enabled, nothing to do")
        change = self._run(config, qm.set_hookscript(config.vmid, volume), volume)
        if config.hookscript is None or config.has_hook:
            return change
        return replace(change, remark=f"VM {config.vmid}: --force replaces {config.hookscript}")

    def disable(self, config: GuestConfig) -> Change:
        """Take our hookscript from a guest; another's stays. ProgramFailedError."""
        if config.hookscript is None:
            return _unchanged(config, "not enabled, nothing to do")
        if not config.has_hook:
            return _unchanged(config, f"left alone, it has another hookscript {config.hookscript}")
        return self._run(config, qm.delete_hookscript(config.vmid), None)

    def _in_the_way(self, config: GuestConfig, *, force: bool) -> tuple[Obstacle, ...]:
        foreign = config.hookscript is not None and not config.has_hook
        other = (Obstacle.OTHER,) if foreign and not force else ()
        return (*self.obstacles(config), *other)

    def _run(self, config: GuestConfig, command: tuple[str, ...], wanted: str | None) -> Change:
        vmid = config.vmid
        if self._dry_run:
            return Change(vmid, Did.DRY_RUN, f"[DryRun] Would execute: {' '.join(command)}")
        qm.Programs(self._tree).run(command)
        found = self._node.config(vmid).hookscript
        if found != wanted:
            raise ProgramFailedError(
                f"VM {vmid}: qm set ended well, but its hookscript is {found or 'none'} now",
                hint="is somebody else at this guest? try again",
            )
        if wanted is None:
            return Change(vmid, Did.DISABLED, f"VM {vmid}: hookscript disabled")
        text = f"VM {vmid}: hookscript enabled ({wanted})"
        if TAG_OFF in self._node.config(vmid).tags:
            text += f"; left alone as long as it has the tag {TAG_OFF}"
        return Change(vmid, Did.ENABLED, text)


def failed(vmid: Vmid, error: AffinityError) -> Change:
    """The outcome of a guest whose change raised this."""
    text = error.text if error.text.startswith(f"VM {vmid}") else f"VM {vmid}: {error.text}"
    return Change(vmid, Did.FAILED, text)


def needed_elsewhere(storage: Storage, others: Sequence[str]) -> str:
    """What other nodes need for guests with our hookscript on this storage; empty: no others."""
    reach = [node for node in others if not storage.nodes or node in storage.nodes]
    apart = [node for node in others if node not in reach]
    words = []
    if reach and storage.shared:
        words.append(f"{listed('node', reach)} must have this package too, to place guests there")
    elif reach:
        put = "" if storage.id == "local" else f" and run: hookscript install {storage.id}"
        words.append(
            f"{listed('node', reach)} must have the hook on '{storage.id}' too, or such guests do "
            f"not start there: install this package{put}"
        )
    if apart:
        words.append(
            f"'{storage.id}' is not for {listed('node', apart)}: such guests do not start there"
        )
    return "Cluster: " + "; ".join(words) if words else ""


def _unchanged(config: GuestConfig, text: str) -> Change:
    return Change(config.vmid, Did.UNCHANGED, f"VM {config.vmid}: {text}")
