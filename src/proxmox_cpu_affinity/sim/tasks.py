"""Workers: PVE runs a guest's power commands in a process of its own, with a task log.

Out of scope: tasks that outlive their command (the API's way); the command line waits for its task.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from proxmox_cpu_affinity.sim import say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import wait_until
from proxmox_cpu_affinity.sim.tree import Tree

_GROUP_END_S = 5.0


def run(tree: Tree, kind: str, vmid: int, work: Callable[[], None]) -> int:
    """Do the work in a worker and return the exit status of the command.

    The worker leads its own session, so what the hooks leave behind in its process group is ended
    with the task: SIGTERM, and SIGKILL five seconds later. Its output goes to the caller's stdout
    and into the task's log.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        _work(writer, work)
    os.close(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, lambda got, _: _signal_group(worker, got))
    _log(tree, reader, name=f"UPID:{tree.settings.name}:{worker:08X}:{kind}:{vmid}:root@pam:")
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    _end_group(worker)
    return status if status >= 0 else 255


def _work(output: int, work: Callable[[], None]) -> NoReturn:
    """In the forked child, which must never return to its caller."""
    status = 255
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        work()
        status = 0
    except Fault as fault:
        say.warn(fault.text)
        status = fault.status
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _log(tree: Tree, reader: int, *, name: str) -> None:
    folder = tree.root / "var/log/pve/tasks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}{int(time.time()):X}", "ab", buffering=0) as log:
        while data := os.read(reader, 65536):
            log.write(data)
            os.write(1, data)
    os.close(reader)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _end_group(leader: int) -> None:
    _signal_group(leader, signal.SIGTERM)
    if not wait_until(lambda: not _group_lives(leader), seconds=_GROUP_END_S):
        _signal_group(leader, signal.SIGKILL)


def _group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True
