"""Says when a process has ended, by a pidfd (pidfd_open(2)): no polling, no pid used again."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.threads import stat_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.guest import GuestProcess


@dataclass(slots=True)
class ProcessWatch:
    """The processes watched, and whom to tell."""

    tree: Tree
    ended: Callable[[GuestProcess], None]
    _fds: dict[GuestProcess, int] = field(default_factory=dict)

    def watch(self, process: GuestProcess) -> None:
        """Call `ended` once when this very process is gone; soon, if it is gone already."""
        if process in self._fds:
            return
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            loop.call_soon(self.ended, process)
            return
        except OSError:
            return  # too many descriptors: the scans will find it
        try:
            seen = stat_of(self.tree, process.pid)
            same = seen is not None and seen.start_time == process.start_time
            if same:
                loop.add_reader(fd, self._readable, process)
        except (AffinityError, OSError):
            os.close(fd)
            return  # the same, or fs.epoll.max_user_watches
        if same:
            self._fds[process] = fd
        else:
            os.close(fd)
            loop.call_soon(self.ended, process)

    def close(self) -> None:
        for process in list(self._fds):
            self._forget(process)

    def _readable(self, process: GuestProcess) -> None:
        self._forget(process)
        self.ended(process)

    def _forget(self, process: GuestProcess) -> None:
        fd = self._fds.pop(process)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
