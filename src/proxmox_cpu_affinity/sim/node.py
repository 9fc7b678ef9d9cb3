"""A simulated node from outside: make it, open it, use its programs, switch it off, remove it.

The programs themselves are in `programs`; they share the tree with this module, not memory.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from proxmox_cpu_affinity.model.errors import ProgramFailedError, RefusedError
from proxmox_cpu_affinity.sim import ha, layout, processes, qmeventd
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop, Settings
from proxmox_cpu_affinity.sim.tree import Tree

_PROGRAM_S = 120.0
_QUIT: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGKILL, 5.0),)
_QMEVENTD_END: tuple[tuple[signal.Signals, float], ...] = (
    (signal.SIGTERM, 10.0),
    (signal.SIGKILL, 5.0),
)

Completed = subprocess.CompletedProcess[str]


class Node:
    """A node below a root. As a context manager it is switched off at the end."""

    def __init__(self, root: Path) -> None:
        self.root = Tree.load(root).root

    def __enter__(self) -> "Node":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def tree(self) -> Tree:
        """Paths and settings as they are now."""
        return Tree.load(self.root)

    @property
    def name(self) -> str:
        return self.tree.settings.name

    def path(self, path: str) -> Path:
        """Where a file of the node lies: path("/etc/pve/storage.cfg")."""
        return self.tree.at(path)

    def configure(
        self,
        *,
        post_stop: PostStop | None = None,
        lock_timeout: float | None = None,
        stop_timeout: float | None = None,
    ) -> None:
        """Change how the node behaves from its next command on; None leaves as it is."""
        now = self.tree.settings
        changed = replace(
            now,
            post_stop=now.post_stop if post_stop is None else post_stop,
            lock_timeout=now.lock_timeout if lock_timeout is None else lock_timeout,
            stop_timeout=now.stop_timeout if stop_timeout is None else stop_timeout,
        )
        self.tree.settings_file.write_text(changed.to_json())

    def run(self, program: str, *words: str, env: Mapping[str, str] | None = None) -> Completed:
        """Run one of the node's programs to its end, whatever its status."""
        argv = [str(self.root / layout.PROGRAMS[program]), *words]
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_PROGRAM_S,
            env={**os.environ, **(env or {})},
            check=False,
        )

    def qm(self, *words: object, env: Mapping[str, str] | None = None) -> Completed:
        """Run `qm`: node.qm("start", 100)."""
        return self.run("qm", *map(str, words), env=env)

    def do(self, *words: object) -> str:
        """Run `qm` and return its stdout. ProgramFailedError if it fails."""
        done = self.qm(*words)
        if done.returncode:
            command = " ".join(map(str, ("qm", *words)))
            raise ProgramFailedError(f"{command}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def pid(self, vmid: int) -> int | None:
        """The pid of a running guest, None when it is not running."""
        return processes.guest_pid(self.tree, vmid)

    def add_snippet(self, name: str, text: str, *, mode: int = 0o755) -> str:
        """Put a script into the snippets of `local`; returns its volume id."""
        path = self.path("/var/lib/vz/snippets") / name
        path.write_text(text)
        path.chmod(mode)
        return f"local:snippets/{name}"

    def lrm_round(self) -> None:
        """Do what HA's local resource manager would: start and stop its guests as they should be.

        In PVE this happens by itself some seconds after a request; here, when it is called.
        """
        for vmid, command in ha.due(self.tree):
            self.do(command, vmid, "--as-ha")

    def boot(self) -> None:
        """Start qmeventd if it is not running; guests are started by `qm start`."""
        tree = self.tree
        if not self._qmeventd_pids():
            subprocess.run(layout.program(tree, "qmeventd"), stdin=subprocess.DEVNULL, check=True)

    def close(self) -> None:
        """Switch the node off: ends qmeventd and every guest, without any hook, and empties /run
        of their files like a reboot. The configuration stays: `boot` brings the node back."""
        tree = self._bare()
        for pid in self._qmeventd_pids():
            processes.end(pid, lambda argv: qmeventd.is_ours(tree, argv), signals=_QMEVENTD_END)
        is_guest = processes.is_guest_of(tree)
        for pid in processes.found(is_guest):
            processes.end(pid, is_guest, signals=_QUIT)
        for file in tree.run.iterdir():
            file.unlink(missing_ok=True)

    def destroy(self) -> None:
        """Switch the node off and remove its tree."""
        self.close()
        shutil.rmtree(self.root)

    def _bare(self) -> Tree:
        """The paths alone: a node whose settings file was damaged must still be ended."""
        return Tree(self.root, Settings())

    def _qmeventd_pids(self) -> list[int]:
        tree = self._bare()
        return list(processes.found(lambda argv: qmeventd.is_ours(tree, argv)))


def create(
    root: Path,
    *,
    name: str = "pve",
    guest: GuestKind | None = None,
    post_stop: PostStop = PostStop.PVE9,
    snippets: bool = True,
    sys_files: Mapping[str, str] | None = None,
    memory: int = 16,
    lock_timeout: float = 10.0,
) -> Node:
    """Make a node in a new or empty directory and start its qmeventd.

    `guest` None takes QEMU where it is installed, else the stand-in. `snippets` False gives the
    storage `local` the content of a fresh PVE, which allows none. `sys_files` maps paths below
    /sys to texts and replaces the link to the real one; `memory` is in MiB, times are in seconds.
    UsageError for a root that is too long, RefusedError for one that is not empty.
    """
    qemu = layout.qemu_program()
    kind = guest or (GuestKind.QEMU if qemu else GuestKind.STANDIN)
    if kind is GuestKind.QEMU and qemu is None:
        raise RefusedError("QEMU is not installed", hint="install qemu-system-x86")
    settings = Settings(
        name=name,
        guest=kind,
        post_stop=post_stop,
        memory=memory,
        lock_timeout=lock_timeout,
        qemu_version=_version(qemu) if qemu and kind is GuestKind.QEMU else (7, 2),
    )
    layout.make(Tree(root.resolve(), settings), snippets=snippets, sys_files=sys_files)
    node = Node(root)
    node.boot()
    return node


def open(root: Path) -> Node:  # noqa: A001 - node.open is what it is called by its users
    """An existing node, its qmeventd started if need be. NotPveHostError where there is none."""
    node = Node(root)
    node.boot()
    return node


def _version(qemu: Path) -> tuple[int, int]:
    done = subprocess.run([str(qemu), "-version"], capture_output=True, text=True, check=False)
    match = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (7, 2)
