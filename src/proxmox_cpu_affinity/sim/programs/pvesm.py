"""The simulated node's `pvesm`: status, path, list, and set for a storage's content types."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from proxmox_cpu_affinity.formats import pvesections
from proxmox_cpu_affinity.formats.pvesections import Storage, snippet_path
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.sim import clusterfs, configs, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.programs import options
from proxmox_cpu_affinity.sim.tree import Tree

_KIB = 1024


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one command. Fault."""
    name = words[0] if words else ""
    if name not in _COMMANDS:
        raise Fault(f"ERROR: unknown command 'pvesm {name}'\nUSAGE: pvesm <COMMAND> [ARGS]")
    return _COMMANDS[name](tree, words[1:])


def _status(tree: Tree, words: Sequence[str]) -> int:
    usage = "pvesm status [OPTIONS]"
    known = ("content", "storage", "enabled")
    read = options.read(words, usage=usage, count=0, known=known)
    content, only = read.options.get("content"), read.options.get("storage")
    found = [
        storage
        for _, storage in sorted(configs.storages(tree).items())
        if (only is None or storage.id == only) and (content is None or content in storage.content)
    ]
    width = max([10, *(len(storage.id) for storage in found)])
    say.out(
        f"{'Name':<{width}} {'Type':>10} {'Status':>10} {'Total':>15} {'Used':>15}"
        f" {'Available':>15} {'%':>8}"
    )
    for storage in found:
        state, total, used, free, share = _space(tree, storage)
        say.out(
            f"{storage.id:<{width}} {storage.type:>10} {state:>10} {total:>15} {used:>15}"
            f" {free:>15} {share:>8}"
        )
    return 0


def _space(tree: Tree, storage: Storage) -> tuple[str, int, int, int, str]:
    """State, KiB in total, used and free, and the share used."""
    if not storage.usable_on(tree.settings.name):
        return "disabled", 0, 0, 0, "N/A"
    folder = tree.at(storage.path) if storage.path else None
    if folder is None or not folder.is_dir():
        return "inactive", 0, 0, 0, "0.00%"
    total, used, free = (size // _KIB for size in shutil.disk_usage(folder))
    return "active", total, used, free, f"{100 * used / max(total, 1):.2f}%"


def _path(tree: Tree, words: Sequence[str]) -> int:
    read = options.read(words, usage="pvesm path <volume>", count=1)
    try:
        say.out(snippet_path(configs.storages(tree), read.arguments[0]))
    except AffinityError as error:
        raise Fault(error.text) from error
    return 0


def _list(tree: Tree, words: Sequence[str]) -> int:
    usage = "pvesm list <storage> [OPTIONS]"
    read = options.read(words, usage=usage, count=1, known=("content", "vmid"))
    storage = configs.storages(tree).get(read.arguments[0])
    if storage is None:
        raise Fault(f"storage '{read.arguments[0]}' does not exist")
    rows = [("Volid", "Format", "Type", "Size", "VMID")]
    if storage.path and "snippets" in storage.content:
        folder = tree.at(storage.path) / storage.content_dirs.get("snippets", "snippets").strip("/")
        rows += [
            (
                f"{storage.id}:snippets/{path.name}",
                "snippet",
                "snippets",
                f"{path.stat().st_size}",
                "",
            )
            for path in sorted(folder.glob("*"))
            if path.is_file()
        ]
    width = max(len(row[0]) for row in rows)
    for volume, form, kind, size, vmid in rows:
        say.out(f"{volume:<{width}}  {form:<7} {kind:<8} {size:>10} {vmid}".rstrip())
    return 0


def _set(tree: Tree, words: Sequence[str]) -> int:
    usage = "pvesm set <storage> [OPTIONS]"
    known = ("content", "nodes", "disable", "shared")
    read = options.read(words, usage=usage, count=1, known=known)
    name = read.arguments[0]
    file = tree.pve / "storage.cfg"
    entries = pvesections.parse_sections(configs.read_text(file))
    if name not in {entry.id for entry in entries}:
        raise Fault(f"update storage failed: storage '{name}' does not exist")
    text = pvesections.write_sections(
        replace(entry, values={**entry.values, **read.options}) if entry.id == name else entry
        for entry in entries
    )
    configs.replace(file, text.encode("utf-8", "surrogateescape"))
    clusterfs.bump(tree, "storage.cfg")
    return 0


_COMMANDS = {"status": _status, "path": _path, "list": _list, "set": _set}
