"""`demo`: the whole main job on a simulated node, with the commands an administrator would type.

Everything runs as real processes: the service, QEMU (or its stand-in), hooks, qm. The node lies in
a short path below the temporary directory, since a socket's path may have 107 bytes only.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.command import Command
from proxmox_cpu_affinity.cli.ending import end_process, end_service
from proxmox_cpu_affinity.model.errors import AffinityError, ProgramFailedError, UsageError
from proxmox_cpu_affinity.render.words import counted
from proxmox_cpu_affinity.sim import hookscript, processes
from proxmox_cpu_affinity.sim import node as nodes
from proxmox_cpu_affinity.sim.settings import GuestKind

SIZES = ((100, "web", 1), (101, "mail", 2), (102, "git", 2), (103, "database", 4))
LATECOMER = (104, "build", 2)
FOLDER = click.Path(file_okay=False, path_type=Path)
GENERATED = "generated:2x2x4x2"
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
ANSWERS_WITHIN = 20.0  # seconds: a machine that is slower than that has other troubles


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays: runs commands and shows them with what they say."""

    node: nodes.Node

    def own(self, *words: str) -> None:
        """Run a command of ours, as typed."""
        if not self.tries(*words):
            raise ProgramFailedError(f"{words[0]} failed")

    def tries(self, *words: str) -> bool:
        """The same for what may fail; whether it did not."""
        _say(f"$ proxmox-cpu-affinity {shlex.join(words)}")
        return self._run([sys.executable, "-m", "proxmox_cpu_affinity", *words]) == 0

    def qm(self, *words: str) -> None:
        """Run the node's qm."""
        _say(f"$ qm {shlex.join(words)}")
        status = self._run([str(self.node.path("/usr/sbin/qm")), *words])
        if status:
            raise ProgramFailedError(f"qm {words[0]} ended with status {status}")

    def _run(self, argv: Sequence[str]) -> int:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PCA_ROOT": str(self.node.root)},
            check=False,
        )
        for line in done.stdout.splitlines():
            _say(f"  {line}")
        return done.returncode


@click.command(cls=Command, needs_root=False, looks_here=False, examples=("demo", "demo --keep"))
@click.option("--keep", is_flag=True, help="Leave it running, and say how to stop it.")
@click.option(
    "--stop", metavar="DIR", type=FOLDER, help="End a demo that was left running, and remove it."
)
@click.option(
    "--guests", type=click.Choice([kind.value for kind in GuestKind]), help="Kind of guests."
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=FOLDER,
    default="proxmox-cpu-affinity-demo",
    show_default=True,
    help="Where heatmap.svg is left.",
)
def demo(*, keep: bool, stop: Path | None, guests: str | None, output: Path) -> None:
    """Show the main job on a simulated Proxmox VE node, with real processes.

    Makes a node, measures this machine, starts the service and some guests, shows where they run
    and why, and cleans up.
    """
    if stop is not None:
        _say(_stop(stop))
        return
    with _interruptible():
        root = Path(tempfile.mkdtemp(prefix="pca-"))
        try:
            _play(root, None if guests is None else GuestKind(guests), output)
        except BaseException:
            _quietly(lambda: _abandon(root))
            raise
        if keep:
            _tell_how_to_stop(root)
        else:
            _step("Cleaning up")
            _quietly(lambda: _stop(root))
            _say("  no process and no file of the node is left")


def _play(root: Path, kind: GuestKind | None, output: Path) -> None:
    cpus = len(os.sched_getaffinity(0))
    _step("A simulated Proxmox VE node")
    node = nodes.create(root / "node", guest=kind)
    kind = node.tree.settings.guest
    real = "real QEMU guests" if kind is GuestKind.QEMU else "stand-in processes for guests"
    _say(f"  {node.root}: {cpus} CPUs, {real}")
    if kind is GuestKind.STANDIN:
        _say("  (QEMU is not used here: apt install qemu-system-x86 for real guests)")
    stage = Stage(node)
    _step("What a cache line's way takes on this machine")
    if not stage.tries("cpuinfo"):
        _say("  (too busy to measure now: the prediction from the topology serves until then)")
    _step("The service")
    hookscript.install(node)
    _start_service(node)
    stage.own("status")
    _step("Four guests, and our hookscript enabled on them")
    for vmid, name, vcpus in SIZES:
        _create(stage, vmid, name, min(vcpus, cpus))
    stage.own("hookscript", "list")
    _step("They start; the hook says which CPUs they were given")
    for vmid, _, _ in SIZES:
        stage.qm("start", str(vmid))
    _step("Read back from the kernel")
    stage.own("ps")
    stage.own("status", "core-ranking-summary")
    _step("One stops, another starts: the CPUs are free again")
    stage.qm("stop", "101")
    _create(stage, LATECOMER[0], LATECOMER[1], min(LATECOMER[2], cpus))
    stage.qm("start", str(LATECOMER[0]))
    stage.own("ps")
    if cpus < 8:
        _step(f"Where the same guests would go on two sockets ({GENERATED})")
        wanted = [w for vmid, _, vcpus in SIZES for w in ("--guest", f"{vmid}:{vcpus}")]
        stage.own("plan", "--host", GENERATED, *wanted)
    _step("The latency as a picture")
    output.mkdir(parents=True, exist_ok=True)
    stage.own("status", "svg", "--affinity", "--output", str(output.resolve() / "heatmap.svg"))


def _create(stage: Stage, vmid: int, name: str, vcpus: int) -> None:
    stage.qm("create", str(vmid), "--name", name, "--cores", str(vcpus), "--memory", "64")
    stage.own("hookscript", "enable", str(vmid))


def _start_service(node: nodes.Node) -> None:
    """Start the service in a session of its own, so that Ctrl-C reaches it through us alone."""
    log = node.path("/var/log/service.out")
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxmox_cpu_affinity.service.main", "--root", str(node.root)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "PCA_PORT": "0"},
            start_new_session=True,
        )
    deadline = time.monotonic() + ANSWERS_WITHIN
    while time.monotonic() < deadline:
        try:
            Client(node.path("/run/proxmox-cpu-affinity/api.sock")).get("ping")
            break
        except AffinityError:
            if process.poll() is not None:
                raise ProgramFailedError(f"the service ended: {log.read_text().strip()}") from None
            time.sleep(0.02)
    else:
        raise ProgramFailedError("the service does not answer", hint=f"see {log}")


def _stop(root: Path) -> str:
    """End the service and the node below `root`, and remove both; what that was, in words."""
    home = root / "node"
    if not (home / "etc/pve-sim.json").is_file() and not (root / "etc/pve-sim.json").is_file():
        if root.is_dir() and not any(root.iterdir()):
            root.rmdir()
            return f"{root} was empty, and is gone"
        raise UsageError(f"{root} holds no demo", hint="name the folder that --keep printed")
    if not home.is_dir():
        home = root
    served = end_service(home)
    node = nodes.Node(home)
    guests = len(list(processes.found(processes.is_guest_of(node.tree))))
    node.destroy()
    shutil.rmtree(root, ignore_errors=True)
    service = "the service" if served else "no service, which did not run"
    return f"ended {service}, and {counted(guests, 'guest')}; {root} is gone"


def _abandon(root: Path) -> None:
    """After an interrupt: what was just being started names the folder too, and must end first."""
    for _ in range(50):
        strays = [
            pid
            for pid in processes.found(lambda argv: any(str(root) in word for word in argv))
            if pid != os.getpid()
        ]
        if not strays:
            break
        for pid in strays:
            end_process(pid)
    _stop(root)


def _tell_how_to_stop(root: Path) -> None:
    home = root / "node"
    program = os.path.relpath(sys.argv[0]) if "/" in sys.argv[0] else sys.argv[0]
    port = (home / "run/proxmox-cpu-affinity/port").read_text().strip()
    _step("It goes on running")
    _say(f"  page:   http://127.0.0.1:{port}/")
    _say(f"  guests: {home}/usr/sbin/qm list")
    _say(f"  ours:   PCA_ROOT={home} {program} ps")
    _say(f"  stop:   {program} demo --stop {root}")


def _step(title: str) -> None:
    _say("")
    _say(f"== {title}")


def _say(line: str) -> None:
    """A line of the story, seen at once even where stdout is a pipe."""
    ui.result(line)
    ui.flush()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo like Ctrl-C does: with everything cleaned up."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupted) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quietly(clean_up: Callable[[], object]) -> None:
    """Clean up without being interrupted half way."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, *_ENDINGS)}
    try:
        clean_up()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
