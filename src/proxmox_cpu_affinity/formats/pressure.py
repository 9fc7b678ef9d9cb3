"""How long tasks waited for CPUs: cpu.pressure of a control group, schedstat of a thread.

Both are totals since the beginning; out of scope: their differences over time.
"""

import re

from proxmox_cpu_affinity.model.errors import SyntaxFault

_SOME = re.compile(r"^some .*\btotal=([0-9]{1,20})$", re.MULTILINE)
_SCHEDSTAT = re.compile(r"[0-9]{1,20} ([0-9]{1,20}) [0-9]{1,20}\n?")


def some_waited(text: str) -> float:
    """Seconds in which at least one task of the group waited (Documentation/accounting/psi.rst).
    SyntaxFault where the line `some` is missing."""
    match = _SOME.search(text)
    if match is None:
        raise SyntaxFault(f"{text[:60]!r} says nothing of CPU pressure")
    return int(match[1]) / 1e6


def run_delay(text: str) -> float:
    """Seconds that a thread could have run and did not: the second number of /proc/PID/schedstat
    (Documentation/scheduler/sched-stats.rst). SyntaxFault for anything but three numbers."""
    match = _SCHEDSTAT.fullmatch(text)
    if match is None:
        raise SyntaxFault(f"{text[:60]!r} is no line of schedstat")
    return int(match[1]) / 1e9
