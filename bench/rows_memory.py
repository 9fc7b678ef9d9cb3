"""What the service's memory is made of: the libraries one after the other, then guests and CPUs."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from bench.report import Goal, Row
from bench.rows_service import until_measured
from bench.stage import Guests, hook_of, serving, simulated
from tests.load import flat, large

TIMES = 3
MB = 1e6
PARTS = (
    ("asyncio", "asyncio"),
    ("aiohttp", "aiohttp.web"),
    ("numpy", "numpy"),
    ("ours, with dbus-fast", "proxmox_cpu_affinity.service.api"),
)
# Prints RssAnon + RssFile in kB, before all and after each import.
_SCRIPT = """
import sys
def shown():
    lines = open("/proc/self/status").read().splitlines()
    print(sum(int(l.split()[1]) for l in lines if l.startswith(("RssAnon", "RssFile"))))
shown()
for name in sys.argv[1:]:
    __import__(name)
    shown()
"""


def parts() -> Iterator[Row]:
    """What each import adds, in the service's order."""
    found: list[list[float]] = []
    for _ in range(TIMES):
        words = [sys.executable, "-c", _SCRIPT, *(module for _, module in PARTS)]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        )
        marks = [1024 * int(line) / MB for line in done.stdout.split()]
        found.append([marks[0], *(b - a for a, b in pairwise(marks))])
    names = ("the interpreter", *(name for name, _ in PARTS))
    for name, values in zip(names, zip(*found, strict=True), strict=True):
        yield Row(f"memory: {name}", "MB", values)


def services() -> Iterator[Row]:
    """Of the whole service, on this machine and on one of 512 CPUs that are made up."""
    for count in (0, 100):
        values = []
        for _ in range(TIMES):
            with simulated() as made:
                guests = Guests(made, hook_of(made)[0])
                guests.start_many(count)
                with serving(made) as service:
                    until_measured(service)
                    values.append(flat.resident(service.process.pid) / MB)
                guests.end_all()
        yield Row(f"memory: service, {count} guests", "MB", tuple(values), Goal(70.0))
    with (
        tempfile.TemporaryDirectory(prefix="pca-bench-") as name,
        large.Pretended(Path(name) / "n") as service,
    ):
        service.wait_for(lambda: service.get("/api/v1/status").json["guests_running"])
        size = flat.resident(service.process.pid) / MB
        service.end()
    yield Row("memory: service, 512 CPUs made up, 86 guests", "MB", (size,))
