"""The commands of the simulated node's `qm` that change guests' files."""

from proxmox_cpu_affinity.formats import pveschema
from proxmox_cpu_affinity.sim import configs, edits, lifecycle, snapshots, tasks
from proxmox_cpu_affinity.sim.edits import Guards
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault, MissingGuest
from proxmox_cpu_affinity.sim.programs.options import Command, Words, is_key
from proxmox_cpu_affinity.sim.tree import Tree


def keys_of(words: Words) -> dict[str, str]:
    """The options that are keys of a guest's file."""
    return {key: value for key, value in words.options.items() if is_key(key)}


def _create(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    values = edits.validated(tree, keys_of(words), usage=words.usage)
    status = tasks.run(tree, "qmcreate", vmid, lambda: edits.create(tree, vmid, values))
    if status == 0 and words.flag("start"):
        return tasks.run(tree, "qmstart", vmid, lambda: lifecycle.start(tree, vmid))
    return status


def _set(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    if not configs.path_of(tree, vmid).exists():
        raise MissingGuest(tree.settings.name, vmid)
    changes: dict[str, str | None] = dict(edits.validated(tree, keys_of(words), usage=words.usage))
    changes |= dict.fromkeys(_named(words, "delete"))
    revert = _named(words, "revert")
    if not changes and not revert:
        raise Fault(f"no options specified\n{words.usage}")
    guards = Guards(words.options.get("digest", ""), words.flag("skiplock"))
    edits.change(tree, vmid, changes, revert=revert, guards=guards, usage=words.usage)
    return 0


def _named(words: Words, option: str) -> list[str]:
    """The keys that an option names. BadParameter."""
    keys = list(pveschema.split_list(words.options.get(option, "")))
    for key in keys:
        if not is_key(key):
            raise BadParameter(option, f"unknown option '{key}'", usage=words.usage)
        if key in words.options:
            both = f"you can't use '-{key}' and '-{option} {key}' at the same time"
            raise BadParameter(option, both, usage=words.usage)
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


def _snapshot(tree: Tree, words: Words) -> int:
    vmid, name = words.vmid(), words.arguments[1]
    snapshots.check_name(name, usage=words.usage)
    text, ram = words.options.get("description", ""), words.flag("vmstate")
    return tasks.run(
        tree,
        "qmsnapshot",
        vmid,
        lambda: snapshots.take(tree, vmid, name, description=text, ram=ram),
    )


def _delsnapshot(tree: Tree, words: Words) -> int:
    vmid, name = words.vmid(), words.arguments[1]
    return tasks.run(tree, "qmdelsnapshot", vmid, lambda: snapshots.delete(tree, vmid, name))


def _rollback(tree: Tree, words: Words) -> int:
    vmid, name, start = words.vmid(), words.arguments[1], words.flag("start")
    return tasks.run(
        tree, "qmrollback", vmid, lambda: snapshots.rollback(tree, vmid, name, start=start)
    )


def _unlock(tree: Tree, words: Words) -> int:
    vmid = words.vmid()
    with configs.locked(tree, vmid):
        configs.update(tree, vmid, {"lock": None})
    return 0


_SNAPSHOT = "<vmid> <snapname>"

COMMANDS = {
    "clone": Command(_clone, "<vmid> <newid>", known=("name",), flags=("full",)),
    "create": Command(_create, flags=("start",), takes_keys=True),
    "delsnapshot": Command(_delsnapshot, _SNAPSHOT, flags=("force",)),
    "destroy": Command(_destroy, flags=("purge",)),
    "rollback": Command(_rollback, _SNAPSHOT, flags=("start",)),
    "set": Command(
        _set, known=("delete", "digest", "revert"), flags=("skiplock",), takes_keys=True
    ),
    "snapshot": Command(_snapshot, _SNAPSHOT, known=("description",), flags=("vmstate",)),
    "template": Command(_template),
    "unlock": Command(_unlock),
}
