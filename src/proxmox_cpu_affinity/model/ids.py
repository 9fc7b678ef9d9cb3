"""The kinds of number that must not be mistaken for one another."""

from typing import NewType

Cpu = NewType("Cpu", int)
"""One Linux logical CPU: the number in /sys/devices/system/cpu/cpuN."""

NodeId = NewType("NodeId", int)
"""A NUMA node: the number in /sys/devices/system/node/nodeN."""

Vmid = NewType("Vmid", int)
"""A guest's number, unique in its cluster."""

Pid = NewType("Pid", int)
Tid = NewType("Tid", int)

VMID_MIN, VMID_MAX = 100, 999_999_999


def vmid_of(text: str) -> Vmid | None:
    """The VMID a text spells, or None: PVE allows 100 to 999999999 without a leading zero."""
    if not (text.isascii() and text.isdigit()) or text[0] == "0":
        return None
    number = int(text) if len(text) <= 9 else 0
    return Vmid(number) if number >= VMID_MIN else None
