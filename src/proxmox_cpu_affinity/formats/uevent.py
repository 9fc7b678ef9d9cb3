"""The kernel's uevents as they come over netlink: `action@devpath`, then KEY=value, each ended by
a NUL (kernel: lib/kobject_uevent.c). Out of scope: udev's messages, which begin otherwise."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu

_CPU = re.compile(r"/devices/system/cpu/cpu([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Uevent:
    """One message: what happened to which device."""

    action: str
    devpath: str
    fields: Mapping[str, str]

    @property
    def cpu(self) -> Cpu | None:
        """The CPU that was added, removed, or went on- or offline; None for other devices."""
        found = _CPU.fullmatch(self.devpath)
        return Cpu(int(found[1])) if found and self.fields.get("SUBSYSTEM") == "cpu" else None


def parse(data: bytes) -> Uevent:
    """SyntaxFault for what is no uevent of the kernel's."""
    head, *rest = data.decode("utf-8", "surrogateescape").split("\0")
    action, at, devpath = head.partition("@")
    if not (at and action and devpath.startswith("/")):
        raise SyntaxFault(f"{head[:60]!r} is no uevent of the kernel")
    fields = {key: value for key, equals, value in (f.partition("=") for f in rest) if equals}
    return Uevent(action, devpath, fields)
