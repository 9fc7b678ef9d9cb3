"""The status files that PVE's cluster file system shows: .members, .vmlist and .version.

They are written anew after every change made through the node's programs; a file edited by hand
shows in them at the next such change.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from proxmox_cpu_affinity.model.ids import vmid_of
from proxmox_cpu_affinity.sim.tree import Tree

WATCHED = ("storage.cfg", "user.cfg", "datacenter.cfg", "ha/resources.cfg", "ha/rules.cfg")
_FOLDERS = {"qemu-server": "qemu", "lxc": "lxc"}


def create(tree: Tree, *, peers: Sequence[str] = ()) -> None:
    """The three files of a node: alone, or in a cluster with these other nodes."""
    _write(tree.pve / ".members", _members(tree.settings.name, peers))
    version = {"starttime": int(time.time()), "clinfo": 0, "vmlist": 1}
    _write(tree.pve / ".version", version | dict.fromkeys(WATCHED, 1) | {"kvstore": {}})
    _write_vmlist(tree, 1)


def _members(name: str, peers: Sequence[str]) -> dict[str, object]:
    if not peers:
        return {"nodename": name, "version": 0}
    nodes = (name, *peers)
    return {
        "nodename": name,
        "version": len(nodes),
        "cluster": {"name": "sim", "version": 1, "nodes": len(nodes), "quorate": 1},
        "nodelist": {
            node: {"id": number, "online": 1, "ip": f"192.0.2.{number}"}
            for number, node in enumerate(nodes, start=1)
        },
    }


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
