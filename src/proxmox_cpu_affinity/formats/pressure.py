"""How long tasks waited for CPUs: the pressure of a control group or a host, a thread's schedstat.

Totals are since the beginning; out of scope: their differences over time.
"""

import re

from proxmox_cpu_affinity.model.errors import SyntaxFault

_SOME = re.compile(r"^some .*\btotal=([0-9]{1,20})$", re.MULTILINE)
_LATELY = re.compile(r"^some avg10=([0-9]{1,3}\.[0-9]{1,6}) ", re.MULTILINE)
_SCHEDSTAT = re.compile(r"[0-9]{1,20} ([0-9]{1,20}) [0-9]{1,20}\n?")


def some_waited(text: str) -> float:
    """Seconds in which at least one task of the group waited (Documentation/accounting/psi.rst).
    SyntaxFault where the line `some` is missing."""
    match = _SOME.search(text)
    if match is None:
        raise SyntaxFault(f"{text[:60]!r} says nothing of CPU pressure")
    return int(match[1]) / 1e6


def some_waits(text: str) -> float:
    """Share of the last ten seconds in which at least one task waited, of the same files.
    SyntaxFault where it is not said."""
    match = _LATELY.search(text)
    if match is None:
        raise SyntaxFault(f"{text[:60]!r} says nothing of CPU pressure")
    return float(match[1]) / 100


def run_delay(text: str) -> float:
    """Seconds that a thread could have run and did not: the second number of /proc/PID/schedstat
    (Documentation/scheduler/sched-stats.rst). SyntaxFault for anything but three numbers."""
    match = _SCHEDSTAT.fullmatch(text)
    if match is None:
        raise SyntaxFault(f"{text[:60]!r} is no line of schedstat")
    return int(match[1]) / 1e9
