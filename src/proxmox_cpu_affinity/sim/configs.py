"""The guests' configuration files of a node: find, read, lock, write, with PVE's discipline."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from proxmox_cpu_affinity.formats import pveconf, pvesections
from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.formats.pvesections import Storage
from proxmox_cpu_affinity.model.ids import vmid_of
from proxmox_cpu_affinity.sim import clusterfs
from proxmox_cpu_affinity.sim.faults import Fault, LockTimeout, MissingGuest
from proxmox_cpu_affinity.sim.tree import Tree

_POLL_S = 0.02


def path_of(tree: Tree, vmid: int, *, node: str = "") -> Path:
    """A guest's file in the folder of a node, this one by default."""
    return tree.pve / "nodes" / (node or tree.settings.name) / "qemu-server" / f"{vmid}.conf"


def node_of(tree: Tree, vmid: int) -> str | None:
    """The node whose folder holds a guest's file."""
    for path in (tree.pve / "nodes").glob(f"*/qemu-server/{vmid}.conf"):
        return path.parts[-3]
    return None


def vmids(tree: Tree) -> list[int]:
    """The guests of this node in numeric order; stale temporary files beside them are passed."""
    folder = tree.pve / "nodes" / tree.settings.name / "qemu-server"
    names = (path.name for path in folder.glob("*.conf"))
    return sorted(vmid for name in names if (vmid := vmid_of(name.removesuffix(".conf"))))


def read_text(path: Path) -> str:
    """A file of any encoding, as the parsers want it."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def load(tree: Tree, vmid: int, *, node: str = "") -> GuestFile:
    """A guest's configuration. MissingGuest."""
    try:
        return pveconf.parse(read_text(path_of(tree, vmid, node=node)))
    except FileNotFoundError:
        raise MissingGuest(node or tree.settings.name, vmid) from None


def digest(tree: Tree, vmid: int) -> str:
    """SHA-1 of the raw file: what --digest must name. MissingGuest."""
    try:
        data = path_of(tree, vmid).read_bytes()
    except FileNotFoundError:
        raise MissingGuest(tree.settings.name, vmid) from None
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def save(tree: Tree, vmid: int, file: GuestFile, *, node: str = "") -> None:
    """Write a guest's configuration to this node's folder, through a temporary file and rename."""
    path = path_of(tree, vmid, node=node)
    data = pveconf.write(file).encode("utf-8", "surrogateescape")
    replace(path, data)
    clusterfs.bump(tree, "vmlist")


def move(tree: Tree, vmid: int, *, source: str, target: str) -> None:
    """Give a guest to another node: its file is renamed into that node's folder. MissingGuest."""
    try:
        path_of(tree, vmid, node=source).rename(path_of(tree, vmid, node=target))
    except FileNotFoundError:
        raise MissingGuest(source, vmid) from None
    clusterfs.bump(tree, "vmlist")


def remove(tree: Tree, vmid: int) -> None:
    path_of(tree, vmid).unlink(missing_ok=True)
    clusterfs.bump(tree, "vmlist")


def replace(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Replace a file atomically, as PVE does: its sibling is NAME.tmp.PID until the rename."""
    sibling = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    sibling.write_bytes(data)
    sibling.chmod(mode)
    sibling.rename(path)


def update(
    tree: Tree, vmid: int, changes: Mapping[str, str | None], *, node: str = ""
) -> GuestFile:
    """Set or remove keys of the main section; the caller holds the lock."""
    file = load(tree, vmid, node=node).with_main(changes)
    save(tree, vmid, file, node=node)
    return file


def check_lock(file: GuestFile) -> None:
    """Refuse a guest with a `lock:`. Fault."""
    if name := file.main.values.get("lock"):
        raise Fault(f"VM is locked ({name})")


def check_node(tree: Tree, name: str) -> None:
    """Refuse a node that is not in the cluster. Fault."""
    if not (tree.pve / "nodes" / name).is_dir() or "/" in name or not name:
        raise Fault(f"no such cluster node '{name}'")


def storages(tree: Tree) -> Mapping[str, Storage]:
    """The storages as PVE reads them, at every call anew."""
    try:
        text = read_text(tree.pve / "storage.cfg")
    except FileNotFoundError:
        text = ""
    return pvesections.parse_storages(text)


@contextlib.contextmanager
def locked(tree: Tree, vmid: int, *, seconds: float | None = None) -> Iterator[None]:
    """Hold the guest's configuration lock (flock on a local file). LockTimeout."""
    path = tree.lock / f"lock-{vmid}.conf"
    limit = tree.settings.lock_timeout if seconds is None else seconds
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _flock(file, limit, tree.shown(path))
        yield
    finally:
        os.close(file)


def _flock(file: int, seconds: float, shown: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockTimeout(shown) from None
            time.sleep(_POLL_S)
