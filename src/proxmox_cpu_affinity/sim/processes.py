"""Processes of a node: proved by their arguments before they are believed or ended."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from proxmox_cpu_affinity.sim.tree import Tree

AT_ONCE: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGKILL, 5.0),)

Proof = Callable[[list[str]], bool]


def arguments(pid: int) -> list[str]:
    """A process's arguments, none for one that is gone or a kernel thread."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(part) for part in data.split(b"\0")[:-1]]


def option(argv: list[str], name: str) -> str:
    """The value after an option in an argument list, empty if it is not there."""
    with contextlib.suppress(ValueError, IndexError):
        return argv[argv.index(name) + 1]
    return ""


def guest_pid(tree: Tree, vmid: int) -> int | None:
    """The pid of a running guest, as PVE tells it: argv[0] and -pidfile match the pidfile."""
    pidfile = tree.pidfile(vmid)
    try:
        pid = int(pidfile.read_text())
    except (OSError, ValueError):
        return None
    argv = arguments(pid)
    is_guest = bool(argv) and argv[0].endswith("kvm") and option(argv, "-pidfile") == str(pidfile)
    return pid if is_guest else None


def found(proof: Proof) -> Iterator[int]:
    """The pids of all processes that a proof accepts by their arguments."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (argv := arguments(int(name))) and proof(argv):
            yield int(name)


def is_guest_of(tree: Tree) -> Proof:
    """Proof: a guest of this node, whatever became of its pidfile."""
    kvm = str(tree.kvm)
    return lambda argv: argv[0] == kvm


def end(pid: int, proof: Proof, *, signals: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """Send each signal and wait so many seconds for the end; True once the process is gone.

    The pidfd makes sure that the process proved is the one signalled, even if its pid is reused.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        argv = arguments(pid)
        if not argv or not proof(argv):
            return not argv
        for number, seconds in signals:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:
                return True
        return False
    finally:
        os.close(handle)


def wait_until(condition: Callable[[], bool], *, seconds: float, poll: float = 0.02) -> bool:
    """Poll a condition until it holds or the time is over; says whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return condition()
        time.sleep(poll)
    return True
