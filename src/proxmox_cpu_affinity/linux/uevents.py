"""Hears of CPUs that come, go, and are switched on or off: the kernel's uevents (netlink(7)).

Only the kernel may speak: messages of other senders are dropped. Out of scope: what is online
(sysfs says it), for a message that was lost must change nothing but the time it takes.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxmox_cpu_affinity.formats import uevent
from proxmox_cpu_affinity.model.errors import SyntaxFault

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_LONGEST = 8192  # UEVENT_BUFFER_SIZE is 2048, and the head comes before it


@dataclass(slots=True)
class CpuEvents:
    """A socket that calls `changed` for each message about a CPU."""

    changed: Callable[[], None]
    _socket: socket.socket | None = None

    def open(self) -> str:
        """Listen from now on, if that is not so already; why that cannot be, empty if it can."""
        if self._socket is not None:
            return ""
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            listening = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        except OSError as error:
            return error.strerror or str(error)
        try:
            listening.bind((0, _KERNEL_GROUP))
        except OSError as error:
            listening.close()
            return error.strerror or str(error)
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening.fileno(), self._readable)
        return ""

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None, "nobody reads a closed socket"
        try:
            data, sender = self._socket.recvfrom(_LONGEST)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self.changed()  # messages were lost: one of them may have been about a CPU
                return
            raise
        if sender[0] != 0:
            return
        try:
            message = uevent.parse(data)
        except SyntaxFault:
            return
        if message.cpu is not None:
            self.changed()
