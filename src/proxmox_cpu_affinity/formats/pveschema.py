"""Which keys a guest's file may hold and what PVE accepts as their values when it reads them.

After qemu-server's `check_type`: on reading only the type and the format are checked, never ranges
or enumerations (those are checked where a value is set). Out of scope: the formats of disks,
network cards and other devices, whose values are taken as they are.
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault


class Kind(Enum):
    """How PVE checks a value, and what it turns it into."""

    BOOLEAN = auto()  # becomes 1 or 0
    INTEGER = auto()  # becomes the number without leading zeros
    NUMBER = auto()
    TEXT = auto()  # one pair of double quotes around it is removed
    FORMATTED = auto()  # taken as it is
    CPULIST = auto()
    TAGS = auto()
    VOLUME = auto()
    NAME = auto()
    HOTPLUG = auto()
    MEMORY = auto()


_NAMES = {
    Kind.BOOLEAN: (
        "acpi allow-ksm autostart ciupgrade freeze keephugepages kvm localtime numa onboot"
        " protection reboot tablet tdf template"
    ),
    Kind.INTEGER: "balloon cores cpuunits migrate_speed shares smp snaptime sockets vcpus",
    Kind.NUMBER: "cpulimit migrate_downtime",
    Kind.TEXT: (
        "arch args bios cipassword citype ciuser hugepages keyboard lock"
        " ostype running-nets-host-mtu runningcpu runningmachine scsihw startdate vmgenid"
    ),
    Kind.FORMATTED: (
        "agent amd-sev audio0 boot bootdisk cdrom cicustom cpu efidisk0 intel-tdx ivshmem machine"
        " meta nameserver parent rng0 searchdomain smbios1 spice_enhancements sshkeys startup"
        " tpmstate0 vga vmstate vmstatestorage watchdog"
    ),
    Kind.CPULIST: "affinity",
    Kind.TAGS: "tags",
    Kind.VOLUME: "hookscript",
    Kind.NAME: "name",
    Kind.HOTPLUG: "hotplug",
    Kind.MEMORY: "memory",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}

_NUMBERED = re.compile(
    r"(?:net|ide|scsi|sata|virtio|virtiofs|usb|hostpci|serial|parallel|unused|numa|ipconfig)[0-9]+"
)
_VOLUME = re.compile(r"[a-z][a-z0-9._-]*[a-z0-9]:.+", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r"[a-z0-9_][a-z0-9_+.-]*", re.ASCII | re.IGNORECASE)
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII | re.IGNORECASE)
_HOTPLUG = frozenset(("network", "disk", "cpu", "memory", "usb", "cloudinit"))
_TRUTH = dict.fromkeys(("1", "on", "yes", "true"), True)
_TRUTH |= dict.fromkeys(("0", "off", "no", "false"), False)
_SEPARATORS = re.compile(r"[\s,;]+", re.ASCII)


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a list as PVE splits it: at comma, semicolon, blank and NUL alike."""
    return tuple(part for part in _SEPARATORS.split(text.replace("\0", " ")) if part)


def kind_of(key: str) -> Kind | None:
    """The kind of a key of the main, pending or a snapshot section; None where PVE has none."""
    return _KINDS.get(key) or (Kind.FORMATTED if _NUMBERED.fullmatch(key) else None)


def boolean(text: str) -> bool:
    """The truth a text spells in PVE's files: 1, on, yes, true and their opposites. SyntaxFault."""
    found = _TRUTH.get(text.lower())
    if found is not None:
        return found
    raise SyntaxFault(f"type check ('boolean') failed - got '{text}'")


def checked(key: str, value: str) -> str:
    """The value as PVE keeps it after reading. SyntaxFault where PVE drops it with a warning."""
    kind = kind_of(key)
    if kind is None:
        raise SyntaxFault(f"unknown setting '{key}'")
    if "\r" in value or "\n" in value:
        raise SyntaxFault("property contains a line feed")
    if kind is Kind.BOOLEAN:
        return "1" if boolean(value) else "0"
    if kind is Kind.INTEGER:
        return _integer(value)
    if kind is Kind.TEXT:
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        return value[1:-1] if quoted else value
    if kind in _CHECKS and not _CHECKS[kind](value):
        raise SyntaxFault(f"invalid format - '{value}' is no {kind.name.lower()}")
    return value


def _integer(value: str) -> str:
    # More digits than a machine word holds would be a float in Perl; no PVE writes that.
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise SyntaxFault(f"type check ('integer') failed - got '{value}'")
    return str(int(value))


def _is_cpulist(value: str) -> bool:
    try:
        return bool(CpuSet.parse(value))
    except SyntaxFault:
        return False


_CHECKS: Mapping[Kind, Callable[[str], object]] = {
    Kind.NUMBER: re.compile(r"[0-9]+(?:\.[0-9]+)?").fullmatch,
    Kind.CPULIST: _is_cpulist,
    Kind.TAGS: lambda value: all(_TAG.fullmatch(tag) for tag in split_list(value)),
    Kind.VOLUME: _VOLUME.fullmatch,
    Kind.NAME: _DNS_NAME.fullmatch,
    Kind.HOTPLUG: lambda value: value in {"0", "1"} or _HOTPLUG.issuperset(split_list(value)),
    Kind.MEMORY: re.compile(r"(?:current=)?[0-9]+").fullmatch,
}
