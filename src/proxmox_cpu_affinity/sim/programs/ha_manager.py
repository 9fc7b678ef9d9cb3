"""The simulated node's `ha-manager`: config, status, add, set, remove, migrate, relocate."""

import time
from collections.abc import Callable, Sequence

from proxmox_cpu_affinity.sim import configs, ha, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.programs import options
from proxmox_cpu_affinity.sim.tree import Tree

_KEYS = ("comment", "failback", "group", "max_relocate", "max_restart", "state", "type")


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one command. Fault."""
    name = words[0] if words else ""
    if name not in _COMMANDS:
        text = f"ERROR: unknown command 'ha-manager {name}'\nUSAGE: ha-manager <COMMAND> [ARGS]"
        raise Fault(text)
    return _COMMANDS[name](tree, words[1:])


def _config(tree: Tree, words: Sequence[str]) -> int:
    options.read(words, usage="ha-manager config [OPTIONS]", count=0, known=("type",))
    records = (
        "\n".join((sid, *(f"\t{key} {value}" for key, value in sorted(entry.values.items()))))
        for sid, entry in sorted(ha.resources(tree).items())
    )
    if text := "\n\n".join(records):
        say.out(text + "\n")
    return 0


def _status(tree: Tree, words: Sequence[str]) -> int:
    options.read(words, usage="ha-manager status [OPTIONS]", count=0, flags=("verbose",))
    found = sorted(ha.resources(tree).items())
    say.out("quorum OK")
    if not found:
        return 0
    host, date = tree.settings.name, time.strftime("%a %b %e %H:%M:%S %Y")
    say.out(f"master {host} (active, {date})")
    say.out(f"lrm {host} (active, {date})")
    for sid, entry in found:
        state = ha.wanted(entry)
        if state in {"started", "stopped"} and entry.type == "vm":
            state = "started" if guest_pid(tree, int(entry.id)) else "stopped"
        say.out(f"service {sid} ({host}, {state})")
    return 0


def _add(tree: Tree, words: Sequence[str]) -> int:
    read = options.read(words, usage="ha-manager add <sid> [OPTIONS]", count=1, known=_KEYS)
    sid = _service(read.arguments[0])
    if sid in ha.resources(tree):
        raise Fault(f"resource ID '{sid}' already defined")
    if not configs.path_of(tree, int(sid.partition(":")[2])).exists():
        raise Fault(f"guest '{sid}' does not exist")
    ha.put(tree, sid, read.options)
    return 0


def _set(tree: Tree, words: Sequence[str]) -> int:
    read = options.read(words, usage="ha-manager set <sid> [OPTIONS]", count=1, known=_KEYS)
    sid = _service(read.arguments[0])
    if sid not in ha.resources(tree):
        raise Fault(f"no such resource '{sid}'")
    ha.put(tree, sid, read.options)
    return 0


def _remove(tree: Tree, words: Sequence[str]) -> int:
    read = options.read(words, usage="ha-manager remove <sid>", count=1, flags=("purge",))
    ha.drop(tree, _service(read.arguments[0]))
    return 0


def _sent(command: str) -> Callable[[Tree, Sequence[str]], int]:
    """A command that files a guest's way to another node."""

    def run(tree: Tree, words: Sequence[str]) -> int:
        read = options.read(words, usage=f"ha-manager {command} <sid> <node>", count=2)
        sid, target = _service(read.arguments[0]), read.arguments[1]
        if sid not in ha.resources(tree):
            raise Fault(f"no such resource '{sid}'")
        configs.check_node(tree, target)
        ha.ask(tree, command, sid, target)
        return 0

    return run


def _service(text: str) -> str:
    """A service id; a VMID alone stands for a virtual machine's. Fault."""
    sid = f"vm:{text}" if text.isdigit() else text
    kind, _, name = sid.partition(":")
    if kind not in {"vm", "ct"} or not name.isdigit():
        raise Fault(f"unable to parse ha resource id '{text}'", status=2)
    return sid


_COMMANDS = {
    "config": _config,
    "migrate": _sent("migrate"),
    "relocate": _sent("relocate"),
    "status": _status,
    "add": _add,
    "set": _set,
    "remove": _remove,
}
