"""A simulated node from outside: make it, open it, use its programs, switch it off, remove it.

The programs themselves are in `programs`; they share the tree with this module, not memory.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from proxmox_cpu_affinity.model.errors import ProgramFailedError, RefusedError
from proxmox_cpu_affinity.sim import backup, ha, layout, processes, qmeventd, qmp
from proxmox_cpu_affinity.sim.arrival import Arrival, Breaks, Completed
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop, Settings
from proxmox_cpu_affinity.sim.tree import Tree

_PROGRAM_S = 120.0
_REBOOT_S, _REBOOT_EACH_S = 10.0, 0.5
_QMEVENTD_END: tuple[tuple[signal.Signals, float], ...] = (
    (signal.SIGTERM, 10.0),
    (signal.SIGKILL, 5.0),
)


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
        plug_timeout: float | None = None,
    ) -> None:
        """Change how the node behaves from its next command on; None leaves as it is."""
        now = self.tree.settings
        changed = replace(
            now,
            post_stop=now.post_stop if post_stop is None else post_stop,
            lock_timeout=now.lock_timeout if lock_timeout is None else lock_timeout,
            stop_timeout=now.stop_timeout if stop_timeout is None else stop_timeout,
            plug_timeout=now.plug_timeout if plug_timeout is None else plug_timeout,
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
        """Do what HA's local resource manager would: start and stop its guests as they should be,
        and send them to the nodes asked for.

        In PVE this happens by itself some seconds after a request; here, when it is called.
        ProgramFailedError where a guest does not start at the retries that it is allowed either.
        """
        tree = self.tree
        for request in ha.take_requests(tree):
            if request.stops and self.pid(request.vmid):
                self.do("stop", request.vmid, "--as-ha")
            self.do("migrate", request.vmid, request.target, "--online", "--as-ha")
        for vmid, command in ha.due(tree):
            for _ in range(ha.retries(tree, vmid) if command == "start" else 0):
                if self.qm(command, vmid, "--as-ha").returncode == 0:
                    break
            else:
                self.do(command, vmid, "--as-ha")

    # -- what guests and other nodes do ------------------------------------------------------------

    def guest_poweroff(self, vmid: int) -> None:
        """The guest shuts itself down."""
        qmp.ask(self.tree.qmp(vmid), "system_powerdown")

    def guest_reboot(self, vmid: int) -> None:
        """The guest reboots itself: in the same process, or with `reboot: 0` as a shutdown.
        ProgramFailedError."""
        with qmp.Monitor(self.tree.qmp(vmid)) as monitor:

            def done() -> bool:
                # Unheard while its firmware begins; and whoever shuts down soon hears nothing.
                with suppress(qmp.QmpError):
                    monitor.ask("inject-nmi")
                return monitor.saw("RESET", "SHUTDOWN", seconds=_REBOOT_EACH_S)

            if not processes.wait_until(done, seconds=_REBOOT_S):
                raise ProgramFailedError(f"guest {vmid} does not reboot")

    def migrate_in(
        self,
        vmid: int,
        *,
        source: str,
        breaks: Breaks = Breaks.NOWHERE,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Completed:
        """A guest of another node's folder comes here live; what this node's `qm start` said.

        `meanwhile` is called when that went well: QEMU waits, and the guest is still there. Fault,
        QmpError.
        """
        return Arrival(self.tree, vmid, source, self.qm).live(breaks, meanwhile)

    def move_in(self, vmid: int, *, source: str) -> None:
        """A guest of another node comes here while it does not run: offline, or by HA."""
        Arrival(self.tree, vmid, source, self.qm).move()

    @contextmanager
    def backing_up(self, vmid: int, *, mode: str = "snapshot") -> Iterator[None]:
        """Within this a backup reads the guest's disks: one that did not run is paused, with a
        lock. ProgramFailedError."""
        words = ["vzdump", str(vmid), "--mode", mode, "--as-long-as-stdin"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [self.root / layout.PROGRAMS[words[0]], *words[1:]],
            stdin=pipe,
            stdout=pipe,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            said = ""
            while not said.endswith(f"INFO: {backup.STARTED}\n"):
                line = process.stdout.readline()
                if not line:
                    raise ProgramFailedError(f"{' '.join(words)}: {said}")
                said += line
            yield
            process.stdin.close()
            said += process.stdout.read()
        if process.returncode:
            raise ProgramFailedError(f"{' '.join(words)}: {said}")

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
            processes.end(pid, is_guest, signals=processes.AT_ONCE)
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
    peers: Sequence[str] = (),
) -> Node:
    """Make a node in a new or empty directory and start its qmeventd.

    `guest` None takes QEMU where it is installed, else the stand-in. `snippets` False gives the
    storage `local` the content of a fresh PVE, which allows none. `sys_files` maps paths below
    /sys to texts and replaces the link to the real one; `memory` is in MiB, times are in seconds.
    `peers` are the other nodes of its cluster, of which there are the folders only.
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
    tree = Tree(root.resolve(), settings)
    layout.make(tree, snippets=snippets, sys_files=sys_files, peers=peers)
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
