"""Ends the service of a simulated node: proved by the lock it holds, and waited for."""

import os
import signal
import time
from pathlib import Path

from proxmox_cpu_affinity.service.paths import Paths


def end_service(root: Path) -> bool:
    """SIGTERM to the service below `root`, and wait for its end; whether one ran."""
    lock = Paths(root.resolve()).lock
    try:
        pid = int(lock.read_text())
    except (OSError, ValueError):
        return False
    if not _holds(pid, lock):
        return False
    end_process(pid)
    return True


def _holds(pid: int, file: Path) -> bool:
    """Whether a process has a file open: a pid that is used again has not."""
    try:
        return any(link.readlink() == file for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def end_process(pid: int) -> None:
    """SIGTERM, then SIGKILL, and wait until it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            signal.pidfd_send_signal(handle, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if _reaped(pid):
                    return
                time.sleep(0.01)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _reaped(pid: int) -> bool:
    """Whether a process is gone; our own child is taken from the process table first."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not Path(f"/proc/{pid}").exists()
