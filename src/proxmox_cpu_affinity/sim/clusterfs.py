"""The status files that PVE's cluster file system shows: .members, .vmlist and .version.

They are written anew after every change made through the node's programs; a file edited by hand
shows in them at the next such change.
"""

import json
import os
import time
from pathlib import Path

from proxmox_cpu_affinity.model.ids import vmid_of
from proxmox_cpu_affinity.sim.tree import Tree

WATCHED = ("storage.cfg", "user.cfg", "datacenter.cfg", "ha/resources.cfg", "ha/rules.cfg")
_FOLDERS = {"qemu-server": "qemu", "lxc": "lxc"}


def create(tree: Tree) -> None:
    """The three files of a node that is not in a cluster."""
    _write(tree.pve / ".members", {"nodename": tree.settings.name, "version": 0})
    version = {"starttime": int(time.time()), "clinfo": 0, "vmlist": 1}
    _write(tree.pve / ".version", version | dict.fromkeys(WATCHED, 1) | {"kvstore": {}})
    _write_vmlist(tree, 1)


def bump(tree: Tree, what: str) -> None:
    """Count a change of `vmlist` or of a watched file. Two at once may be counted as one."""
    path = tree.pve / ".version"
    version: dict[str, object] = json.loads(path.read_text())
    count = int(str(version.get(what, 0))) + 1
    _write(path, version | {what: count})
    if what == "vmlist":
        _write_vmlist(tree, count)


def _write_vmlist(tree: Tree, version: int) -> None:
    ids = {
        str(vmid): {"node": path.parts[-3], "type": _FOLDERS[path.parts[-2]], "version": version}
        for path in sorted((tree.pve / "nodes").glob("*/*/*.conf"))
        if path.parts[-2] in _FOLDERS and (vmid := vmid_of(path.stem))
    }
    # Without guests the member `ids` is absent, as in the real file.
    _write(tree.pve / ".vmlist", {"version": version} | ({"ids": ids} if ids else {}))


def _write(path: Path, value: dict[str, object]) -> None:
    sibling = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    sibling.write_text(json.dumps(value, indent=0) + "\n")
    sibling.chmod(0o440)
    sibling.rename(path)
