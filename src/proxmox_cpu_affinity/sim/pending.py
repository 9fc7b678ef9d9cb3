"""Changes to a guest's configuration: in effect at once, or waiting in [PENDING] for a restart.

A change of `vcpus` waits too, until it was plugged (cpus). Out of scope: hot-plug of memory and
other devices; such changes wait for the restart.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from proxmox_cpu_affinity.formats.pveconf import (
    GuestFile,
    Section,
    changed,
    pending_deletions,
)
from proxmox_cpu_affinity.sim import configs
from proxmox_cpu_affinity.sim.tree import Tree

Changes = Mapping[str, str | None]

# qemu-server's $fast_plug_option, and what systemd changes on a running scope.
_IMMEDIATE = frozenset(
    (
        *("autostart", "cipassword", "cpulimit", "cpuunits", "description", "hookscript", "lock"),
        *("migrate_downtime", "migrate_speed", "name", "onboot", "protection", "shares"),
        *("startup", "tags", "vmstatestorage"),
    )
)


def request(file: GuestFile, changes: Changes, *, running: bool) -> GuestFile:
    """The file after a change of keys (None: remove) was asked for."""
    if not running:
        return _merged(_noted(file, changes))
    now = {key: value for key, value in changes.items() if key in _IMMEDIATE}
    later = {key: value for key, value in changes.items() if key not in _IMMEDIATE}
    return _noted(file.with_main(now), later)


def revert(file: GuestFile, keys: Collection[str]) -> GuestFile:
    """The file without what waits for these keys."""
    kept = [key for key in pending_deletions(file) if key not in keys]
    values: dict[str, str | None] = dict.fromkeys(keys)
    values["delete"] = ",".join(kept) or None
    return replace(file, pending=changed(file.pending, values))


def apply(tree: Tree, vmid: int) -> GuestFile:
    """Put what waits into effect and save the file; the caller holds the lock. MissingGuest."""
    file = configs.load(tree, vmid)
    if file.pending == Section():
        return file
    merged = _merged(file)
    configs.save(tree, vmid, merged)
    return merged


def effective(file: GuestFile) -> Section:
    """The main section as it will be once all that waits is in effect."""
    return _merged(file).main


def _noted(file: GuestFile, changes: Changes) -> GuestFile:
    """The file with the changes added to [PENDING]; what equals the main section needs no wait."""
    deletions = dict.fromkeys(pending_deletions(file))
    values: dict[str, str | None] = {}
    for key, value in changes.items():
        present = value_of(file.main, key)
        deletions.pop(key, None)
        values[key] = None if value == present else value
        if value is None and present is not None:
            deletions[key] = None
    values["delete"] = ",".join(deletions) or None
    return replace(file, pending=changed(file.pending, values))


def _merged(file: GuestFile) -> GuestFile:
    values: dict[str, str | None] = dict.fromkeys(pending_deletions(file))
    values |= {key: value for key, value in file.pending.values.items() if key != "delete"}
    if file.pending.description is not None:
        values["description"] = file.pending.description
    return replace(file.with_main(values), pending=Section())


def value_of(section: Section, key: str) -> str | None:
    """The value of a key, the description being one too."""
    return section.description if key == "description" else section.values.get(key)
