"""The commands of the simulated node's `qm` that only show something."""

from proxmox_cpu_affinity.formats.pveconf import Section, encode_text, pending_deletions
from proxmox_cpu_affinity.sim import configs, guests, inventory, pending, say, snapshots
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.programs.options import Command, Words
from proxmox_cpu_affinity.sim.tree import Tree


def _list(tree: Tree, words: Words) -> int:
    found = inventory.views(tree)
    row = "{:>10} {:<20} {:<10} {:<10} {:>12} {:<10}"
    if found:
        say.out(row.format("VMID", "NAME", "STATUS", "MEM(MB)", "BOOTDISK(GB)", "PID"))
    for guest in found:
        state = inventory.run_state(tree, guest) if words.flag("full") else guest.status
        fields = (guest.config.vmid, guest.shown_name, state, guest.memory, "0.00", guest.pid or 0)
        say.out(row.format(*fields))
    return 0


def _status(tree: Tree, words: Words) -> int:
    guest = inventory.view(tree, words.vmid())
    say.out(f"status: {inventory.run_state(tree, guest)}")
    return 0


def _config(tree: Tree, words: Words) -> int:
    file = configs.load(tree, words.vmid())
    section = file.main if words.flag("current") else pending.effective(file)
    if name := words.options.get("snapshot"):
        if name not in file.snapshots:
            raise Fault(f"snapshot '{name}' does not exist")
        section = file.snapshots[name]
    for key, value in _lines(section):
        say.out(f"{key}: {value}")
    return 0


def _lines(section: Section) -> list[tuple[str, str]]:
    values = dict(section.values)
    if section.description:
        values["description"] = encode_text(section.description + "\n")
    return sorted(values.items())


def _pending(tree: Tree, words: Words) -> int:
    file = configs.load(tree, words.vmid())
    deleted = pending_deletions(file)
    waiting = {key: value for key, value in _lines(file.pending) if key != "delete"}
    current = dict(_lines(file.main))
    for key in sorted(current | waiting):
        if key in current:
            say.out(f"cur {key}: {current[key]}")
        if key in waiting:
            say.out(f"new {key}: {waiting[key]}")
        if key in deleted:
            say.out(f"del {key}: {current.get(key, '')}")
    return 0


def _showcmd(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    say.out(" ".join(guests.command(tree, vmid, configs.load(tree, vmid))))
    return 0


def _listsnapshot(tree: Tree, words: Words) -> int:
    for line in snapshots.listed(configs.load(tree, words.vmid())):
        say.out(line)
    return 0


COMMANDS = {
    "config": Command(_config, known=("snapshot",), flags=("current",)),
    "list": Command(_list, "", flags=("full",)),
    "listsnapshot": Command(_listsnapshot),
    "pending": Command(_pending),
    "showcmd": Command(_showcmd),
    "status": Command(_status),
}
