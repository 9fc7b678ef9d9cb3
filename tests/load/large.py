"""The service on a host of 512 CPUs with as many guests as fill three quarters of them.

Host and guests are made up (tests.page.pretended): the kernel's part is not the product's. What is
looked at is memory, after the start and after every page of the API was asked for, and that long
answers leave nothing behind.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.running import Running
from tests.load import flat
from tests.load.outcome import Outcome

SPEC = "2x8x16x2"
ASKED = (
    *("status", "guests", "topology", "matrix", "decisions", "core-vm-affinity", "heatmap.svg"),
    *("core-ranking/summary", "core-ranking"),
)
AGAIN = 3
START = 120.0  # seconds: making it all up takes its time
LEFT_MOST = 8e6  # bytes that asking for everything again may add
MEMORY_MOST = 130e6  # bytes: half as much again as was measured


class Pretended(Running):
    """A service on a host that is made up, below a root that is no node's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "var/log").mkdir(parents=True)
        self.output = root / "var/log/service.out"
        self.start()

    def start(self) -> None:
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.page.pretended", str(self.root), SPEC, "--stdout"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # As the unit has it.
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            )
        deadline = time.monotonic() + START
        while not self.answers() and self.process.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.2)

    @property
    def socket(self) -> Path:
        return self.root / "run/proxmox-cpu-affinity/api.sock"


def run(root: Path) -> Outcome:
    """Ask a service of 512 CPUs for all it has, again and again."""
    wrong: list[str] = []
    with Pretended(root) as service:
        service.wait_for(lambda: service.get("/api/v1/status").json["guests_running"])
        service.wait_for(_all_placed(service))
        guests = service.get("/api/v1/status").json["guests_running"]
        begun = flat.resident(service.process.pid)
        asked = []
        for _ in range(1 + AGAIN):
            for path in ASKED:
                answer = service.get(f"/api/v1/{path}")
                if answer.status != 200:
                    wrong.append(f"{path}: {answer.status} {answer.body[:200]!r}")
            service.get("/metrics")
            asked.append(flat.resident(service.process.pid))
        longest = len(json.loads(service.get("/api/v1/core-ranking").body))
        service.process.send_signal(signal.SIGTERM)
        if service.process.wait(30):
            wrong.append(f"the service ended with {service.process.returncode}")
    if longest != 512:
        wrong.append(f"a ranking of {longest} CPUs")
    if asked[-1] - asked[0] > LEFT_MOST:
        wrong.append(f"asking {AGAIN} times more left {(asked[-1] - asked[0]) / 1e6:.1f} MB")
    if asked[-1] > MEMORY_MOST:
        wrong.append(f"{asked[-1] / 1e6:.0f} MB of memory")
    line = (
        f"512 CPUs, {guests} guests: service {begun / 1e6:.1f} MB after the start, "
        f"{asked[0] / 1e6:.1f} MB after every page of the API, {asked[-1] / 1e6:.1f} MB after "
        f"{AGAIN} times more"
    )
    return Outcome("large", line, tuple(wrong))


def _all_placed(service: Running) -> object:
    def placed() -> bool:
        status = service.get("/api/v1/status").json
        return status["guests_running"] == status["guests_confined"]

    return placed
