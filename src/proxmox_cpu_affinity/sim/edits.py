"""Making, changing and removing guests: what `qm create|set|destroy|clone|template` do."""

import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from proxmox_cpu_affinity.formats.pveconf import GuestFile, Section
from proxmox_cpu_affinity.formats.pveschema import checked
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.sim import configs, cpus, ha, hooks, pending, ramstate, say
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault
from proxmox_cpu_affinity.sim.pending import Changes
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree


def validated(tree: Tree, values: Mapping[str, str], *, usage: str) -> dict[str, str]:
    """Values as PVE stores them when they are set by command. BadParameter.

    Stricter than reading: the hookscript must exist, counts have a least value.
    """
    result: dict[str, str] = {}
    for key, value in values.items():
        try:
            result[key] = value if key == "description" else checked(key, value)
            if key == "hookscript":
                hooks.check(tree, value)
        except (SyntaxFault, Fault) as fault:
            raise BadParameter(key, fault.text, usage=usage) from fault
        if key in {"cores", "sockets", "vcpus"} and result[key] == "0":
            raise BadParameter(key, "value must have a minimum value of 1", usage=usage)
    return result


def create(tree: Tree, vmid: int, values: Mapping[str, str]) -> None:
    """A new guest; without a disk, whatever its values say. Fault."""
    owner = configs.node_of(tree, vmid)
    if owner is not None:
        raise Fault(
            f"unable to create VM {vmid} - VM {vmid} already exists on node '{owner}'", status=255
        )
    with configs.locked(tree, vmid):
        configs.save(tree, vmid, GuestFile().with_main({**_identity(tree), **values}))


@dataclass(frozen=True, slots=True)
class Guards:
    """What must hold for a change: the file's digest, unless empty, and that no lock is set."""

    digest: str = ""
    skiplock: bool = False


def change(
    tree: Tree, vmid: int, changes: Changes, *, revert: Collection[str], guards: Guards, usage: str
) -> None:
    """Set keys, or delete them (None); a running guest takes some of them only later. What waits
    for the keys of `revert` is forgotten. Fault, BadParameter."""
    with configs.locked(tree, vmid):
        if guards.digest and guards.digest != configs.digest(tree, vmid):
            raise Fault("detected modified configuration - file changed by other user? Try again.")
        file = configs.load(tree, vmid)
        if not guards.skiplock:
            configs.check_lock(file)
        _announce(vmid, changes, revert)
        running = guest_pid(tree, vmid) is not None
        file = pending.revert(file, revert)
        configs.save(tree, vmid, pending.request(file, _known(file, changes), running=running))
        if running:
            _plug(tree, vmid, usage=usage)


def _plug(tree: Tree, vmid: int, *, usage: str) -> None:
    """What else a running guest takes at once. BadParameter; the change then goes on waiting."""
    try:
        cpus.plug(tree, vmid)
    except Fault as error:
        raise BadParameter("vcpus", f"hotplug problem - {error}", usage=usage) from error


def destroy(tree: Tree, vmid: int, *, purge: bool = False) -> None:
    """Remove a stopped guest. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        configs.check_lock(file)
        if file.main.values.get("protection") == "1":
            raise Fault(f"can't remove VM {vmid} - protection mode is enabled")
        sid = f"vm:{vmid}"
        if sid in ha.resources(tree):
            if not purge:
                raise Fault(
                    f"unable to remove VM {vmid} - used in HA resources and purge parameter not set"
                )
            ha.drop(tree, sid)
        if guest_pid(tree, vmid):
            raise Fault(f"VM {vmid} is running - destroy failed")
        configs.remove(tree, vmid)
        ramstate.remove_all(tree, vmid)


def clone(tree: Tree, vmid: int, new: int, *, name: str = "") -> None:
    """A copy under another number; hookscript and affinity come with it. Fault."""
    if configs.node_of(tree, new) is not None:
        raise Fault(f"unable to create VM {new}: config file already exists")
    with configs.locked(tree, vmid):
        source = configs.load(tree, vmid)
        configs.check_lock(source)
        original = source.main.values.get("name", f"VM-{vmid}")
        changes: dict[str, str | None] = {
            **_identity(tree),
            "name": name or f"Copy-of-{original}",
            **dict.fromkeys(("template", "parent", "lock")),
        }
        configs.save(tree, new, GuestFile(main=replace(source.main, dropped={})).with_main(changes))


def template(tree: Tree, vmid: int) -> None:
    """Turn a stopped guest into a template. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        configs.check_lock(file)
        if file.main.values.get("template") == "1":
            raise Fault("you can't convert a template to a template")
        if guest_pid(tree, vmid):
            raise Fault("you can't convert a VM to template if VM is running")
        configs.update(tree, vmid, {"template": "1"})


def _identity(tree: Tree) -> dict[str, str]:
    version = ".".join(map(str, tree.settings.qemu_version))
    return {
        "meta": f"creation-qemu={version},ctime={int(time.time())}",
        "smbios1": f"uuid={uuid.uuid4()}",
        "vmgenid": str(uuid.uuid4()),
    }


def _announce(vmid: int, changes: Changes, revert: Collection[str]) -> None:
    """The line that PVE prints: the options as given, deletions under one of their own."""
    deleted = ",".join(key for key, value in changes.items() if value is None)
    given = {key: value for key, value in changes.items() if value is not None}
    lists = {"delete": deleted, "revert": ",".join(revert)}
    shown = {**given, **{key: value for key, value in lists.items() if value}}
    words = " ".join(f"-{key} {value}" for key, value in sorted(shown.items()))
    say.out(f"update VM {vmid}: {words}")


def _known(file: GuestFile, changes: Changes) -> Changes:
    """The changes without deletions of keys that are not set, which only get a warning."""
    kept: dict[str, str | None] = {}
    for key, value in changes.items():
        if value is None and not _is_set(file.main, key) and not _is_set(file.pending, key):
            note = f"cannot delete '{key}' - not set in current configuration!"
            say.warn(note)
        else:
            kept[key] = value
    return kept


def _is_set(section: Section, key: str) -> bool:
    return pending.value_of(section, key) is not None or key in section.dropped
