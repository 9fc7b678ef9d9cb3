"""Whether what a process holds stays the same: samples, their slope, and what is still flat.

Samples are taken at rest (no guest runs), so that two of them can be compared. The first half is
warm-up: caches and rings of bounded length fill.
"""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0  # seconds
KIB = 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds after so many events; bytes, but for descriptors and blocks."""

    events: int
    rss: int
    traced: int  # by tracemalloc, after a collection
    blocks: int  # of Python's allocator
    descriptors: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The growth over all events after the warm-up that still counts as none, in bytes."""

    rss: float = 2048 * KIB
    traced: float = 256 * KIB


def resident(pid: int) -> int:
    """VmRSS in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS:"))


def descriptors(pid: int) -> int:
    """How many are open: the fewest of a moment, for the last connection may still be closing."""
    found = []
    for _ in range(10):
        found.append(len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.05)
    return min(found)


def asked(pid: int, report: Path, events: int) -> Sample:
    """A sample of a service that was started by `watched`."""
    report.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + PATIENCE
    while not report.exists():
        assert time.monotonic() < deadline, "the service says nothing of its memory"
        time.sleep(0.01)
    said = json.loads(report.read_text())
    return Sample(events, resident(pid), said["traced"], said["blocks"], descriptors(pid))


def warm(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those after the warm-up."""
    return samples[len(samples) // 2 :]


def growth(points: Sequence[tuple[float, float]]) -> float:
    """The rise of the straight line through the points (least squares) from first to last."""
    count = len(points)
    if count < 2:
        return 0.0
    middle = sum(x for x, _ in points) / count
    level = sum(y for _, y in points) / count
    spread = sum((x - middle) ** 2 for x, _ in points)
    if not spread:
        return 0.0
    slope = sum((x - middle) * (y - level) for x, y in points) / spread
    return slope * (points[-1][0] - points[0][0])


def wrong(samples: Sequence[Sample], limits: Limits | None = None) -> list[str]:
    """What is not flat, in words."""
    limits, kept = limits or Limits(), warm(samples)
    found = []
    for name, limit in (("rss", limits.rss), ("traced", limits.traced)):
        grown = growth([(s.events, getattr(s, name)) for s in kept])
        if grown > limit:
            found.append(f"{name} grows by {grown / KIB:.0f} KiB after the warm-up")
    numbers = {s.descriptors for s in kept}
    if len(numbers) > 1:
        found.append(f"open descriptors differ: {sorted(numbers)}")
    return found
