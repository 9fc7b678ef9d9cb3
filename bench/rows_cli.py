"""The command line: its help, and the list of many guests."""

import sys
from collections.abc import Iterator

from bench.report import Goal, Row, go_program
from bench.stage import Guests, hook_of, simulated, wall_ms

TIMES = 11
OURS = [sys.executable, "-m", "proxmox_cpu_affinity"]
GO = "the Go project's"


def helps() -> Iterator[Row]:
    """`--help`, in turn with the Go project's."""
    theirs = go_program("proxmox-cpu-affinity")
    ours: list[float] = []
    beside: list[float] = []
    for _ in range(TIMES):
        ours.append(wall_ms([*OURS, "--help"]))
        if theirs is not None:
            beside.append(wall_ms([theirs, "--help"]))
    name = GO if theirs else f"{GO}: not present"
    yield Row("--help", "ms", tuple(ours), Goal(100.0), name, tuple(beside))


def lists() -> Iterator[Row]:
    """`ps` of ten guests and of a hundred. The Go project's needs a real node."""
    for count, goal in ((10, None), (100, Goal(300.0))):
        with simulated() as made:
            guests = Guests(made, hook_of(made)[0])
            guests.start_many(count)
            words = [*OURS, "--root", str(made.root), "ps"]
            times = tuple(wall_ms(words) for _ in range(TIMES))
            guests.end_all()
        yield Row(f"ps, {count} guests", "ms", times, goal)
