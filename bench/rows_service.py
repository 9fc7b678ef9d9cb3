"""The service: how soon it answers and has measured, how soon guests are held, its idle cost."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.report import Goal, Row
from bench.stage import Guests, hook_of, serving, simulated
from tests.integration.running import Running

STARTS = 7
IDLE = 60.0  # seconds: two scans
SETTLING = 3.0  # seconds after the last work of its start
MEASURING = 60.0  # seconds at most
GUESTS = 10
PEER_LIMIT = 300  # seconds


def answering() -> Iterator[Row]:
    """From the start of the program to the first answer, and until the latencies are measured."""
    answers, measured, spent = [], [], []
    for _ in range(STARTS):
        with simulated() as made:
            began = time.perf_counter()
            with serving(made) as service:
                answers.append(time.perf_counter() - began)
                spent.append(_spent(service.process.pid)[0])
                until_measured(service)
                measured.append(time.perf_counter() - began)
    yield Row("service start to answering", "s", tuple(answers), Goal(0.5), cpu=tuple(spent))
    name, times = _peer()
    yield Row("service start to measured", "s", tuple(measured), None, name, times)


def until_measured(service: Running) -> None:
    """Wait for the end of the first measurement, whatever it comes to; for a limited time."""
    deadline = time.monotonic() + MEASURING
    while time.monotonic() < deadline:
        matrix = service.get("/api/v1/status").json["matrix"]
        assert isinstance(matrix, dict)
        if matrix["pairs_all"] and not matrix["measuring"]:
            return
        time.sleep(0.02)


def _peer() -> tuple[str, tuple[float, ...]]:
    """A whole run of another program that measures every pair."""
    for name in ("core-to-core-latency", "c2clat"):
        path = shutil.which(name)
        if path is not None:
            began = time.perf_counter()
            done = subprocess.run([path], capture_output=True, check=False, timeout=PEER_LIMIT)
            if done.returncode == 0:
                return f"{name}, a whole run", (time.perf_counter() - began,)
    return "core-to-core-latency, c2clat: not present", ()


def confining() -> Iterator[Row]:
    """From the start of a guest's process until all its threads are held, as the service says."""
    with simulated() as made:
        volume, hook = hook_of(made)
        guests = Guests(made, volume)
        with serving(made) as service:
            for vmid in range(100, 100 + GUESTS):
                guests.configure(vmid)
                for phase in ("pre-start", "post-start"):
                    if phase == "post-start":
                        guests.start(vmid)
                    subprocess.run([hook, str(vmid), phase], check=True, capture_output=True)
            found = [service.guest(vmid)["confined_after_s"] for vmid in guests.running]
            guests.end_all()
    values = tuple(1000 * float(str(seconds)) for seconds in found)
    yield Row("guest's process to confined, by hook", "ms", values)


def idle(seconds: float = IDLE) -> Iterator[Row]:
    """What a service with ten running guests does while nothing happens."""
    with simulated() as made:
        volume, _ = hook_of(made)
        guests = Guests(made, volume)
        guests.start_many(GUESTS)
        with serving(made) as service:
            until_measured(service)
            time.sleep(SETTLING)
            pid = service.process.pid
            before, began = _spent(pid), time.monotonic()
            time.sleep(seconds)
            after, took = _spent(pid), time.monotonic() - began
        guests.end_all()
    cpu = 100 * (after[0] - before[0]) / took
    name = f"idle, {GUESTS} guests, {took:.0f} s"
    yield Row(f"{name}: CPU", "%", (cpu,), Goal(0.1))
    yield Row(f"{name}: voluntary switches a second", "", ((after[1] - before[1]) / took,))


def _spent(pid: int) -> tuple[float, int]:
    """Seconds of CPU time and voluntary switches of all threads (proc_pid_schedstat)."""
    seconds, switches = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
        status = (task / "status").read_text().splitlines()
        switches += next(int(s.split()[1]) for s in status if s.startswith("voluntary_ctxt"))
    return seconds, switches
