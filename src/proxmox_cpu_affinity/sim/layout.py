"""Makes the files of a new node: directories, links, configuration, and its programs."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxmox_cpu_affinity.model.errors import RefusedError, UsageError
from proxmox_cpu_affinity.sim import clusterfs, configs, firmware
from proxmox_cpu_affinity.sim.settings import GuestKind
from proxmox_cpu_affinity.sim.tree import ROOT_MAX, Tree

PROGRAMS = {
    "qm": "usr/sbin/qm",
    "pvesm": "usr/sbin/pvesm",
    "ha-manager": "usr/sbin/ha-manager",
    "pvesh": "usr/bin/pvesh",
    "vzdump": "usr/bin/vzdump",
}
_FOLDERS = (
    "etc/default",
    "etc/pve/ha",
    "etc/pve/priv/lock",
    "run/lock/lxc",
    "run/lock/qemu-server",
    "run/qemu-server",
    "tmp",
    "usr/bin",
    "usr/libexec",
    "usr/sbin",
    "usr/share/pve-sim",
    "var/lib/vz/dump",
    "var/lib/vz/images",
    "var/lib/vz/snippets",
    "var/lib/vz/template/cache",
    "var/lib/vz/template/iso",
    "var/log/pve/tasks",
)
_NODE_FOLDERS = ("qemu-server", "lxc", "openvz", "priv")
_LINKS = {"var/run": "../run", "var/lock": "../run/lock"}


def qemu_program() -> Path | None:
    """QEMU, where it is installed."""
    found = shutil.which("qemu-system-x86_64", path="/usr/local/bin:/usr/bin:/bin")
    return Path(found) if found else None


def make(
    tree: Tree,
    *,
    snippets: bool,
    sys_files: Mapping[str, str] | None,
    peers: Sequence[str] = (),
) -> None:
    """Make the node; `peers` are the cluster's other nodes, which are folders only.

    UsageError for a root that is too long, RefusedError for one in use.
    """
    root = tree.root
    if len(os.fsencode(root)) > ROOT_MAX:
        raise UsageError(
            f"{root} is too long: a socket's path may have 107 bytes",
            hint=f"choose a directory of at most {ROOT_MAX} characters, like /tmp/node",
        )
    if root.exists() and any(root.iterdir()):
        raise RefusedError(f"{root} is not empty", hint="choose a new directory")
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for link, target in _LINKS.items():
        (root / link).symlink_to(target)
    (root / "run/qemu-server").chmod(0o750)
    _make_sys(root, sys_files)
    _make_pve(tree, content="backup,iso,vztmpl" + (",snippets" if snippets else ""), peers=peers)
    _make_programs(tree)
    tree.firmware.write_bytes(firmware.image())
    tree.settings_file.write_text(tree.settings.to_json())


def _make_sys(root: Path, files: Mapping[str, str] | None) -> None:
    (root / "proc").symlink_to("/proc")
    if files is None:
        (root / "sys").symlink_to("/sys")
        return
    for name, text in files.items():
        path = root / "sys" / name.removeprefix("/sys/").lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _make_pve(tree: Tree, *, content: str, peers: Sequence[str]) -> None:
    for node in (tree.settings.name, *peers):
        for folder in _NODE_FOLDERS:
            (tree.pve / "nodes" / node / folder).mkdir(parents=True)
        (tree.pve / "nodes" / node / "priv").chmod(0o700)
    for folder in ("qemu-server", "lxc", "openvz"):
        (tree.pve / folder).symlink_to(f"nodes/{tree.settings.name}/{folder}")
    (tree.pve / "local").symlink_to(f"nodes/{tree.settings.name}")
    (tree.pve / "priv").chmod(0o700)
    storage = f"dir: local\n\tpath /var/lib/vz\n\tcontent {content}\n"
    for name, text in (("storage.cfg", storage), ("ha/resources.cfg", ""), ("datacenter.cfg", "")):
        configs.replace(tree.pve / name, text.encode())
    clusterfs.create(tree, peers=peers)


def _make_programs(tree: Tree) -> None:
    for name, path in PROGRAMS.items():
        launcher = tree.root / path
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join(program(tree, name))} "$@"\n')
        launcher.chmod(0o755)
    qemu = qemu_program() if tree.settings.guest is GuestKind.QEMU else None
    tree.kvm.symlink_to(qemu or Path(sys.executable).resolve())


def program(tree: Tree, name: str) -> list[str]:
    """How a program of the node is started. Isolated (-I -S): neither the caller's environment
    nor what is installed beside Python changes what it does, and nothing of ours leaks into the
    environment of the hooks."""
    main = Path(__file__).with_name("programs") / "__main__.py"
    return [sys.executable, "-I", "-S", str(main), name, str(tree.root)]
