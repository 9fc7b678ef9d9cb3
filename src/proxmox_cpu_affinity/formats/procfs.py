"""What /proc says of a process (stat, cmdline, children, PVE's pidfiles) and of the CPUs' time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Tid


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here (proc(5))."""

    comm: str
    state: str
    start_time: int  # field 22, clock ticks after boot
    last_cpu: Cpu  # field 39


def stat(text: str) -> Stat:
    """Parse a stat line; comm may hold blanks and parentheses, so the last one ends it."""
    opening, closing = text.find("("), text.rfind(")")
    fields = text[closing + 1 :].split()
    if opening < 0 or closing < opening or len(fields) < 37:
        raise SyntaxFault(f"{text[:60]!r} is no line of /proc/PID/stat")
    try:
        return Stat(
            comm=text[opening + 1 : closing],
            state=fields[0],
            start_time=int(fields[19]),
            last_cpu=Cpu(int(fields[36])),
        )
    except ValueError:
        raise SyntaxFault(f"{text[:60]!r} is no line of /proc/PID/stat") from None


def pidfile(text: str) -> Pid | None:
    """The pid in a pidfile, None for anything but one decimal number and a newline."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})\n?", text)
    return Pid(int(match[1])) if match else None


def tids(text: str) -> tuple[Tid, ...]:
    """The numbers in /proc/PID/task/TID/children. SyntaxFault for anything else."""
    words = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        raise SyntaxFault(f"{text[:60]!r} are no thread ids")
    return tuple(Tid(int(word)) for word in words)


def argv(text: str) -> tuple[str, ...]:
    """The arguments in /proc/PID/cmdline; empty for a zombie or a kernel thread."""
    return tuple(text.removesuffix("\0").split("\0")) if text else ()


def pidfile_argument(arguments: tuple[str, ...]) -> str | None:
    """The value of `-pidfile` (one or two dashes) of a process that is a QEMU by its name.

    As PVE judges: the file in argv[0] ends in `kvm` or begins with `qemu-` (qemu-server,
    QemuServer/Helpers.pm, parse_cmdline).
    """
    if not arguments:
        return None
    program = arguments[0].rpartition("/")[2]
    if not (program.endswith("kvm") or program.startswith("qemu-")):
        return None
    for name, value in pairwise(arguments):
        if name in ("-pidfile", "--pidfile"):
            return value
    return None


CpuTimes = Mapping[int, tuple[int, int]]
"""CPU number to clock ticks: busy, and all."""

_CPU_LINE = re.compile(r"^cpu([0-9]{1,6})((?: [0-9]{1,20}){4,})", re.MULTILINE)


def cpu_times(text: str) -> CpuTimes:
    """The `cpuN` lines of /proc/stat (proc(5)). Idle and iowait are not busy; guest time is in
    user time already. Lines of another form are passed over: what is told is a hint."""
    found = {}
    for match in _CPU_LINE.finditer(text):
        ticks = [int(word) for word in match[2].split()][:8]
        found[int(match[1])] = (sum(ticks) - sum(ticks[3:5]), sum(ticks))
    return found


def busy_between(before: CpuTimes, after: CpuTimes) -> dict[int, float]:
    """How busy each CPU was between two readings, 0 to 1; without those that are in one only."""
    busy = {}
    for cpu in sorted(before.keys() & after.keys()):
        worked, passed = (late - early for early, late in zip(before[cpu], after[cpu], strict=True))
        busy[cpu] = min(1.0, max(0.0, worked / passed)) if passed > 0 else 0.0
    return busy
