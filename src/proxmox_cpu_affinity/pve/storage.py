"""The storages of this node, and whether a volume is a hookscript that PVE would run.

Reads below the root. Out of scope: mounting, space, and content that is no snippet.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.pvesections import Storage, parse_storages, snippet_path
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import AffinityError, RefusedError
from proxmox_cpu_affinity.model.guest import HOOK_FILE

CONFIG = "etc/pve/storage.cfg"


@dataclass(frozen=True, slots=True)
class Findings:
    """What speaks against a hookscript's volume, and what is only odd; empty: nothing."""

    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hint: str = ""


def hook_volume(storage: str) -> str:
    """The volume id of our hookscript on a storage."""
    return f"{storage}:snippets/{HOOK_FILE}"


def storages(tree: Tree) -> Mapping[str, Storage]:
    """The storages of the cluster by id. RefusedError where their file cannot be read."""
    text = tree.text(CONFIG)
    if text is None and os.path.lexists(tree.at(CONFIG)):
        raise RefusedError(f"{tree.shown(CONFIG)} cannot be read", hint="run this as root")
    return parse_storages(text or "")


def hook_path(known: Mapping[str, Storage], storage: str) -> str:
    """Where our hook belongs on a storage. RefusedError, SyntaxFault where it cannot be."""
    found = known.get(storage)
    if found is not None and found.path is None:
        text = f"storage '{storage}' ({found.type}) holds no files"
        raise RefusedError(text, hint="see: pvesm status --content snippets")
    return snippet_path(known, hook_volume(storage))


def check_hook(tree: Tree, storage: str, *, node: str) -> Findings:
    """Whether guests of this node would start with our hookscript on this storage.

    A guest whose hookscript is missing or not executable does not start at all. PVE asks neither
    whether the storage is enabled nor whether it may hold snippets (GuestHelpers.pm,
    check_hookscript): on `local`, whose folder is always there, that is only worth a warning.
    """
    known = storages(tree)
    try:
        path = hook_path(known, storage)
    except AffinityError as error:
        return Findings((error.text,), hint=error.hint)
    fault = file_fault(tree, path)
    hint = f"put it there: proxmox-cpu-affinity hookscript install {storage}" if fault else ""
    found = usability(known[storage], node)
    return Findings((*filter(None, (fault,)), *found.faults), found.warnings, hint)


def usability(storage: Storage, node: str) -> Findings:
    """Whether PVE uses a storage on a node: a warning on `local`, whose folder is always there."""
    if storage.usable_on(node):
        return Findings()
    why = "disabled" if storage.disabled else f"not for node {node}"
    said = (f"storage '{storage.id}' is {why}",)
    return Findings(warnings=said) if storage.id == "local" else Findings(said)


def file_fault(tree: Tree, path: str) -> str:
    """Why PVE could not run this file (a path as the node sees it); empty if it can."""
    try:
        mode = tree.at(path).stat().st_mode
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(mode):
        return f"{path} is not a regular file"
    return "" if mode & 0o111 else f"{path} is not executable"
