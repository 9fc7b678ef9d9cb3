"""The hook's phases with the whole answer of the real service, beside starting an interpreter.

In turn within one run, so that whatever else the machine does meets both alike.
"""

from collections.abc import Iterator

from bench.report import Goal, Row
from bench.stage import Guests, Times, hook_of, python, ran, serving, simulated

ROUNDS = 25
WARM_UP = 3
PHASES = ("pre-start", "post-start", "pre-stop", "post-stop")
NOTHING = "python3 -I -S -c pass"
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin"}  # as PVE sets it
GOAL = Goal(25.0, 3.0)
VMID = 100


def phases() -> Iterator[Row]:
    """One guest that starts and stops again and again, with its process and its pidfile."""
    times = {name: Times() for name in (*PHASES, NOTHING)}
    with simulated() as made:
        volume, hook = hook_of(made)
        guests = Guests(made, volume)
        guests.configure(VMID)
        with serving(made):
            for turn in range(WARM_UP + ROUNDS):
                for name, took in times.items():
                    if name == "post-start":
                        guests.start(VMID)
                    if name == "post-stop":
                        guests.end(VMID)
                    words = [hook, str(VMID), name]
                    if name == NOTHING:
                        words = [python(), "-I", "-S", "-c", "pass"]
                    both = ran(words, ENVIRONMENT)
                    if turn >= WARM_UP:
                        took.add(*both)
    beside = tuple(times[NOTHING].wall)
    for name in PHASES:
        wall, cpu = tuple(times[name].wall), tuple(times[name].cpu)
        yield Row(f"hook {name}", "ms", wall, GOAL, NOTHING, beside, cpu)
