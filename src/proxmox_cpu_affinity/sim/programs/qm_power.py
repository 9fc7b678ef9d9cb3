"""The commands of the simulated node's `qm` that start, stop, pause or move guests."""

from collections.abc import Callable

from proxmox_cpu_affinity.sim import (
    configs,
    ha,
    inventory,
    lifecycle,
    migration,
    qmp,
    ramstate,
    say,
    tasks,
)
from proxmox_cpu_affinity.sim.faults import Fault, MissingGuest
from proxmox_cpu_affinity.sim.lifecycle import StartOptions, StopOptions
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.programs.options import Command, Words
from proxmox_cpu_affinity.sim.tree import Tree

# Words that the real qm does not have. What the local resource manager starts, stops and moves is
# not filed as a request again; a start for a migration can be made to fail.
_AS_HA, _BREAKS = "as-ha", "breaks"


def _start(tree: Tree, words: Words) -> int:
    vmid, uri = words.vmid(), words.options.get("stateuri", "")
    if uri not in {"", "unix"}:
        raise Fault(f"stateuri '{uri}' is not simulated; take unix")
    if not uri and _filed(tree, words, state="started"):
        return 0
    how = StartOptions(
        skiplock=words.flag("skiplock"),
        migrated_from=words.options.get("migratedfrom", ""),
        listens=bool(uri),
        breaks=words.flag(_BREAKS),
    )
    return tasks.run(tree, "qmstart", vmid, lambda: lifecycle.start(tree, vmid, how))


def _stop(tree: Tree, words: Words) -> int:
    vmid, source = words.vmid(), words.options.get("migratedfrom", "")
    if not source and _filed(tree, words, state="stopped"):
        return 0
    how = StopOptions(
        force=True,
        timeout=words.seconds("timeout"),
        skiplock=words.flag("skiplock"),
        migrated_from=source,
    )
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


def _suspend(tree: Tree, words: Words) -> int:
    vmid, skiplock = words.vmid(), words.flag("skiplock")
    if not words.flag("todisk"):
        return _monitor_command("stop")(tree, words)
    configs.load(tree, vmid)
    return tasks.run(
        tree, "qmsuspend", vmid, lambda: ramstate.hibernate(tree, vmid, skiplock=skiplock)
    )


def _resume(tree: Tree, words: Words) -> int:
    vmid, skiplock = words.vmid(), words.flag("skiplock")
    if configs.load(tree, vmid).main.values.get("lock") != "suspended":
        return _monitor_command("cont")(tree, words)
    how = StartOptions(skiplock=skiplock)
    return tasks.run(tree, "qmresume", vmid, lambda: lifecycle.start(tree, vmid, how))


def _migrate(tree: Tree, words: Words) -> int:
    vmid, target, online = words.vmid(), words.arguments[1], words.flag("online")
    migration.check(tree, vmid, target, online=online, usage=words.usage)
    if ha.managed(tree, vmid) and not words.flag(_AS_HA):
        say.out(f"Requesting HA migration for VM {vmid} to node {target}")
        ha.ask(tree, "migrate", f"vm:{vmid}", target)
        return 0
    return tasks.run(tree, "qmigrate", vmid, lambda: migration.leave(tree, vmid, target))


def _monitor_command(name: str) -> Callable[[Tree, Words], int]:
    """A command that is one word to QEMU, like reset; it fires no hook."""

    def run(tree: Tree, words: Words) -> int:
        vmid = words.vmid()
        file = configs.load(tree, vmid)
        # A backup may be paused and resumed.
        if not words.flag("skiplock") and file.main.values.get("lock") != "backup":
            configs.check_lock(file)
        if not guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} not running")
        try:
            qmp.ask(tree.qmp(vmid), name)
        except qmp.QmpError as error:
            raise Fault(f"VM {vmid} qmp command '{name}' failed - {error}") from error
        return 0

    return run


def _cleanup(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    clean, by_guest = (word == "1" for word in words.arguments[1:])
    lifecycle.cleanup(tree, vmid, clean=clean, by_guest=by_guest)
    return 0


_POWER = ("skiplock", _AS_HA)
_MIGRATED = ("migratedfrom", "migration_type", "migration_network", "stateuri", "machine")

COMMANDS = {
    "cleanup": Command(_cleanup, "<vmid> <clean-shutdown> <guest-requested>"),
    "migrate": Command(_migrate, "<vmid> <target>", flags=("online", "force", _AS_HA)),
    "reboot": Command(_reboot, known=("timeout",)),
    "reset": Command(_monitor_command("system_reset"), flags=("skiplock",)),
    "resume": Command(_resume, flags=("skiplock", "nocheck")),
    "shutdown": Command(_shutdown, known=("timeout",), flags=(*_POWER, "forceStop", "keepActive")),
    "start": Command(_start, known=("timeout", *_MIGRATED), flags=(*_POWER, _BREAKS)),
    "stop": Command(_stop, known=("timeout", "migratedfrom"), flags=(*_POWER, "keepActive")),
    "suspend": Command(_suspend, flags=("skiplock", "todisk")),
}
