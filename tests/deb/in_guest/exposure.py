"""What `systemd-analyze security` holds against the unit, and whether the unit says why."""

import re
from collections.abc import Iterator

MOST = 2.1


def level(table: str) -> float:
    """The overall figure, from 0 to 10."""
    (found,) = re.findall(r"exposure level for \S+: ([0-9.]+)", table)
    return float(found)


def remaining(table: str) -> Iterator[str]:
    """What each line that counts is about: PrivateUsers=, @resources, SYS_NICE, INET."""
    for name in re.findall(r"^(?:✗|-) (\S+) ", table, re.M):  # the latter where there is no UTF-8
        setting, _, part = name.partition("=~")
        plain = re.sub(r"^(CAP|AF)_", "", part.replace("(", "").rstrip(")").partition("|")[0])
        yield plain or f"{setting.partition('=')[0]}="


def assert_low_and_explained(table: str, unit: str) -> None:
    """The figure is low enough, and a comment of the unit names each line that remains."""
    assert level(table) <= MOST, table
    comments = "\n".join(line for line in unit.splitlines() if line.startswith("#")).casefold()
    lines = list(remaining(table))
    silent = [name for name in lines if name.casefold() not in comments]
    assert lines, table
    assert not silent, silent
