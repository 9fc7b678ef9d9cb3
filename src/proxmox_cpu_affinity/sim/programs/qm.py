"""The simulated node's `qm`: PVE's words, messages and exit statuses.

Out of scope so far: migrate, snapshots, rollback, hibernation, backup, disks, guest agent.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.formats import pveschema
from proxmox_cpu_affinity.formats.pveconf import Section, encode_text, pending_deletions
from proxmox_cpu_affinity.sim import (
    configs,
    edits,
    guests,
    ha,
    inventory,
    lifecycle,
    pending,
    qmp,
    say,
    tasks,
)
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault, MissingGuest
from proxmox_cpu_affinity.sim.lifecycle import StopOptions
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.programs import options
from proxmox_cpu_affinity.sim.programs.options import Words
from proxmox_cpu_affinity.sim.tree import Tree

# The words of the local resource manager: what it starts and stops is not filed as a request again.
_AS_HA = "as-ha"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of qm: its arguments by name, its options, and what it does."""

    run: Callable[[Tree, Words], int]
    arguments: str = "<vmid>"
    known: Collection[str] = ()
    flags: Collection[str] = ()
    takes_keys: bool = False  # every key of a guest's file is an option too


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one command. Fault."""
    if not words or words[0] not in COMMANDS:
        shown = (
            f"ERROR: unknown command 'qm {words[0]}'" if words else "ERROR: no command specified"
        )
        names = "|".join(sorted(COMMANDS))
        raise Fault(f"{shown}\nUSAGE: qm <COMMAND> [ARGS] [OPTIONS]\n       COMMAND: {names}")
    name, *rest = words
    command = COMMANDS[name]
    known = set(command.known)
    if command.takes_keys:
        given = (word.lstrip("-").partition("=")[0] for word in rest if word.startswith("-"))
        known |= {key for key in given if _is_key(key)}
    usage = " ".join(("qm", name, command.arguments, "[OPTIONS]"))
    count = len(command.arguments.split())
    read = options.read(rest, usage=usage, count=count, known=known, flags=command.flags)
    return command.run(tree, read)


def _keys(words: Words) -> dict[str, str]:
    return {key: value for key, value in words.options.items() if _is_key(key)}


def _is_key(name: str) -> bool:
    return name == "description" or pveschema.kind_of(name) is not None


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


def _create(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    values = edits.validated(tree, _keys(words), usage=words.usage)
    status = tasks.run(tree, "qmcreate", vmid, lambda: edits.create(tree, vmid, values))
    if status == 0 and words.flag("start"):
        return tasks.run(tree, "qmstart", vmid, lambda: lifecycle.start(tree, vmid))
    return status


def _set(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    if not configs.path_of(tree, vmid).exists():
        raise MissingGuest(tree.settings.name, vmid)
    changes: dict[str, str | None] = dict(edits.validated(tree, _keys(words), usage=words.usage))
    changes |= dict.fromkeys(_deletions(words))
    if not changes:
        raise Fault(f"no options specified\n{words.usage}")
    digest = words.options.get("digest", "")
    edits.change(tree, vmid, changes, digest=digest, skiplock=words.flag("skiplock"))
    return 0


def _deletions(words: Words) -> list[str]:
    """The keys to delete. BadParameter."""
    keys = list(pveschema.split_list(words.options.get("delete", "")))
    for key in keys:
        if not _is_key(key):
            raise BadParameter("delete", f"unknown option '{key}'", usage=words.usage)
        if key in words.options:
            both = f"you can't use '-{key}' and '-delete {key}' at the same time"
            raise BadParameter("delete", both, usage=words.usage)
    return keys


def _destroy(tree: Tree, words: Words) -> int:
    vmid, purge = words.vmid(), words.flag("purge")
    return tasks.run(tree, "qmdestroy", vmid, lambda: edits.destroy(tree, vmid, purge=purge))


def _clone(tree: Tree, words: Words) -> int:
    vmid, new = words.vmid(), words.vmid(1, name="newid")
    name = words.options.get("name", "")
    return tasks.run(tree, "qmclone", vmid, lambda: edits.clone(tree, vmid, new, name=name))


def _template(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    return tasks.run(tree, "qmtemplate", vmid, lambda: edits.template(tree, vmid))


def _start(tree: Tree, words: Words) -> int:
    vmid, skiplock = words.vmid(), words.flag("skiplock")
    if _filed(tree, words, state="started"):
        return 0
    return tasks.run(tree, "qmstart", vmid, lambda: lifecycle.start(tree, vmid, skiplock=skiplock))


def _stop(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    if _filed(tree, words, state="stopped"):
        return 0
    how = StopOptions(force=True, timeout=words.seconds("timeout"), skiplock=words.flag("skiplock"))
    return tasks.run(tree, "qmstop", vmid, lambda: lifecycle.stop(tree, vmid, how))


def _shutdown(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    if _filed(tree, words, state="stopped"):
        return 0
    how = StopOptions(
        shutdown=True,
        force=words.flag("forceStop"),
        timeout=words.seconds("timeout"),
        skiplock=words.flag("skiplock"),
    )
    state = inventory.run_state(tree, inventory.view(tree, vmid))
    if state == "stopped":
        say.warn(f"VM {vmid} not running")
    if state == "paused":
        if not how.force:
            raise Fault("VM is paused - cannot shutdown")
        say.warn("VM is paused - stopping instead of shutdown")
        how = StopOptions(force=True, timeout=how.timeout, skiplock=how.skiplock)
    return tasks.run(tree, "qmshutdown", vmid, lambda: lifecycle.stop(tree, vmid, how))


def _reboot(tree: Tree, words: Words) -> int:
    vmid, timeout = words.vmid(), words.seconds("timeout")
    return tasks.run(tree, "qmreboot", vmid, lambda: lifecycle.reboot(tree, vmid, timeout=timeout))


def _filed(tree: Tree, words: Words, *, state: str) -> bool:
    """Whether the guest is HA's, and so a request was filed in place of the deed."""
    vmid = words.vmid()
    if words.flag(_AS_HA) or not ha.managed(tree, vmid):
        return False
    if not configs.path_of(tree, vmid).exists():
        raise MissingGuest(tree.settings.name, vmid)
    verb = "start" if state == "started" else "stop"
    say.out(f"Requesting HA {verb} for VM {vmid}")
    ha.put(tree, f"vm:{vmid}", {"state": state})
    return True


def _monitor_command(name: str) -> Callable[[Tree, Words], int]:
    """A command that is one word to QEMU, like reset; it fires no hook."""

    def run(tree: Tree, words: Words) -> int:
        vmid = words.vmid()
        file = configs.load(tree, vmid)
        if not words.flag("skiplock"):
            configs.check_lock(file)
        if not guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} not running")
        try:
            qmp.ask(tree.qmp(vmid), name)
        except qmp.QmpError as error:
            raise Fault(f"VM {vmid} qmp command '{name}' failed - {error}") from error
        return 0

    return run


def _unlock(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    with configs.locked(tree, vmid):
        configs.update(tree, vmid, {"lock": None})
    return 0


def _cleanup(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    clean, by_guest = (word == "1" for word in words.arguments[1:])
    lifecycle.cleanup(tree, vmid, clean=clean, by_guest=by_guest)
    return 0


_POWER = ("skiplock", _AS_HA)

COMMANDS: Mapping[str, Command] = {
    "cleanup": Command(_cleanup, "<vmid> <clean-shutdown> <guest-requested>"),
    "clone": Command(_clone, "<vmid> <newid>", known=("name",), flags=("full",)),
    "config": Command(_config, known=("snapshot",), flags=("current",)),
    "create": Command(_create, flags=("start",), takes_keys=True),
    "destroy": Command(_destroy, flags=("purge",)),
    "list": Command(_list, "", flags=("full",)),
    "pending": Command(_pending),
    "reboot": Command(_reboot, known=("timeout",)),
    "reset": Command(_monitor_command("system_reset"), flags=("skiplock",)),
    "resume": Command(_monitor_command("cont"), flags=("skiplock",)),
    "set": Command(_set, known=("delete", "digest"), flags=("skiplock",), takes_keys=True),
    "showcmd": Command(_showcmd),
    "shutdown": Command(_shutdown, known=("timeout",), flags=(*_POWER, "forceStop", "keepActive")),
    "start": Command(_start, flags=_POWER),
    "status": Command(_status),
    "stop": Command(_stop, known=("timeout",), flags=(*_POWER, "keepActive")),
    "suspend": Command(_monitor_command("stop"), flags=("skiplock",)),
    "template": Command(_template),
    "unlock": Command(_unlock),
}
