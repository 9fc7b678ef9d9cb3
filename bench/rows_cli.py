"""The command line: its help, and the list of many guests."""

import sys
from collections.abc import Iterator

from bench.report import Goal, Row, go_program
from bench.stage import Guests, Times, hook_of, ran, simulated

TIMES = 11
OURS = [sys.executable, "-m", "proxmox_cpu_affinity"]
GO = "the Go project's"


def helps() -> Iterator[Row]:
    """`--help`, in turn with the Go project's."""
    theirs = go_program("proxmox-cpu-affinity")
    ours = Times()
    beside: list[float] = []
    for _ in range(TIMES):
        ours.add(*ran([*OURS, "--help"]))
        if theirs is not None:
            beside.append(ran([theirs, "--help"])[0])
    name = GO if theirs else f"{GO}: not present"
    yield Row("--help", "ms", tuple(ours.wall), Goal(100.0), name, tuple(beside), tuple(ours.cpu))


def lists() -> Iterator[Row]:
    """`ps` of ten guests and of a hundred. The Go project's needs a real node."""
    for count, goal in ((10, None), (100, Goal(300.0))):
        with simulated() as made:
            guests = Guests(made, hook_of(made)[0])
            guests.start_many(count)
            words = [*OURS, "--root", str(made.root), "ps"]
            times = Times()
            for _ in range(TIMES):
                times.add(*ran(words))
            guests.end_all()
        yield Row(f"ps, {count} guests", "ms", tuple(times.wall), goal, cpu=tuple(times.cpu))
