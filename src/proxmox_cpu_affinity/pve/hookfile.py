"""The hook as a file: where ours lies, and putting it where a storage keeps its snippets.

For the command line only. A guest whose hookscript is missing does not start, so a file is always
replaced in one step and looked at afterwards. Out of scope: guests' configurations (pve.qm).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.formats.pvesections import Storage
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ProgramFailedError, RefusedError
from proxmox_cpu_affinity.model.guest import HOOK_FILE
from proxmox_cpu_affinity.pve.storage import (
    check_hook,
    hook_path,
    hook_volume,
    storages,
    usability,
)

LIBEXEC = "usr/libexec/proxmox-cpu-affinity"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a storage keeps our hook, and how it is to get there."""

    volume: str
    path: str  # as the node sees it
    link: bool
    why: str  # of `link`, in words
    shared: bool


def shipped(module: Path = Path(__file__)) -> Path:
    """The folder with the hook's files: the checkout's, else the installed one.

    `module` is where this file lies. ProgramFailedError where there is none.
    """
    source = module.resolve().parents[2]
    checkout = source.parent / "hook"
    if source.name == "src" and (checkout / HOOK_FILE).is_file():
        return checkout
    installed = Path("/", LIBEXEC)
    if not (installed / HOOK_FILE).is_file():
        raise ProgramFailedError(
            f"the hookscript is not at {installed}", hint="install the package again"
        )
    return installed


def hook_source(tree: Tree) -> tuple[Path, bool]:
    """The hook to be put on a storage, and whether it is the installed one below this root."""
    installed = tree.at(f"{LIBEXEC}/{HOOK_FILE}")
    return (installed, True) if installed.is_file() else (shipped() / HOOK_FILE, False)


def place_on(tree: Tree, storage: str) -> Place:
    """Where our hook belongs on a storage. RefusedError, SyntaxFault for one that holds no files.

    A link is made on a directory of this node alone, to the installed hook: so it is as new as the
    package. Wherever another node, or nobody's package, may look, it is a copy.
    """
    known = storages(tree)
    volume = hook_volume(storage)
    path = hook_path(known, storage)
    found = known[storage]
    if found.shared:
        return Place(volume, path, link=False, why="other nodes read this storage", shared=True)
    if found.type != "dir":
        why = f"a storage of type {found.type} need not stay on this node"
        return Place(volume, path, link=False, why=why, shared=False)
    if not hook_source(tree)[1]:
        why = "the program is not installed, it runs from a checkout"
        return Place(volume, path, link=False, why=why, shared=False)
    return Place(volume, path, link=True, why="the storage is of this node alone", shared=False)


def unmounted(tree: Tree, storage: Storage) -> bool:
    """Whether a network storage is not there now: a file would land beneath it, on the host's disk.

    Below another root a folder stands for the mount.
    """
    if storage.path is None or not tree.at(storage.path).is_dir():
        return True
    on_network = storage.path == f"/mnt/pve/{storage.id}" and storage.type != "dir"
    return on_network and tree.root == Path("/") and not os.path.ismount(storage.path)


def check_place(tree: Tree, storage: str, *, node: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What speaks against putting the hook on a storage, and what is only odd."""
    found = storages(tree)[storage]
    if unmounted(tree, found):
        raise RefusedError(
            f"storage '{storage}' is not there: {found.path} is missing or not mounted",
            hint="see: pvesm status",
        )
    said = usability(found, node)
    return said.faults, said.warnings


def in_place(tree: Tree, place: Place) -> bool:
    """Whether the very hook is there already, as a file or through a link, and can be run."""
    target = tree.at(place.path)
    try:
        same = target.read_bytes() == hook_source(tree)[0].read_bytes()
    except OSError:
        return False
    return same and os.access(target, os.X_OK) and (place.link or not target.is_symlink())


def put(tree: Tree, storage: str, *, node: str) -> Place:
    """Link or copy our hook to its place, in one step for whoever reads it; then look at it.

    RefusedError where something is in the way, ProgramFailedError where it cannot be written.
    """
    place = place_on(tree, storage)
    target = tree.at(place.path)
    if target.is_dir():
        raise RefusedError(f"{place.path} is a directory", hint="move it away")
    fresh = target.with_name(f".{HOOK_FILE}.new")  # one that was never finished is replaced
    source = hook_source(tree)[0]
    try:
        target.parent.mkdir(exist_ok=True)
        fresh.unlink(missing_ok=True)
        if place.link:
            fresh.symlink_to(source)
        else:
            _copy(source, fresh)
        fresh.replace(target)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise ProgramFailedError(f"{place.path} cannot be written: {error.strerror}") from None
    if not in_place(tree, place):
        faults = check_hook(tree, storage, node=node).faults
        raise ProgramFailedError(
            f"{place.path} was written, and is not what was written: "
            + ("; ".join(faults) or "its content differs"),
            hint="may files on this storage be executable?",
        )
    return place


def _copy(source: Path, fresh: Path) -> None:
    """The content on the disk before it gets its name: half a hook would hold guests up."""
    with fresh.open("xb") as file:
        file.write(source.read_bytes())
        os.fchmod(file.fileno(), 0o755)
        file.flush()
        os.fsync(file.fileno())
