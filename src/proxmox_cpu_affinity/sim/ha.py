"""The HA resources of a node, and a local resource manager in its simplest form.

A power command for an HA guest only files a request (its wanted state, or a way to another node);
`due` and `take_requests` say what is then to be done, which the real manager does some seconds
later. Out of scope: groups, rules, what other nodes do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxmox_cpu_affinity.formats import pvesections
from proxmox_cpu_affinity.formats.pvesections import SectionEntry
from proxmox_cpu_affinity.sim import clusterfs, configs
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree

_FILE = "ha/resources.cfg"
_REQUESTS = "ha/crm_commands"
_RETRIES = 1  # max_restart where it is not set


@dataclass(frozen=True, slots=True)
class Request:
    """A guest is to go to another node: live, or stopped first (`relocate`)."""

    vmid: int
    target: str
    stops: bool


def resources(tree: Tree) -> dict[str, SectionEntry]:
    """The resources by their service id, like `vm:100`."""
    try:
        text = configs.read_text(tree.pve / _FILE)
    except FileNotFoundError:
        text = ""
    return {f"{entry.type}:{entry.id}": entry for entry in pvesections.parse_sections(text)}


def managed(tree: Tree, vmid: int) -> bool:
    """Whether power commands for this guest are HA's business."""
    entry = resources(tree).get(f"vm:{vmid}")
    return entry is not None and entry.values.get("state") != "ignored"


def wanted(entry: SectionEntry) -> str:
    """The state asked for a resource: `enabled` is an older word for started."""
    state = entry.values.get("state", "started")
    return "started" if state == "enabled" else state


def put(tree: Tree, sid: str, values: Mapping[str, str]) -> None:
    """Add a resource, or set keys of one."""
    kind, _, name = sid.partition(":")
    entries = resources(tree)
    entry = entries.get(sid, SectionEntry(kind, name, {}))
    entries[sid] = replace(entry, values={**entry.values, **values})
    _save(tree, entries)


def drop(tree: Tree, sid: str) -> None:
    """Take a resource out of HA. Fault where it is not in it."""
    entries = resources(tree)
    if entries.pop(sid, None) is None:
        raise Fault(f"cannot delete service '{sid}', not HA managed!")
    _save(tree, entries)


def due(tree: Tree) -> list[tuple[int, str]]:
    """The guests of this node whose process is not as wanted, each with `start` or `stop`."""
    wishes = {
        int(entry.id): wanted(entry)
        for entry in resources(tree).values()
        if entry.type == "vm" and configs.path_of(tree, int(entry.id)).exists()
    }
    return [
        (vmid, "stop" if guest_pid(tree, vmid) else "start")
        for vmid, wish in sorted(wishes.items())
        if wish == ("stopped" if guest_pid(tree, vmid) else "started")
    ]


def retries(tree: Tree, vmid: int) -> int:
    """How often a start that failed is tried again on this node."""
    entry = resources(tree).get(f"vm:{vmid}")
    return int(entry.values.get("max_restart", _RETRIES)) if entry else 0


def ask(tree: Tree, command: str, sid: str, target: str) -> None:
    """File a request: `migrate` or `relocate`."""
    path = tree.pve / _REQUESTS
    before = path.read_text() if path.exists() else ""
    configs.replace(path, f"{before}{command} {sid} {target}\n".encode())


def take_requests(tree: Tree) -> list[Request]:
    """What was asked for, once."""
    path = tree.pve / _REQUESTS
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    return [
        Request(int(sid.partition(":")[2]), target, stops=command == "relocate")
        for command, sid, target in lines
        if configs.path_of(tree, int(sid.partition(":")[2])).exists()
    ]


def _save(tree: Tree, entries: Mapping[str, SectionEntry]) -> None:
    text = pvesections.write_sections(entries.values())
    configs.replace(tree.pve / _FILE, text.encode("utf-8", "surrogateescape"))
    clusterfs.bump(tree, _FILE)
