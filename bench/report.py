"""The one table of `make bench`: a row for each thing that is measured, beside what it may cost.

Out of scope: how things are measured.
"""

import os
import platform
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LIBRARIES = ("aiohttp", "click", "rich", "dbus-fast", "numpy")
PEERS = ("core-to-core-latency", "c2clat")
ABSENT = "not present"


@dataclass(frozen=True, slots=True)
class Goal:
    """The most that a row's median may be on a quiet machine, in the row's unit."""

    most: float
    ratio: float | None = None  # and as a multiple of what stands beside it


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured some times; `beside` is the same of a peer or of a yardstick."""

    name: str
    unit: str
    values: tuple[float, ...]
    goal: Goal | None = None
    beside_name: str = ""
    beside: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()  # CPU time of the same runs: what other work cannot lengthen much

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        return self.median / statistics.median(self.beside) if self.beside else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        within = self.goal.ratio is None or (self.ratio or 0.0) <= self.goal.ratio
        return self.median <= self.goal.most and within


Maker = Callable[[], Iterator[Row]]


def tenths(values: Sequence[float]) -> tuple[float, float]:
    """The 10th and the 90th percentile; of few values the lowest and the highest."""
    if len(values) < 10:
        return min(values), max(values)
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return cuts[0], cuts[-1]


def head() -> str:
    return (
        "| what | unit | median | 10 % | 90 % | CPU time | goal | met | beside it | its | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )


def shown(row: Row) -> str:
    """The row as a line of the table."""
    low, high = tenths(row.values)
    beside = f"{statistics.median(row.beside):.4g}" if row.beside else ""
    cells = (
        row.name,
        row.unit,
        *(f"{value:.4g}" for value in (row.median, low, high)),
        f"{statistics.median(row.cpu):.4g}" if row.cpu else "",
        _goal(row.goal),
        {None: "", True: "yes", False: "NO"}[row.met],
        row.beside_name,
        beside,
        "" if row.ratio is None else f"{row.ratio:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _goal(goal: Goal | None) -> str:
    if goal is None:
        return ""
    return f"{goal.most:g}" + ("" if goal.ratio is None else f", {goal.ratio:g}x")


def machine() -> str:
    """Processor, kernel, versions and how busy it is; no names."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    pressure = Path("/proc/pressure/cpu")
    busy = pressure.read_text().split()[1] if pressure.exists() else "not said"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    virtual = " (virtual)" if any("hypervisor" in line for line in lines) else ""
    return (
        f"{next(names, 'unknown CPU')}{virtual}, {os.cpu_count()} CPUs, Linux "
        f"{platform.release()}, Python {platform.python_version()}, {versions}; "
        f"load {os.getloadavg()[0]:.1f}, CPU pressure {busy}"
    )


def go_program(name: str) -> str | None:
    """A program of the Go project: it has our programs' names, and is an ELF file."""
    path = shutil.which(name)
    if path is None:
        return None
    with open(path, "rb") as file:
        return path if file.read(4) == b"\x7fELF" else None


def peers() -> str:
    """Which peers were there."""
    there = {name: shutil.which(name) is not None for name in PEERS}
    there["the Go project's programs"] = go_program("proxmox-cpu-affinity") is not None
    return "; ".join(f"{name}: {'present' if yes else ABSENT}" for name, yes in there.items())
