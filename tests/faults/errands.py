"""Short errands of the service, the hook and the command line, each of whose steps may fail.

An errand is done once under a tracer; whatever came of it, everything is then begun again without
one, and nothing may be wrong, lost or left over.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from proxmox_cpu_affinity.linux.dropins import FOLDER
from proxmox_cpu_affinity.model.guest import HOOK_FILE
from tests.faults.observed import masks
from tests.faults.playground import TREE, Playground, Tormented, asked, within
from tests.faults.promises import ALL, Known, begins, never, settled, too_long
from tests.faults.stepping import MEMORY, PROCESSES, READING, SOCKETS, WAITING, WRITING, Tracer
from tests.integration.running import PATIENCE

FILES = (*READING, *WRITING)
HELD, OTHER = 101, 100  # a guest that runs on, and one that stops
QEMU_TOO_SLOW = "/usr/bin/kvm' got timeout"


class TooSlowError(Exception):
    """PVE gives QEMU 30 s to come up; a machine with no time for it shows nothing of the fault."""


class Errand(ABC):
    """What is done, and what is looked at afterwards."""

    name: str
    calls: Sequence[str]
    everywhere = False  # all files, not the node's alone

    def __init__(self, ground: Playground) -> None:
        self.ground = ground
        self.node = ground.node
        root = None if self.everywhere else self.node.root
        self.tracer = Tracer(self.node.path("/tmp/strace.log"), self.calls, root)

    @abstractmethod
    def do(self, before: Sequence[str]) -> list[str]:
        """Do it with these words in front of the command; what is wrong afterwards.
        TooSlowError."""

    def over(self) -> None:  # noqa: B027 - most leave nothing running
        """It will not be done again."""


class Life(Errand):
    """The service: its start with nothing kept, two guests, a log that is rotated, its end."""

    name = "service"
    calls = (*FILES, *PROCESSES, *SOCKETS, *WAITING)

    def do(self, before: Sequence[str]) -> list[str]:
        service = self.ground.service(begun=False)
        for folder in (self.ground.lib, self.node.path("/run/proxmox-cpu-affinity")):
            for file in folder.iterdir() if folder.exists() else ():
                file.unlink()
        known = Known()
        try:
            wrong = self._traced(service, known, before)
            wrong += self._again(service, known)
        finally:
            if service.alive:
                service.kill()
            self.ground.quiet()
        return wrong

    def _traced(self, service: Tormented, known: Known, before: Sequence[str]) -> list[str]:
        words = ["-m", "proxmox_cpu_affinity.service.main", "--root", str(self.node.root)]
        with service.output.open("a") as out:
            tracer = subprocess.Popen(
                [*before, sys.executable, *words, "--port", "0"],
                cwd=TREE,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        with tracer:
            try:
                within(5, lambda: tracer.poll() is not None or service.answers())
                return self._live(service, known, tracer)
            finally:
                _send(tracer, signal.SIGTERM)
                if not within(PATIENCE, lambda: tracer.poll() is not None):
                    _send(tracer, signal.SIGKILL)

    def _live(
        self, service: Tormented, known: Known, tracer: "subprocess.Popen[bytes]"
    ) -> list[str]:
        wrong = []
        for vmid in (HELD, OTHER):
            begins(self.ground, known, vmid)
            done = self.node.qm("start", vmid)
            text = f"the start of {vmid} failed: {done.stdout}{done.stderr}"
            if QEMU_TOO_SLOW in text:
                raise TooSlowError(text)
            if done.returncode:
                wrong.append(text)
        log = self.node.path("/var/log/proxmox-cpu-affinity.log")
        if log.exists():
            log.rename(log.with_suffix(".1"))
        _send(tracer, signal.SIGHUP)
        within(2, lambda: log.exists() or tracer.poll() is not None)
        self.node.qm("stop", OTHER)
        return wrong

    def _again(self, service: Tormented, known: Known) -> list[str]:
        """A restart is clean; the guest that ran on is where it was, and can be let go."""
        pid = self.node.pid(HELD)
        if pid is None:
            return [f"guest {HELD} does not run"]
        was = set(masks(pid).values())
        service.start()
        wrong = [*never(self.ground, service, known), *self._settles(service, known)]
        now = set(masks(pid).values())
        if len(was) == 1 and was not in ({ALL}, now):
            wrong.append(f"guest {HELD} was on {was} and is on {now}")
        asked(service, f"/api/v1/guests/{HELD}/reassign", {"undo": True})
        known.released[HELD] = pid
        wrong += self._settles(service, known)
        self.node.qm("stop", HELD)
        wrong += self._settles(service, known)
        if service.end() != 0:
            wrong.append("the service did not end well after its restart")
        return wrong

    def _settles(self, service: Tormented, known: Known) -> list[str]:
        found: list[str] = []

        def holds() -> bool:
            found[:] = settled(self.ground, service, known)
            return not found

        within(PATIENCE, holds)
        return found


class Hook(Errand):
    """notify.py, called by the hookscript while a service answers."""

    name = "hook"
    calls = (*READING, *SOCKETS, *MEMORY, "poll", "write")
    everywhere = True

    def __init__(self, ground: Playground) -> None:
        super().__init__(ground)
        self.service = ground.service()
        folder = self.node.path("/usr/libexec/proxmox-cpu-affinity")
        self.python = folder / "traced-python"
        self.copy = folder / "traced-hook"
        text = (folder / HOOK_FILE).read_text()
        line = f"python={shlex.quote(sys.executable)}"
        assert line in text
        self.copy.write_text(text.replace(line, f"python={self.python}"))
        self.copy.chmod(0o755)

    def do(self, before: Sequence[str]) -> list[str]:
        command = shlex.join([*before, sys.executable])
        self.python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        self.python.chmod(0o755)
        began = time.monotonic()
        done = subprocess.run(
            [self.copy, str(OTHER), "post-stop"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=3 * PATIENCE,
        )
        took = time.monotonic() - began
        wrong = []
        if done.returncode or done.stderr or len(done.stdout.splitlines()) > 1:
            wrong.append(f"the hook: {done}")
        if too_long(self.ground, took):
            wrong.append(f"the hook took {took:.2f} s")
        if not self.service.alive:
            wrong.append(f"the service ended with {self.service.process.returncode}")
        return wrong

    def over(self) -> None:
        self.service.kill()


class Install(Errand):
    """`hookscript install`: our hook comes into a storage that other nodes read, as a copy."""

    name = "hookscript install"
    calls = FILES
    FOLDER = "/mnt/far/snippets"

    def __init__(self, ground: Playground) -> None:
        super().__init__(ground)
        self.folder = self.node.path(self.FOLDER)
        self.folder.mkdir(parents=True)
        with self.node.path("/etc/pve/storage.cfg").open("a") as file:
            file.write("\ndir: far\n\tpath /mnt/far\n\tcontent snippets\n\tshared 1\n")
        self.whole = self.node.path(f"/usr/libexec/proxmox-cpu-affinity/{HOOK_FILE}").read_bytes()
        self.target = self.folder / HOOK_FILE

    def do(self, before: Sequence[str]) -> list[str]:
        self.target.unlink(missing_ok=True)
        wrong = []
        status = self._install(before)
        if self.target.exists() and not self._good():
            wrong.append(f"half a hook is there: {self.target.read_bytes()!r}")
        if status == 0 and not self.target.exists():
            wrong.append("it says that it is installed, and it is not")
        if self._install(()) != 0 or not self._good():
            wrong.append("it cannot be installed afterwards")
        left = [file for file in self.folder.iterdir() if file != self.target]
        for file in left:
            file.unlink()
        return [*wrong, *(f"left over: {file.name}" for file in left)]

    def _good(self) -> bool:
        return self.target.read_bytes() == self.whole and os.access(self.target, os.X_OK)

    def _install(self, before: Sequence[str]) -> int:
        words = ["-m", "proxmox_cpu_affinity", "hookscript", "install", "far"]
        return subprocess.run(
            [*before, sys.executable, *words],
            cwd=TREE,
            env={**os.environ, "PCA_ROOT": str(self.node.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=3 * PATIENCE,
        ).returncode


class DropIn(Errand):
    """A drop-in is laid down and taken away; then the unit's end deletes whatever is there."""

    name = "drop-in"
    calls = FILES
    TEXT = (
        "import sys; from pathlib import Path\n"
        "from proxmox_cpu_affinity.linux.dropins import DropIns\n"
        "from proxmox_cpu_affinity.model.cpuset import CpuSet\n"
        "from proxmox_cpu_affinity.model.ids import Vmid\n"
        "from proxmox_cpu_affinity.model.errors import StoreError\n"
        "there = DropIns(Path(sys.argv[1]))\n"
        "try:\n"
        " there.write(Vmid(100), CpuSet.parse('0-1')); there.write(Vmid(100), CpuSet.parse('1'))\n"
        " there.delete(Vmid(100)); there.write(Vmid(101), CpuSet.parse('0'))\n"
        "except StoreError: sys.exit(1)\n"
    )

    def do(self, before: Sequence[str]) -> list[str]:
        folder = self.node.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        root = str(self.node.root)
        self._run([*before, sys.executable, "-c", self.TEXT, root])
        wrong = [
            f"half a drop-in: {file.read_text()!r}"
            for file in folder.glob("*/*.conf")
            if not file.read_text().startswith("[Scope]\nAllowedCPUs=")
        ]
        service = [sys.executable, "-m", "proxmox_cpu_affinity.service.main", "--root", root]
        if self._run([*service, "--clean-dropins"]) != 0:
            wrong.append("--clean-dropins failed")
        left = [Path(at, name) for at, _, names in os.walk(folder) for name in names]
        wrong += [f"left over: {file.name}" for file in left]
        for file in left:
            file.unlink()
        for directory in folder.iterdir():
            directory.rmdir()
        return wrong

    @staticmethod
    def _run(words: Sequence[str]) -> int:
        return subprocess.run(
            words,
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=3 * PATIENCE,
        ).returncode


def _send(tracer: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """A signal to what is traced, the tracer's first child."""
    if tracer.poll() is not None:
        return  # its pid may be somebody else's by now
    with suppress(OSError, IndexError):
        children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
        os.kill(int(children[0]), number)


ERRANDS: tuple[type[Errand], ...] = (Life, Hook, Install, DropIn)
