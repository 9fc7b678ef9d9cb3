"""The simulated node's `pvesh`: `get` of what tools ask about guests, printed as JSON only."""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from proxmox_cpu_affinity.formats.pveschema import Kind, kind_of
from proxmox_cpu_affinity.sim import configs, ha, inventory, pending, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.programs import options
from proxmox_cpu_affinity.sim.programs.options import Words
from proxmox_cpu_affinity.sim.tree import Tree

_USAGE = "pvesh get <api_path> [OPTIONS]"
_FORMATS = {"json": None, "json-pretty": 3}


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one command. Fault."""
    if not words or words[0] != "get":
        raise Fault(f"ERROR: unknown command 'pvesh {' '.join(words[:1])}'\nUSAGE: {_USAGE}")
    known = ("output-format", "type", "current", "full")
    read = options.read(words[1:], usage=_USAGE, count=1, known=known, flags=("noborder",))
    form = read.options.get("output-format", "json-pretty")
    if form not in _FORMATS:
        raise Fault(f"output format '{form}' is not simulated; take json or json-pretty")
    value = _get(tree, read)
    compact = (",", ":") if form == "json" else None
    say.out(json.dumps(value, indent=_FORMATS[form], separators=compact, sort_keys=True))
    return 0


def _get(tree: Tree, read: Words) -> object:
    # `localhost` stands for this node in every path.
    path = re.sub(r"^/?nodes/localhost(?=/|$)", f"/nodes/{tree.settings.name}", read.arguments[0])
    path = "/" + path.strip("/")
    for pattern, answer in _PATHS.items():
        if match := re.fullmatch(pattern, path):
            _check_node(tree, match.groupdict())
            return answer(tree, read, int(match.groupdict().get("vmid") or 0))
    raise Fault(f"No '{path}' handler defined for 'get'")


def _check_node(tree: Tree, parts: Mapping[str, str]) -> None:
    node = parts.get("node", tree.settings.name)
    if node != tree.settings.name:
        raise Fault(f"hostname lookup '{node}' failed - failed to get address info for: {node}")


def _nodes(tree: Tree, _read: Words, _vmid: int) -> object:
    name = tree.settings.name
    return [{"id": f"node/{name}", "node": name, "status": "online", "type": "node"}]


def _guests(tree: Tree, _read: Words, _vmid: int) -> object:
    return [_with_pid(tree, guest) for guest in inventory.views(tree)]


def _config(tree: Tree, read: Words, vmid: int) -> object:
    file = configs.load(tree, vmid)
    section = file.main if read.flag("current") else pending.effective(file)
    config: dict[str, object] = {key: _typed(key, text) for key, text in section.values.items()}
    if section.description:
        config["description"] = section.description + "\n"
    return config | {"digest": configs.digest(tree, vmid)}


def _typed(key: str, text: str) -> str | int:
    """A value as the API's JSON has it: integers and booleans as numbers, all else as text."""
    return int(text) if kind_of(key) in {Kind.INTEGER, Kind.BOOLEAN} else text


def _current(tree: Tree, _read: Words, vmid: int) -> object:
    guest = inventory.view(tree, vmid)
    state = inventory.run_state(tree, guest)
    managed = {"managed": 1 if ha.managed(tree, vmid) else 0}
    return _with_pid(tree, guest) | {"qmpstatus": state, "ha": managed}


def _with_pid(tree: Tree, guest: inventory.GuestView) -> dict[str, object]:
    entry = inventory.resource(tree, guest)
    return entry | ({"pid": guest.pid} if guest.pid else {})


def _resources(tree: Tree, read: Words, _vmid: int) -> object:
    name = tree.settings.name
    guests = [
        inventory.resource(tree, guest)
        | {"id": f"qemu/{guest.config.vmid}", "type": "qemu", "node": name}
        | _ha_state(tree, guest.config.vmid)
        for guest in inventory.views(tree)
    ]
    node = [{"id": f"node/{name}", "type": "node", "node": name, "status": "online"}]
    storages = [
        {"id": f"storage/{name}/{entry.id}", "type": "storage", "node": name, "storage": entry.id}
        for entry in configs.storages(tree).values()
    ]
    kinds: dict[str, Sequence[object]] = {"vm": guests, "node": node, "storage": storages}
    kind = read.options.get("type")
    return [entry for known in kinds if kind in {None, known} for entry in kinds[known]]


def _ha_state(tree: Tree, vmid: int) -> dict[str, object]:
    entry = ha.resources(tree).get(f"vm:{vmid}")
    return {} if entry is None else {"hastate": ha.wanted(entry)}


_NODE = r"/nodes/(?P<node>[^/]+)"
_GUEST = _NODE + r"/qemu/(?P<vmid>[1-9][0-9]{2,8})"

_PATHS: Mapping[str, Callable[[Tree, Words, int], object]] = {
    r"/nodes": _nodes,
    _NODE + r"/qemu": _guests,
    _GUEST + r"/config": _config,
    _GUEST + r"/status/current": _current,
    r"/cluster/resources": _resources,
}
