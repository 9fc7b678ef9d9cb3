"""A simulated node with guests, processes that are nobody's business, and a service to torment.

Out of scope: what happens in which order (real.py), and what must hold (promises.py).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from proxmox_cpu_affinity.sim import hookscript, node, processes
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.faults import apart
from tests.faults.history import VMIDS
from tests.faults.observed import HOOK
from tests.integration.running import PATIENCE, Answer, Running

PEER = "pve2"
TREE = Path(__file__).resolve().parents[2]
FAKETIME = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
CPUS = sorted(os.sched_getaffinity(0))
_WIDEST = 8  # CPUs of the node that are played with, at most
HOST = f"1x1x{min(max(CPUS) + 1, _WIDEST)}x1"
MEMORY = "memory: 64"
GUESTS = {
    100: (f"hookscript: local:snippets/{HOOK}",),
    101: ("tags: cpu-affinity",),
    102: ("hotplug: cpu", "vcpus: 1", f"hookscript: local:snippets/{HOOK}"),
    103: (),
    104: ("tags: cpu-affinity;cpu-pinned",),
}
CORES = {102: 2}
# Which guest got which CPU is asked here: machines of few CPUs would have them float.
SETTINGS = "PCA_ROUNDS=1\nPCA_ITERATIONS=10\nPCA_WIDTH=exact\n"
# The hook is called through a few lines that note how long it took and how it ended, to /proc's
# hundredths of a second: nothing is started for that.
_NOTING = """#!/bin/sh
read -r began _ </proc/uptime
{hook} "$@"
status=$?
read -r ended _ </proc/uptime
echo "$1 $2 $began $ended $status" >>{log}
exit $status
"""


def clock_files(pid: int) -> tuple[Path, ...]:
    """What libfaketime keeps for a process and its children (its ftpl_init)."""
    shared = Path("/dev/shm")
    return shared / f"faketime_shm_{pid}", shared / f"sem.faketime_sem_{pid}"


class Tormented(Running):
    """The service with its waits shortened, on a disk or with a clock that may be wrong."""

    def __init__(self, node: Node, *, clock: Path | None, begun: bool) -> None:
        self.node = node
        self.clock = clock
        self.flags = ()
        self.output = node.path("/var/log/service.out")
        self._begun = False
        if begun:
            self.start()

    def start(self) -> None:
        self._begun = True
        environment = dict(os.environ)
        if self.clock is not None and FAKETIME:
            environment |= {
                "LD_PRELOAD": str(FAKETIME[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # which no administrator can set
            }
        self.process = self.spawn(environment)
        self.wait_for(lambda: self.answers() or self.process.poll() is not None)

    def spawn(self, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """One more process of it, whatever becomes of that."""
        words = ["-m", "tests.faults.hastened", "--root", str(self.node.root), "--port", "0"]
        with self.output.open("a") as out:
            return subprocess.Popen(
                [sys.executable, *words, *self.flags],
                cwd=TREE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, and away with what libfaketime then leaves: it ends in a destructor only."""
        super().kill()
        for name in clock_files(self.process.pid):
            name.unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        return self._begun and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self.process.send_signal(number)

    def released(self) -> int:
        """`--release`, as when the package is removed; its exit status."""
        words = ["-m", "proxmox_cpu_affinity.service.main", "--root", str(self.node.root)]
        with self.output.open("a") as out:
            done = subprocess.run(
                [sys.executable, *words, "--release"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=3 * PATIENCE,
                check=False,
            )
        return done.returncode


class Playground:
    """One node that many histories are played on, each with a service of its own."""

    def __init__(self, root: Path, *, own_mounts: bool) -> None:
        self.own_mounts = own_mounts
        files = {k: v for k, v in generate(parse_spec(HOST)).items() if k.startswith("sys/")}
        self.node = node.create(
            root, guest=GuestKind.STANDIN, peers=(PEER,), sys_files=files, lock_timeout=30.0
        )
        self.hooks = self.node.path("/tmp/hooks")
        self.snippet = self._noting_hook()
        self.qm = self.node.path("/usr/sbin/qm")
        self.true_qm = self.qm.read_text()
        self.lib = self.node.path("/var/lib/proxmox-cpu-affinity")
        self.lib.mkdir(mode=0o700)
        if own_mounts:
            apart.small_disk(self.lib, size="256k")
        self.bystanders = tuple(_bystanders(self.node))
        self.born = {process.pid: _mask_of(process) for process in self.bystanders}

    def _noting_hook(self) -> Path:
        volume = hookscript.install(self.node)
        real = self.node.path("/usr/libexec/proxmox-cpu-affinity") / HOOK
        self.node.add_snippet(HOOK, _NOTING.format(hook=real, log=self.hooks))
        return self.node.path("/var/lib/vz/snippets") / volume.rpartition("/")[2]

    # -- before and after a history ------------------------------------------------------------

    def service(self, *, clock: bool = False, begun: bool = True) -> Tormented:
        """Guests as they are first, and a service that knows of nothing."""
        self.room()
        self.cpus(())
        for name in ("state.json", "state.json.new", "state.json.bad"):
            (self.lib / name).unlink(missing_ok=True)
        self.hooks.write_text("")
        self.node.path("/var/log/service.out").write_text("")
        for vmid in VMIDS:
            self.away(vmid).unlink(missing_ok=True)
            self.file(vmid).write_text(_config(vmid))
        file = self.node.path("/tmp/clock")
        file.write_text("+0")
        self.node.path("/etc/default/proxmox-cpu-affinity").write_text(SETTINGS)
        return Tormented(self.node, clock=file if clock else None, begun=begun)

    def quiet(self) -> None:
        """No guest runs and nobody does anything about one any more."""
        self.mount()
        self.qm.write_text(self.true_qm)
        tree = self.node.tree
        ours = processes.is_guest_of(tree)
        for pid in processes.found(ours):
            processes.end(pid, ours, signals=processes.AT_ONCE)
        # qmeventd cleans up behind them, with a lock of each guest.
        Running.wait_for(lambda: not list(processes.found(self._cleans)))
        for file in tree.run.iterdir():
            file.unlink(missing_ok=True)

    def _cleans(self, argv: list[str]) -> bool:
        return str(self.node.root) in argv and "qmeventd" not in argv

    def close(self) -> None:
        try:
            self.quiet()
        finally:  # nobody is left behind, however long the others take
            for process in self.bystanders:
                process.kill()
                process.wait()
            self.node.close()
            if self.own_mounts:
                apart.unmount(self.lib)
            self.node.destroy()

    # -- files -------------------------------------------------------------------------------------

    def file(self, vmid: int) -> Path:
        return self.node.path(f"/etc/pve/nodes/pve/qemu-server/{vmid}.conf")

    def away(self, vmid: int) -> Path:
        return self.node.path(f"/etc/pve/nodes/{PEER}/qemu-server/{vmid}.conf")

    def cpus(self, offline: tuple[int, ...]) -> None:
        """These CPUs are offline, as the node's sysfs has it; the list that is watched last."""
        spec = HOST + (f"+offline={','.join(map(str, offline))}" if offline else "")
        files = {k: v for k, v in generate(parse_spec(spec)).items() if k.startswith("sys/")}
        last = "sys/devices/system/cpu/online"
        for number in range(max(CPUS) + 1):
            folder = self.node.path(f"/sys/devices/system/cpu/cpu{number}")
            if number in offline:
                shutil.rmtree(folder, ignore_errors=True)
        for name in sorted(files, key=lambda name: name == last):
            path = self.node.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name])

    def unhindered(self) -> float:
        """How long the hook takes now when it asks nobody, in seconds."""
        began = time.monotonic()
        subprocess.run([self.snippet, "1", "none"], capture_output=True, check=False)
        return time.monotonic() - began

    # -- faults of the node ------------------------------------------------------------------------

    def full(self) -> None:
        """No room for the state: a full file system where we may have one."""
        if self.own_mounts:
            ballast = self.lib / "ballast"
            with suppress(OSError), ballast.open("ab", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            self.lib.chmod(0o500)

    def room(self) -> None:
        self.lib.chmod(0o700)
        (self.lib / "ballast").unlink(missing_ok=True)

    def unmount(self, which: int) -> None:
        """/etc/pve is an empty folder, as when it is not mounted, or dead, as after a crash of
        its server; without the right to mount, a link that leads nowhere."""
        pve, gone = self.node.path("/etc/pve"), self.node.path("/etc/pve.gone")
        if which % 2 and self.own_mounts:
            apart.dead_mount(pve)
        elif which % 2:
            pve.rename(gone)
            pve.symlink_to("pve")
        else:
            pve.rename(gone)
            pve.mkdir()

    def mount(self) -> None:
        pve, gone = self.node.path("/etc/pve"), self.node.path("/etc/pve.gone")
        if gone.exists():
            pve.unlink() if pve.is_symlink() else pve.rmdir()
            gone.rename(pve)
        elif not _readable(pve):
            apart.unmount(pve)

    @contextmanager
    def other_qm(self, text: str) -> Iterator[None]:
        """For a while, a qm that does this."""
        self.qm.write_text(f"#!/bin/sh\n{text}\n")
        try:
            yield
        finally:
            self.qm.write_text(self.true_qm)


def _readable(folder: Path) -> bool:
    try:
        os.listdir(folder)
    except OSError:
        return False
    return True


def _config(vmid: int) -> str:
    main = "\n".join((f"cores: {min(CORES.get(vmid, 1), len(CPUS))}", MEMORY, *GUESTS[vmid]))
    return f"{main}\nparent: base\n\n[base]\n{main}\nsnaptime: 1700000000\n"


def _mask_of(process: subprocess.Popen[bytes]) -> frozenset[int]:
    return frozenset(os.sched_getaffinity(process.pid))


def _bystanders(host: Node) -> Iterator[subprocess.Popen[bytes]]:
    """One with a mask of its own; one that looks like a guest and is none."""
    sleep = "import time; time.sleep(1e6)"
    plain = subprocess.Popen([sys.executable, "-I", "-S", "-c", sleep])
    os.sched_setaffinity(plain.pid, {CPUS[-1]})
    yield plain
    like = ["kvm", "-I", "-S", "-c", sleep, "-id", "100", "-name", "vm100,debug-threads=on"]
    like += ["-pidfile", str(host.path("/var/run/qemu-server/100.pid"))]
    yield subprocess.Popen(like, executable=sys.executable)


@contextmanager
def playground(*, mounts: bool = True) -> Iterator[Playground]:
    """A node that is gone afterwards; with mounts, this process sees its own ones from now on."""
    own_mounts = mounts and os.geteuid() == 0 and apart.step_aside()
    root = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    made = Playground(root, own_mounts=own_mounts)
    try:
        yield made
    finally:
        made.close()


def asked(service: Running, path: str, body: object = None) -> Answer | None:
    """The answer to a POST, none where nobody answers."""
    try:
        return service.ask("POST", path, {} if body is None else body)
    except (OSError, HTTPException):
        return None


def rows(service: Running) -> dict[int, dict[str, object]]:
    """What the API says of each guest."""
    found = json.loads(service.get("/api/v1/guests").body)
    return {row["vmid"]: row for row in found}


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
